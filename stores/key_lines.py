"""`MasterKey`, and how an operator writes keys down: one a line, its id and its secret in base64."""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .errors import UnderstudyError

__all__ = ["KeyRingError", "MasterKey", "keys_from_environment", "keys_from_file", "keys_from_text"]

MOST: Final = 64
LARGEST: Final = 64 * 1024
_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")
_SHORTEST, _LONGEST = 32, 64


class KeyRingError(UnderstudyError, ValueError):
    """Keys that cannot be used. Never says what their secret is."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A key that tenants' keys are derived from. `secret`: 32 to 64 random bytes; it is not shown.

    `id` stands in the clear beside everything that was sealed with it, so give no two keys the same one, ever.
    """

    id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if _ID.fullmatch(self.id) is None:
            raise KeyRingError(f"key id {self.id[:64]!r} must be 1 to 32 letters, digits, '.', '_' or '-'")
        if not _SHORTEST <= len(self.secret) <= _LONGEST:
            raise KeyRingError(
                f"the secret of key {self.id!r} has {len(self.secret)} bytes; it must be {_SHORTEST} to {_LONGEST}, "
                "random ones, as `openssl rand -base64 32` gives them"
            )


def keys_from_text(text: str, source: str) -> tuple[MasterKey, ...]:
    """`id secret` a line, the secret in base64; empty lines and those that begin with # do not count. The first is to
    encrypt, all decrypt. `source`: what errors call the text.

    Raises:
        KeyRingError: A line that is no key, an id that stands there twice, no key at all or more than 64.
    """
    keys: dict[str, MasterKey] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        # Nothing of the line is echoed: it may be a secret without its id.
        words = line.split()
        try:
            key = MasterKey(words[0], base64.b64decode(words[1], validate=True)) if len(words) == 2 else None
        except (binascii.Error, ValueError):
            key = None
        if key is None:
            raise KeyRingError(
                f"line {number} of {source} is no key: write an id and {_SHORTEST} random bytes in base64, such as "
                "`2026-11` and what `openssl rand -base64 32` gives"
            )
        if key.id in keys:
            raise KeyRingError(f"line {number} of {source} repeats the id of an earlier key")
        keys[key.id] = key
    if not 0 < len(keys) <= MOST:
        raise KeyRingError(f"{source} holds {len(keys)} keys; it must be 1 to {MOST}")
    return tuple(keys.values())


def keys_from_file(file: Path) -> tuple[MasterKey, ...]:
    """The keys in `file`; see `keys_from_text`.

    Raises:
        KeyRingError: It cannot be read, is larger than 64 KiB, or its lines are no keys.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST + 1)
    except OSError as error:
        raise KeyRingError(f"the file of encryption keys {str(file)!r} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise KeyRingError(
            f"the file of encryption keys {str(file)!r} is larger than {LARGEST} bytes: it is no key ring"
        )
    return keys_from_text(content.decode("utf-8", "replace"), f"the file of encryption keys {str(file)!r}")


def keys_from_environment(variable: str) -> tuple[MasterKey, ...]:
    """The keys in an environment variable, between which `,` may stand in place of a new line.

    Raises:
        KeyRingError: It is not set, or holds no keys.
    """
    text = os.environ.get(variable)
    if text is None:
        raise KeyRingError(f"the environment variable {variable} that should hold encryption keys is not set")
    return keys_from_text(text.replace(",", "\n"), f"the environment variable {variable}")
