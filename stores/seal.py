"""The seal: how bytes are encrypted for one place in a store, and opened there and nowhere else.

A sealed value is a header, a random part and the ciphertext:

    C1 "us" 01 | length of the key id, key id | length of the tenant (2), tenant | salt (12) | nonce (12) | ciphertext

C1 begins neither msgpack nor UTF-8, so nothing that understudy writes in the clear looks sealed. The key of the
ciphertext (AES-256-GCM, its tag at the end) is HKDF-Expand (RFC 5869, SHA-256) of the tenant's key and the salt: of 192
random bits, half choose the key and half the nonce. The header, and the place that the value belongs to, are its
associated data.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING, Final, NamedTuple

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from .address import Address
from .errors import StoreCorrupt, StoreError, StoreVersionError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["SEAL_ROOM", "EncryptionMissing", "Place", "SealBroken", "Sealed", "aes_gcm", "is_sealed", "parse", "seal"]

MARK: Final = b"\xc1us"
VERSION: Final = 1
NO_TENANT: Final = 0xFFFF
SALT: Final = 12
NONCE: Final = 12
TAG: Final = 16

SEAL_ROOM: Final = 4352
"""Most bytes that a seal adds: the longest tenant there can be takes 4096, a key's id at most 32."""


class EncryptionMissing(StoreError):
    """Encryption was asked for, and `cryptography` is not installed."""


class SealBroken(StoreCorrupt):
    """What is stored at `address` cannot be opened: it was altered, cut short or moved there, or its key is not in the
    key ring. It is left as it is."""

    def __init__(self, address: Address, what: str, why: str) -> None:
        super().__init__(f"{what} of {address} cannot be opened: {why}; it is left as it is")
        self.address = address


class Place(NamedTuple):
    """Where a sealed value belongs. Put anywhere else, it does not open."""

    address: Address
    tenant: str | None
    part: str
    """What of the actor: `snapshot`, or the name of a stream behind `stream/`."""
    number: int
    """The version of a snapshot, the number of an event; 0: the head of a stream."""

    @property
    def what(self) -> str:
        """In words, for errors."""
        if self.part == "snapshot":
            return f"snapshot {self.number}"
        return f"{f'event {self.number}' if self.number else 'the head'} of stream {self.part.removeprefix('stream/')}"

    def bound(self) -> bytes:
        """One encoding for each place, and no two places with the same one."""
        fields = (self.address.kind, self.address.id, self.tenant, self.part, str(self.number))
        return msgpack.packb(fields)  # pyright: ignore


class Sealed(NamedTuple):
    """A sealed value, taken apart."""

    key_id: str
    tenant: str | None
    """The tenant that the header names; None if it names none."""
    header: bytes
    body: bytes

    def opened(self, root: bytes, place: Place) -> bytes:
        """The plain bytes.

        Raises:
            SealBroken: It was altered, belongs to another place, or was sealed with another key of this id.
        """
        from cryptography.exceptions import InvalidTag

        nonce = self.body[SALT : SALT + NONCE]
        cipher = aes_gcm()(_message_key(root, self.body[:SALT]))
        try:
            return cipher.decrypt(nonce, self.body[SALT + NONCE :], self.header + place.bound())
        except InvalidTag:
            why = f"it was altered or moved here, or key {self.key_id!r} is not the one that it was sealed with"
            raise SealBroken(place.address, place.what, why) from None


def is_sealed(value: bytes) -> bool:
    """Whether `value` is meant to be a sealed one. It need not be sound."""
    return value.startswith(MARK)


def seal(key_id: str, root: bytes, place: Place, plain: bytes, *, names_tenant: bool) -> bytes:
    """Encrypt `plain` for `place`. About 4 us for 1 KiB and 90 us for 1 MiB, on the caller's thread.

    `names_tenant`: the header says the tenant, in the clear, because whoever opens it cannot know it otherwise.
    """
    tenant = place.tenant.encode() if names_tenant and place.tenant is not None else None
    id = key_id.encode()
    length = NO_TENANT if tenant is None else len(tenant)
    header = b"%b%c%c%b%b%b" % (MARK, VERSION, len(id), id, length.to_bytes(2, "big"), tenant or b"")
    random = os.urandom(SALT + NONCE)
    cipher = aes_gcm()(_message_key(root, random[:SALT]))
    return header + random + cipher.encrypt(random[SALT:], plain, header + place.bound())


def parse(value: bytes, place: Place) -> Sealed:
    """Take a sealed value apart. Nothing it says is proven before `opened` has returned.

    Raises:
        SealBroken: It is cut short, or its header is none.
        StoreVersionError: A newer understudy sealed it.
    """
    try:
        version, id_length = value[len(MARK)], value[len(MARK) + 1]
        if version == VERSION:
            id_end = len(MARK) + 2 + id_length
            key_id = value[len(MARK) + 2 : id_end].decode("ascii")
            length = int.from_bytes(value[id_end : id_end + 2], "big")
            end = id_end + 2 + (0 if length == NO_TENANT else length)
            tenant = None if length == NO_TENANT else value[id_end + 2 : end].decode()
            if len(value) >= end + SALT + NONCE + TAG:
                return Sealed(key_id, tenant, value[:end], value[end:])
    except (IndexError, UnicodeDecodeError):
        version = VERSION
    if version == VERSION:
        raise SealBroken(place.address, place.what, "its seal is damaged or cut short")
    raise StoreVersionError(
        f"{place.what} of {place.address} has a seal of version {version}, and this understudy knows {VERSION}: a "
        "newer one wrote it, or it was altered; upgrade"
    )


_aes_gcm: type[AESGCM] | None = None


def aes_gcm() -> type[AESGCM]:
    """The cipher, imported when it is first needed.

    Raises:
        EncryptionMissing: The extra is not installed.
    """
    global _aes_gcm
    if _aes_gcm is None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise EncryptionMissing("encryption needs cryptography: pip install 'understudy[encryption]'") from error
        _aes_gcm = AESGCM
    return _aes_gcm


def _message_key(root: bytes, salt: bytes) -> bytes:
    # HKDF-Expand for one block of SHA-256.
    return hmac.digest(root, b"understudy message" + salt + b"\x01", "sha256")
