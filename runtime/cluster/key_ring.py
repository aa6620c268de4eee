"""`KeyRing`: the keys of a cluster, and how they are changed. They seal `requestState`, and what its nodes say to each
other (`Seals`, which derives its own from them).

Two entries in the bucket of settings. `request-state`: the keys in use, of which the first seals and all open.
`request-state-next`: the one that is to seal next, while there is one; every node that reads it opens with it at once.
When all living nodes say in their leases that they do, whoever sees it first puts it in front of the others. Those stay
for `OVERLAP` seconds, and then go.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from nats.errors import Error as NatsError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from ...actors.packing import pack, unpack
from ...actors.session.commons import SharedSeal
from .errors import ClusterError

if TYPE_CHECKING:
    from nats.js.kv import KeyValue

__all__ = ["OVERLAP", "KeyRing", "fingerprint", "keys_in"]

logger = logging.getLogger("understudy.cluster")

IN_USE: Final = "request-state"
NEXT: Final = "request-state-next"
KEY_BYTES: Final = 32
OVERLAP: Final = 3600.0
"""Seconds that a key still opens after it has sealed its last: `requestState` itself lives for 600."""
MOST_KEYS: Final = 8
"""Keys that are in use at once; who changes them more often than that within `OVERLAP` is refused."""
TRIES: Final = 10


def fingerprint(key: bytes) -> str:
    """What tells a key from others, and nothing else about it."""
    return hashlib.sha256(b"understudy requestState key\0" + key).hexdigest()[:12]


class KeyRing:
    """One node's keys. Nothing is done by itself: `learn` reads, `advance` takes the next step that is due."""

    def __init__(
        self,
        seal: SharedSeal,
        given: Sequence[bytes] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`given`: the operator's own keys, of which the first seals; they are never changed here nor told to NATS.

        Raises:
            ValueError: A key of less than 32 bytes.
        """
        self._seal = seal
        self._clock = clock
        self._wall = wall
        self.given = bool(given)
        self._use: Callable[[Sequence[bytes]], None] | None = None
        self._in_use: list[bytes] = []
        self._revision = 0
        self._since = 0.0
        self._next: bytes | None = None
        self._next_revision = 0
        self.fingerprints: tuple[str, ...] = ()
        """Of the keys that open here; the first seals."""
        self.rotations = 0
        if given:
            self._take(list(given), None)

    def _take(self, in_use: list[bytes], following: bytes | None) -> None:
        keys = in_use if following is None else [*in_use, following]
        self._seal.use(keys)
        if self._use is not None:
            self._use(keys)
        self._in_use, self._next = in_use, following
        self.fingerprints = tuple(map(fingerprint, keys))

    def tell(self, use: Callable[[Sequence[bytes]], None]) -> None:
        """Have `use`, and nobody else any more, told of the keys, those of now and each change: the first seals."""
        self._use = use
        if self._in_use:
            use(self._in_use if self._next is None else [*self._in_use, self._next])

    @property
    def changing(self) -> bool:
        """Whether a new key waits for all nodes to have learned of it."""
        return self._next is not None

    # Learning

    async def learn(self, settings: KeyValue) -> None:
        """Take the cluster's keys, or make them. Raises nats-py's errors.

        Raises:
            ClusterError: What the bucket holds are no keys, or nodes make and remove them without end.
        """
        if self.given:
            return
        for _ in range(TRIES):
            # In this order: a key that is no longer the next one when the others are read is among those.
            following = await _read(settings, NEXT)
            in_use = await _read(settings, IN_USE)
            if in_use is None:
                try:
                    await settings.create(IN_USE, pack([self._new_key()]), validate_keys=False)
                except KeyWrongLastSequenceError:
                    logger.debug("another node has made the keys at the same moment")
                continue
            keys, revision = _keys(in_use, IN_USE), in_use[1]
            key = None
            if following is not None:
                key, self._next_revision = _keys(following, NEXT)[0], following[1]
            if revision != self._revision:
                self._revision, self._since = revision, self._clock()
            try:
                self._take(keys, None if key in keys else key)
            except ValueError as error:
                raise _no_keys(IN_USE, error) from error
            if key in keys:
                # Whoever put it in front has died before it could take it from here.
                await self._remove_next(settings)
            return
        raise ClusterError(f"the value of {IN_USE!r} in the NATS bucket of the cluster's settings comes and goes")

    def _new_key(self) -> bytes:
        """Random, with the time behind: so a key tells its age, whatever becomes of the entry that it is in."""
        return secrets.token_bytes(KEY_BYTES) + int(self._wall()).to_bytes(8, "big")

    # Changing

    async def rotate(self, settings: KeyValue) -> bool:
        """Make a key that will seal next; False if there is one already, which is as good. Raises nats-py's errors.

        Raises:
            ClusterError: The operator gives the keys, or they have been changed too often lately.
        """
        if self.given:
            raise ClusterError(
                "this cluster's keys are given by its operator (--request-state-keys): add a new one there, and "
                "restart the nodes one by one, twice: first with it behind the others, then with it in front"
            )
        await self.learn(settings)
        if self._next is not None:
            return False
        if len(self._in_use) >= MOST_KEYS:
            raise ClusterError(
                f"{len(self._in_use)} keys are in use, as they have been changed so often within {OVERLAP:g} s: "
                "try again in an hour"
            )
        try:
            await settings.create(NEXT, pack([self._new_key()]), validate_keys=False)
        except KeyWrongLastSequenceError:
            await self.learn(settings)
            return False
        await self.learn(settings)
        return True

    def waiting_for(self, others: Mapping[str, tuple[str, ...]]) -> list[str]:
        """Of the living nodes, with the fingerprints that they tell: those that do not open with the next key yet."""
        if self._next is None:
            return []
        wanted = fingerprint(self._next)
        return sorted(node for node, known in others.items() if wanted not in known)

    async def advance(
        self, settings: KeyValue, others: Mapping[str, tuple[str, ...]], *, every: float | None = None
    ) -> bool:
        """Take the step that is due, if one is; `others` as `waiting_for`. Raises nats-py's errors and `ClusterError`.

        `every`: seconds after which a key is changed by itself. One node's step succeeds; the others learn of it.
        """
        if self.given or not self._in_use:
            return False
        if self._next is not None:
            if self.waiting_for(others):
                return False
            step = [self._next, *self._in_use][:MOST_KEYS]
        elif len(self._in_use) > 1 and self._clock() - self._since >= OVERLAP:
            step = self._in_use[:1]
        elif every is not None and self._wall() - _made(self._in_use[0]) >= every and len(self._in_use) < MOST_KEYS:
            return await self.rotate(settings)
        else:
            return False
        rotated = self._next is not None
        try:
            await settings.update(IN_USE, pack(step), last=self._revision, validate_keys=False)
        except KeyWrongLastSequenceError:
            rotated = False
        await self.learn(settings)
        if rotated:
            self.rotations += 1
            logger.info("requestState is sealed with a new key from now on; the old one opens for %g s more", OVERLAP)
        return True

    async def _remove_next(self, settings: KeyValue) -> None:
        try:
            await settings.delete(NEXT, last=self._next_revision, validate_keys=False)
        except (KeyWrongLastSequenceError, NatsError) as error:
            logger.debug("the key that is in use now is still named as the next one: %r", error)


async def keys_in(settings: KeyValue) -> list[bytes]:
    """The keys that a cluster keeps in NATS, of which the first seals; none if they are given. Raises nats-py's errors.

    Raises:
        ClusterError: What the bucket holds are no keys.
    """
    following, in_use = await _read(settings, NEXT), await _read(settings, IN_USE)
    keys = [] if in_use is None else _keys(in_use, IN_USE)
    return keys if following is None else [*keys, *_keys(following, NEXT)]


async def _read(settings: KeyValue, name: str) -> tuple[bytes, int] | None:
    try:
        found = await settings.get(name, validate_keys=False)
    except KeyNotFoundError:
        return None
    return found.value or b"", found.revision or 0


def _keys(found: tuple[bytes, int], name: str) -> list[bytes]:
    try:
        value: Any = unpack(found[0])
    except ValueError as error:
        raise _no_keys(name, error) from error
    keys = cast("list[Any]", value) if isinstance(value, list) else []
    # Not `bytes(key)`: of a number that makes so many zeros.
    if not keys or not all(isinstance(key, bytes) and len(key) >= KEY_BYTES for key in keys):
        raise _no_keys(name, f"not a list of at least one key of {KEY_BYTES} bytes or more")
    return keys


def _no_keys(name: str, reason: object) -> ClusterError:
    return ClusterError(
        f"the value of {name!r} in the NATS bucket of the cluster's settings is no list of keys ({reason}): "
        "remove it, upon which the next node to start makes a new one, and start all nodes again"
    )


def _made(key: bytes) -> float:
    """When a key was made, in Unix time; 0 for one of a version that did not say."""
    return float(int.from_bytes(key[KEY_BYTES:], "big")) if len(key) == KEY_BYTES + 8 else 0.0
