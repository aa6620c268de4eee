"""`Seals`: the keys with which the nodes of a cluster tell each other's batches from a stranger's, and hide them.

A sealed batch is encrypted and authenticated (AES-256-GCM) with a key for one direction between two incarnations. So,
with the numbers of the batch, which are inside, it is good once: what somebody has overheard cannot be read, and is
worth nothing under another name, at another node, with another body, after a restart of either, or a second time.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["ID_BYTES", "SEAL_BYTES", "Seal", "Seals"]

ID_BYTES: Final = 4
"""Of the name of the key, by which whoever opens finds it among several."""
NONCE_BYTES: Final = 12
_HEAD: Final = ID_BYTES + NONCE_BYTES
SEAL_BYTES: Final = _HEAD + 16
"""What sealing adds."""
_NONCES: Final = 2 ** (8 * NONCE_BYTES)


class Seals:
    """The keys, the same at every node. Until it is given some it seals nothing and opens nothing."""

    def __init__(self, cluster: str, keys: Sequence[bytes] = (), *, nonces: Iterator[int] | None = None) -> None:
        """`cluster`: its name. What is sealed for one opens in no other, should they have the same keys.
        `nonces`: numbers that never come twice; None: they are counted, from a random one on.
        """
        self._cluster = cluster
        # Nothing else may be sealed with the keys of this process' incarnation, so counting is enough; and should two
        # processes ever go by one name, they begin somewhere else.
        self.nonces = nonces or count(secrets.randbelow(_NONCES // 2))
        self.generation = 0
        """Rises with each change of the keys."""
        self.first = b""
        """The name of the key that seals."""
        self.keys: dict[bytes, bytes] = {}
        """Those that open, by name. Derived: they give away nothing of those that they are made of."""
        if keys:
            self.use(keys)

    def use(self, keys: Sequence[bytes]) -> None:
        """The first seals, all open."""
        derived: dict[bytes, bytes] = {}
        for key in keys:
            made = _derive(key, "link frames", self._cluster)
            derived.setdefault(_derive(made, "name")[:ID_BYTES], made)
        self.keys = derived
        self.first = next(iter(derived), b"")
        self.generation += 1


class Seal:
    """One direction of the path between two incarnations."""

    __slots__ = ("_ciphers", "_generation", "_receiver", "_seals", "_sender")

    def __init__(self, seals: Seals, sender: str, receiver: str) -> None:
        self._seals = seals
        self._sender = sender
        self._receiver = receiver
        self._generation = -1
        self._ciphers: dict[bytes, AESGCM] = {}

    def seal(self, version: int, body: bytes, *, key: bytes = b"") -> bytes:
        """`body`, sealed, for a batch of this version. `key`: the name of the one to seal with, where it opens here;
        otherwise it is the first.

        Raises:
            ValueError: There are no keys.
        """
        seals = self._seals
        id = key if key and key in seals.keys else seals.first
        cipher = self._cipher(id)
        if cipher is None:
            raise ValueError("there is no key to seal with")
        nonce = next(seals.nonces).to_bytes(NONCE_BYTES, "big")
        return b"".join((id, nonce, cipher.encrypt(nonce, body, version.to_bytes(1, "big"))))

    def open(self, version: int, sealed: bytes) -> bytes | None:
        """The inverse of `seal`; None if it is not what the sender has sealed, or a key that does not open."""
        cipher = self._cipher(sealed[:ID_BYTES])
        if cipher is None or len(sealed) < SEAL_BYTES:
            return None
        try:
            return cipher.decrypt(sealed[ID_BYTES:_HEAD], sealed[_HEAD:], version.to_bytes(1, "big"))
        except InvalidTag:
            return None

    def _cipher(self, id: bytes) -> AESGCM | None:
        if self._generation != self._seals.generation:
            self._generation = self._seals.generation
            self._ciphers.clear()
        cipher = self._ciphers.get(id)
        if cipher is None and (key := self._seals.keys.get(id)) is not None:
            cipher = self._ciphers[id] = AESGCM(_derive(key, "from", self._sender, "to", self._receiver))
        return cipher


def _derive(key: bytes, *labels: str) -> bytes:
    # No label holds a zero byte, so no two lists of them are spelled alike.
    return hmac.digest(key, "\0".join(("understudy", *labels)).encode(), "sha256")
