"""What every store refuses before it looks at a record, so that all of them refuse the same."""

from __future__ import annotations

__all__ = ["LIST_LIMIT", "checked_limit", "checked_text", "checked_ttl", "cursor_number"]

LIST_LIMIT = 1000
"""Most records in one page."""

TEXT_LIMIT = 1024
"""Most characters of a tenant or an owner."""


def checked_ttl(ttl: float) -> float:
    """`ttl` in seconds, if it is a lifetime.

    Raises:
        ValueError: Zero, negative or not a number: such a record would be gone before its writer hears of it.
    """
    if ttl > 0:
        return ttl
    raise ValueError(f"ttl {ttl!r} must be a number of seconds above 0")


def checked_text(name: str, text: str) -> str:
    """A tenant or an owner that every store can keep.

    Raises:
        ValueError: Too long, a NUL or a lone surrogate, which PostgreSQL and SQLite would refuse each in its way.
    """
    if text.isascii():
        sound = "\0" not in text
    else:
        sound = "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
    if not sound:
        raise ValueError(f"{name} {text[:64]!r} must be Unicode text without NUL and lone surrogates")
    if len(text) > TEXT_LIMIT:
        raise ValueError(f"{name} {text[:64]!r}... has {len(text)} characters; at most {TEXT_LIMIT} are kept")
    return text


def checked_limit(limit: int, *, most: int | None = LIST_LIMIT) -> int:
    """The `limit` of a page or a sweep.

    Raises:
        ValueError: Below 1, or above `most`.
    """
    if limit < 1 or (most is not None and limit > most):
        raise ValueError(f"limit {limit} must be {f'1 to {most}' if most is not None else 'at least 1'}")
    return limit


def cursor_number(cursor: str | None, prefix: str) -> int:
    """The number in a cursor of the form prefix and hexadecimal digits; 0 without a cursor.

    Raises:
        ValueError: Another store's cursor, or none at all.
    """
    if cursor is None:
        return 0
    try:
        if cursor.startswith(prefix):
            return int(cursor.removeprefix(prefix), 16)
    except ValueError:
        pass
    raise ValueError(f"cursor {cursor[:64]!r} is not one of this store's: pass Page.cursor of the page before")
