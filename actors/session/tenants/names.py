"""What files, folders and database schemas of a tenant are called: `checked_path`, `folder_name`, `schema_name`."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from typing import Final

from .errors import PathRefused

__all__ = ["DEEPEST", "OWN_PREFIX", "checked_path", "folder_name", "schema_name"]

OWN_PREFIX: Final = ".~understudy-"
"""Of names that are ours: files that are being written."""

LONGEST_NAME: Final = 255 - 64
"""Bytes of one name, UTF-8. What a file system takes, less the room for what is written beside it."""
LONGEST_PATH: Final = 2048
"""Bytes."""
DEEPEST: Final = 32
"""Folders."""

_SLASH_LIKE: Final = frozenset("\u2044\u2215\u29f8\u2571\u2216\u29f5\u20eb\u0337\u0338")
"""Slashes and backslashes of mathematics and of typesetters, which no normal form makes into ours."""
_SLUG: Final = re.compile(r"[^a-z0-9]+")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")


def folder_name(tenant: str) -> str:
    """The name of the folder that is `tenant`'s alone: some of its letters, for people, and the SHA-256 of all of it.

    Two ids that differ in case, in accents or in how they are composed have different ones, on every file system.
    """
    return f"{_slug(tenant, 40)}-{hashlib.sha256(tenant.encode()).hexdigest()}"


def schema_name(tenant: str) -> str:
    """The name of the PostgreSQL schema, database or role that is `tenant`'s alone: at most 63 bytes, none of which
    needs quotes. As `folder_name`, with 160 bits of the hash."""
    return f"t_{_slug(tenant, 20).replace('-', '_')}_{hashlib.sha256(tenant.encode()).hexdigest()[:40]}"


def _slug(tenant: str, longest: int) -> str:
    return _SLUG.sub("-", tenant[: 4 * longest].casefold())[:longest].strip("-") or "tenant"


def checked_path(path: str | os.PathLike[str], *, folder: bool = False) -> tuple[str, ...]:
    """The names that `path` goes through, each of which is one that every file system takes as it is.

    `folder`: it may be empty, which is the tenant's folder itself.

    Raises:
        PathRefused: It is absolute, leads upwards, or is spelled so that somebody else may read it as another.
    """
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PathRefused(text, "a path is text")
    if not text and folder:
        return ()
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise PathRefused(text, "it holds a lone surrogate, which is no text")
    if len(text.encode()) > LONGEST_PATH:
        raise PathRefused(text, f"it is longer than {LONGEST_PATH} bytes")
    if text.startswith("/"):
        raise PathRefused(text, "it is absolute; name it from the tenant's folder, without the first slash")
    names = tuple(text.split("/"))
    if len(names) > DEEPEST:
        raise PathRefused(text, f"it is deeper than {DEEPEST} folders")
    for name in names:
        if (reason := _fault(name)) is not None:
            raise PathRefused(text, reason)
    return names


def _fault(name: str) -> str | None:
    if not name:
        return "a name in it is empty: write one slash between names, and none at the end"
    if name in (".", ".."):
        return f"{name!r} is no name of a file"
    if name.casefold().startswith(OWN_PREFIX):
        return f"names that begin with {OWN_PREFIX} are the runtime's"
    if "\\" in name:
        return "it holds a backslash, which is a separator elsewhere; write /"
    if len(name.encode()) > LONGEST_NAME:
        return f"a name in it is longer than {LONGEST_NAME} bytes"
    if name.isascii():
        if not name.isprintable():
            return "it holds a control character"
    else:
        if unicodedata.normalize("NFC", name) != name:
            return "it is not in Unicode's normal form C, so that another spelling would look the same"
        if any(unicodedata.category(letter)[0] == "C" or letter in "\u2028\u2029" for letter in name):
            return "it holds a control, format, private or unassigned character"
        # U+2024, U+FF0E, U+2215 and their like are dots and slashes to whoever makes them compatible.
        plain = unicodedata.normalize("NFKC", name)
        if _SLASH_LIKE & set(name) or "/" in plain or "\\" in plain or plain in (".", ".."):
            return "it holds a character that looks like a dot or a slash and is none"
    if name[0] == " " or name[-1] in " .":
        return "a name in it begins or ends with a space, or ends with a dot, which some systems leave out"
    if _ESCAPE.search(name):
        return "it holds a percent escape; decode it first"
    return None
