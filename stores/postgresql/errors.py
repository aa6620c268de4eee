"""What can go wrong with PostgreSQL, as few errors of ours: nothing of asyncpg's leaves this package."""

from __future__ import annotations

import ssl
from typing import NamedTuple

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from ..errors import StoreUnavailable
from .settings import PostgresSettings

__all__ = ["Failure", "PostgresFull", "PostgresReadOnly", "PostgresRefused", "PostgresUnavailable", "failure_of"]


class PostgresUnavailable(StoreUnavailable):
    """PostgreSQL did not answer as it should: not there, cut off, restarting, too slow. It may come back by itself."""

    def __init__(self, message: str, *, outcome_unknown: bool = False, retry_after: float = 1.0) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown, retry_after=retry_after)


class PostgresRefused(PostgresUnavailable):
    """The server is there and will not have us, or not do it: user, password, TLS, rights, a missing database or table.

    It takes somebody to change that.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False, retry_after: float = 5.0) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown, retry_after=retry_after)


class PostgresReadOnly(PostgresRefused):
    """The server takes no writes: a standby, or one whose transactions are read-only by default."""


class PostgresFull(PostgresRefused):
    """The server has no room for what was to be written: its disk is full, or it is out of memory."""


class Failure(NamedTuple):
    """What went wrong with one statement or connection; an error for each of the calls that it carried."""

    kind: type[PostgresUnavailable]
    message: str
    unknown: bool = False
    """Whether the statement may have taken effect."""
    fatal: bool = False
    """Whether the connection is of no use any more."""
    repeat: bool = False
    """The statement had no effect and may be sent again: it met another transaction."""
    apart: bool = False
    """The statement had no effect, and it may be for one of several calls that shared it: send them one by one."""

    def error(self) -> PostgresUnavailable:
        """A new error, so that none is raised twice."""
        return self.kind(self.message, outcome_unknown=self.unknown)


_WAIT = "try again shortly"

_STATES: dict[str, tuple[type[PostgresUnavailable], str]] = {
    "08P01": (PostgresUnavailable, "a pooler between here and the server says so: look at its log"),
    "0A000": (PostgresUnavailable, f"the tables have changed since the statement was prepared: {_WAIT}"),
    "25006": (
        PostgresReadOnly,
        "it is a standby, or read-only by default_transaction_read_only: name the primary, or all of them in the URL",
    ),
    "26000": (PostgresUnavailable, f"a pooler between, or somebody, has forgotten a prepared statement: {_WAIT}"),
    "28000": (PostgresRefused, "look at the user in the store's URL, and at pg_hba.conf of the server"),
    "28P01": (PostgresRefused, "look at the password in the store's URL, PGPASSWORD or ~/.pgpass"),
    "3D000": (PostgresRefused, "create the database (createdb), or name another in the store's URL"),
    "3F000": (PostgresRefused, "the store's tables were removed: restart the node to make them anew"),
    "42501": (
        PostgresRefused,
        "the role needs USAGE on the schema and SELECT, INSERT, UPDATE and DELETE on its tables",
    ),
    "42P01": (PostgresRefused, "the store's tables were removed: restart the node to make them anew"),
    "42703": (PostgresRefused, "the store's tables are not as they were made: look who has changed them"),
    "53100": (PostgresFull, "make room on its disk; nothing was written"),
    "53200": (PostgresFull, "it is out of memory; nothing was written"),
    "53300": (PostgresUnavailable, "raise max_connections, lower ?connections= in the URL, or put a PgBouncer between"),
    "53400": (PostgresFull, "a limit of its configuration is reached; nothing was written"),
    "55P03": (PostgresUnavailable, f"another transaction holds the row: {_WAIT}"),
    "57014": (PostgresUnavailable, f"statement_timeout of the server, or somebody, has ended the statement: {_WAIT}"),
    "57P01": (PostgresUnavailable, f"somebody stops or restarts it: {_WAIT}"),
    "57P02": (PostgresUnavailable, f"one of its processes has crashed: {_WAIT}"),
    "57P03": (PostgresUnavailable, f"it is starting, stopping or recovering: {_WAIT}"),
    "57P04": (PostgresRefused, "the database was dropped"),
    "57P05": (PostgresUnavailable, _WAIT),
}
_CLASSES: dict[str, tuple[type[PostgresUnavailable], str]] = {
    "08": (PostgresUnavailable, _WAIT),
    "28": (PostgresRefused, "look at user and password in the store's URL"),
    "40": (PostgresUnavailable, f"other transactions were in the way, several times: {_WAIT}"),
    "53": (PostgresFull, "it lacks resources; nothing was written"),
    "58": (PostgresFull, "it had trouble with its files; nothing was written"),
    "XX": (PostgresRefused, "its data may be damaged: look at its log"),
}
_LEAVE = {"0A000", "25006", "26000", "3D000", "57P04"}
"""SQLSTATEs after which another connection may do better: it may lead to another server, and has no plans of before."""
_POOLER_REFUSALS = ("authentication", "no such user", "no such database")
"""What PgBouncer says where PostgreSQL would have a SQLSTATE of its own."""
_OF_ONE = ("22", "23", "54")
"""Classes of SQLSTATEs that one of many values may be to blame for."""


def failure_of(error: BaseException, settings: PostgresSettings, *, writing: bool, limit: float) -> Failure:
    """What `error`, raised by asyncpg, means. `writing`: the statement would have changed something; `limit`: seconds
    that it had."""
    where = f"PostgreSQL at {settings.where}"
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error, where, writing=writing)
    if isinstance(error, TimeoutError):
        return Failure(PostgresUnavailable, f"{where} did not answer within {limit:g} s", writing, fatal=True)
    if isinstance(error, ssl.SSLError):
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        advice = "look at sslmode, sslrootcert, sslcert and sslkey in the store's URL, and at the server's certificate"
        return Failure(PostgresRefused, f"TLS with {where} failed: {reason or error}; {advice}", writing, fatal=True)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return Failure(
            PostgresReadOnly, f"no server of {where} takes writes: all are standbys, or read-only", fatal=True
        )
    if isinstance(error, FileNotFoundError | PermissionError):
        return Failure(PostgresRefused, f"{where} cannot be connected to: {_of_file(error, settings)}", fatal=True)
    if isinstance(error, asyncpg.ClientConfigurationError | ValueError):
        hint = "; name it with ?sslrootcert=FILE" if "root certificate file" in str(error) else ""
        return Failure(PostgresRefused, f"{where} cannot be connected to: {_reason(error)}{hint}", fatal=True)
    if isinstance(error, ConnectionError) and "SSL" in str(error):
        advice = "turn TLS on there, or give sslmode=disable if the network is trusted"
        return Failure(PostgresRefused, f"{where} does not speak TLS; {advice}", fatal=True)
    if isinstance(error, OSError):
        advice = "start it, or correct host and port in the store's URL"
        return Failure(
            PostgresUnavailable, f"{where} cannot be reached: {_reason(error)}; {advice}", writing, fatal=True
        )
    return Failure(PostgresUnavailable, f"the connection to {where} broke: {_reason(error)}", writing, fatal=True)


def _of_server(error: asyncpg.PostgresError, where: str, *, writing: bool) -> Failure:
    state = str(getattr(error, "sqlstate", None) or "08006")
    # What ends with ERROR was rolled back. FATAL ends the connection, perhaps between the commit and its answer.
    severity = getattr(error, "severity_en", None) or getattr(error, "severity", None)
    fatal = severity in ("FATAL", "PANIC") or (severity is None and state.startswith("08"))
    if state == "08P01" and any(word in str(error) for word in _POOLER_REFUSALS):
        state = "28P01"
    kind, advice = _STATES.get(state) or _CLASSES.get(state[:2]) or (PostgresUnavailable, "look at its log")
    return Failure(
        kind,
        f"{where} says: {_said(error)} ({state}); {advice}",
        unknown=writing and fatal,
        fatal=fatal or state in _LEAVE,
        repeat=not fatal and state.startswith("40"),
        apart=not fatal and state.startswith(_OF_ONE),
    )


def _said(error: asyncpg.PostgresError) -> str:
    # Neither detail nor query: they may quote what is stored.
    return str(error.args[0] if error.args else error).splitlines()[0][:300] if str(error) else type(error).__name__


def _of_file(error: OSError, settings: PostgresSettings) -> str:
    """Which file, of which OpenSSL says no name."""
    for option, file in settings.tls:
        if option != "sslmode":
            try:
                with open(file, "rb"):
                    pass
            except OSError as unread:
                return f"{option} {file!r} cannot be read: {unread.strerror}"
    if any(host.startswith("/") for host, _ in settings.hosts):
        return f"{error.strerror}; start the server, or name the directory of its socket (?host=)"
    return f"{error.strerror}; look at the files that PGSSLROOTCERT, PGSSLCERT, PGSSLKEY and PGSSLCRL name"


def _reason(error: BaseException) -> str:
    if type(error) is ConnectionRefusedError and error.strerror:
        return error.strerror
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
