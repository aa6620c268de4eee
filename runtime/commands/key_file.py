"""`read_keys`: the operator's own keys of `requestState`, from a file that only the node should be able to read."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Final

from ...stores import UnderstudyError

__all__ = ["KeyFileError", "read_keys"]

SHORTEST: Final = 32
MOST: Final = 16
LARGEST: Final = 64 * 1024


class KeyFileError(UnderstudyError, ValueError):
    """A file of keys that cannot be used. Never says what stands in it."""


def read_keys(file: Path) -> list[bytes]:
    """One key a line, in base64; empty lines and those that begin with # do not count. The first is to seal.

    Raises:
        KeyFileError: It cannot be read, holds no key or too many, or a line that is none.
    """
    try:
        with file.open("rb") as opened:
            text = opened.read(LARGEST + 1)
    except OSError as error:
        raise KeyFileError(f"--request-state-keys {str(file)!r} cannot be read: {error.strerror}") from error
    if len(text) > LARGEST:
        raise KeyFileError(f"--request-state-keys {str(file)!r} is larger than {LARGEST} bytes: it is no list of keys")
    keys: list[bytes] = []
    for number, line in enumerate(text.split(b"\n"), 1):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        try:
            key = base64.b64decode(line, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) < SHORTEST:
            raise KeyFileError(
                f"line {number} of --request-state-keys {str(file)!r} is no key: write {SHORTEST} random bytes or more "
                "in base64, as `openssl rand -base64 32` gives them"
            )
        if key in keys:
            raise KeyFileError(f"line {number} of --request-state-keys {str(file)!r} repeats an earlier key")
        keys.append(key)
    if not 0 < len(keys) <= MOST:
        raise KeyFileError(f"--request-state-keys {str(file)!r} holds {len(keys)} keys; it must be 1 to {MOST}")
    return keys
