"""`opening`, `CLEANING`: what surrounds a tenant's transaction, as SQL."""

from __future__ import annotations

import re
from typing import Final

from ..errors import ConfigurationError
from .errors import StatementRefused

__all__ = ["CLEANING", "SAVEPOINT", "UNDOING", "checked_statement", "identifier", "opening", "setting_name", "text"]

SAVEPOINT: Final = "understudy"

_CLEANING: Final = (
    "CLOSE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DEALLOCATE ALL; DISCARD SEQUENCES; DISCARD TEMP; "
    "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; COMMIT"
)

CLEANING: Final = f"SET CONSTRAINTS ALL IMMEDIATE; {_CLEANING}"
"""Look after deferred constraints while what they may ask for still holds, do all that DISCARD ALL does, and commit.
DISCARD ALL cannot be part of a transaction, and it must be: behind PgBouncer the connection is ours only until then."""

UNDOING: Final = f"ROLLBACK TO SAVEPOINT {SAVEPOINT}; {_CLEANING}"
"""Undo the transaction and stay within it. What no rollback undoes (locks, prepared statements) needs cleaning too."""

_SETTING: Final = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)+")
_SPACE: Final = re.compile(r"(?:\s+|--[^\n\r]*|;)+")
_WORDS: Final = re.compile(r"([A-Za-z_]+)(?:\s+([A-Za-z_]+))?")
_REFUSED: Final = frozenset({"abort", "begin", "commit", "end", "release", "rollback", "savepoint", "start"})


def setting_name(name: str) -> str:
    """`name`, if PostgreSQL takes it as that of a setting of ours.

    Raises:
        ConfigurationError: It does not.
    """
    if _SETTING.fullmatch(name) is None:
        raise ConfigurationError(f'the setting {name[:64]!r} must be two words with a dot, such as "app.tenant"')
    return name


def text(value: str) -> str:
    """`value` as an expression of SQL. Digits alone, so that no setting of the server's can give a quote a meaning."""
    return f"convert_from(decode('{value.encode().hex()}', 'hex'), 'UTF8')"


def identifier(name: str) -> str:
    """`name` in quotes.

    Raises:
        ConfigurationError: It is empty, longer than 63 bytes (which PostgreSQL would cut, so that two might become
            one), or PostgreSQL's own.
    """
    size = len(name.encode(errors="replace"))
    if not name or size > 63 or "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ConfigurationError(f"{name[:64]!r} is no name for a schema, a role or a database: 1 to 63 bytes of text")
    if name.startswith("pg_") or name in ("information_schema", "public", "postgres", "template0", "template1", "none"):
        raise ConfigurationError(f"{name!r} cannot be a tenant's: it is PostgreSQL's, or everybody's")
    return '"' + name.replace('"', '""') + '"'


def opening(settings: dict[str, str], *others: str) -> str:
    """Begin a transaction in which `settings` hold, one message long; `others` are statements of their own."""
    # As in `SELECT set_config('app.tenant', $1, true)`: until the end of the transaction.
    set_all = ", ".join(f"set_config('{name}', {text(value)}, true)" for name, value in settings.items())
    return "; ".join(("BEGIN", f"SELECT {set_all}", *others, f"SAVEPOINT {SAVEPOINT}"))


def checked_statement(query: str) -> str:
    """`query`, unless it would end the transaction. One statement is all that is ever sent with it.

    Raises:
        StatementRefused: It begins or ends a transaction, or a part of one.
    """
    if not isinstance(query, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise StatementRefused(f"a statement is text, not a {type(query).__name__}")
    words = _WORDS.match(query, _beginning(query))
    if words is None:
        return query
    first, second = words[1].lower(), (words[2] or "").lower()
    if first in _REFUSED or (first, second) == ("prepare", "transaction"):
        raise StatementRefused(
            f"{first.upper()} is refused, as tenants are kept apart by the transaction: it is committed when the block "
            "of tenant.connection() ends, and `async with connection.transaction():` is a part that can fail by itself"
        )
    return query


def _beginning(query: str) -> int:
    """Where the first word is, after spaces and comments, which may lie within each other."""
    at = 0
    while True:
        if (space := _SPACE.match(query, at)) is not None:
            at = space.end()
        elif query.startswith("/*", at):
            depth, at = 1, at + 2
            while depth and at < len(query):
                if query.startswith("/*", at):
                    depth, at = depth + 1, at + 2
                elif query.startswith("*/", at):
                    depth, at = depth - 1, at + 2
                else:
                    at += 1
        else:
            return at
