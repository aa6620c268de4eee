"""What the operators' commands print: tables, ages, sizes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import TextIO

__all__ = ["age", "plural", "short_id", "shown_url", "size", "table", "uses_colour"]

ID_SHOWN = 8
"""Characters of a session's id that are shown: whoever holds the whole id of an anonymous session holds the session."""


def table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, indent: str = "", right_from: int | None = None
) -> str:
    """Columns as wide as their widest cell; None is `-`. Numbers stand right, and all columns from `right_from` on."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(headers), *cells]) for column in range(len(headers))]
    right = [
        (right_from is not None and column >= right_from)
        or (bool(rows) and all(_is_number(row[column]) for row in rows))
        for column in range(len(headers))
    ]

    def line(words: Sequence[str]) -> str:
        padded = (
            word.rjust(width) if is_right else word.ljust(width)
            for word, width, is_right in zip(words, widths, right, strict=True)
        )
        return (indent + "  ".join(padded)).rstrip()

    return "\n".join(line(words) for words in [list(headers), *cells])


def age(seconds: float | None) -> str:
    """`0.8s`, `42s`, `12m`, `5h`, `3d`."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return f"-{age(-seconds)}"
    if seconds < 10:
        return f"{seconds:.1f}s"
    for unit, length, most in (("s", 1, 120), ("m", 60, 120), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds / 86400:.0f}d"


def size(count: float | None) -> str:
    """`87M`, `1.2G`; bytes in powers of 1024."""
    if count is None:
        return "-"
    for unit in ("B", "K", "M", "G", "T"):
        if count < 1024 or unit == "T":
            return f"{count:.0f}{unit}" if unit in "BK" or count >= 10 else f"{count:.1f}{unit}"
        count /= 1024
    raise AssertionError


def short_id(id: str, *, full: bool = False) -> str:
    """What may be shown of a session's id."""
    return id if full else id[:ID_SHOWN]


def shown_url(url: str) -> str:
    """A URL without what is secret in it: a token alone before the @ is that too, and so are options."""
    shown = re.sub(r"://[^/@]*@", "://***@", url)
    return re.sub(r"([?&](?:\w*_)?(?:password|token)=)[^&]*", r"\1***", shown)


def plural(count: int, word: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def uses_colour(out: TextIO | None = None) -> bool:
    """Whether to paint: on a terminal, unless NO_COLOR is set."""
    return (out or sys.stdout).isatty() and "NO_COLOR" not in os.environ


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    # What came from elsewhere must not move the cursor.
    return "".join(character if character.isprintable() else "?" for character in str(value))
