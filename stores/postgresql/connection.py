"""`Connection`: one connection to PostgreSQL, direct or through a pooler, whose every statement is one round trip."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Protocol, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from .errors import Failure, PostgresRefused, failure_of
from .settings import PostgresSettings

__all__ = ["Connection", "Failed", "Row", "connect"]

OLDEST = 13
"""The oldest PostgreSQL that is taken: older ones get no more corrections."""

_GOODBYE = 1.0
"""Seconds for ending a connection in order: a statement that was given up is cancelled, so that it waits no longer."""

Row = Sequence[Any]


class Failed(Exception):
    """A statement, or the attempt to connect, failed. Never leaves this package."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class _Statement(Protocol):
    async def fetch(self, *arguments: object, timeout: float) -> list[Row]: ...


class _Raw(Protocol):
    async def prepare(self, query: str, *, name: str | None, timeout: float) -> _Statement: ...
    async def fetch(self, query: str, *arguments: object, timeout: float) -> list[Row]: ...
    async def execute(self, query: str, *, timeout: float) -> str: ...
    async def close(self, *, timeout: float) -> None: ...
    def terminate(self) -> None: ...
    def is_closed(self) -> bool: ...
    def get_server_pid(self) -> int: ...


class Connection:
    """Made by `connect`. One statement at a time.

    A server keeps the plan of a named statement, which is worth 0.2 ms each time. Behind a pooler in transaction mode
    the next statement may go to another server process, which does not know the name: there each is sent in full.
    """

    def __init__(self, raw: _Raw, settings: PostgresSettings, timeout: float, *, pooled: bool) -> None:
        self._raw = raw
        self._settings = settings
        self._timeout = timeout
        self._statements: dict[str, _Statement] = {}
        self.pooled = pooled
        """Whether a pooler stands between."""

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more."""
        return self._raw.is_closed()

    async def fetch(self, query: str, *arguments: object, writing: bool) -> list[Row]:
        """The rows that `query` answers, which stands for itself: no transaction is left open.

        Raises:
            Failed: As it says. A connection that cannot be used again is closed then.
        """
        statement = self._statements.get(query)
        try:
            if statement is None:
                statement = await self._prepare(query)
            return await statement.fetch(*arguments, timeout=self._timeout)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
            sent = statement is not None
            raise await self.failed(error, writing=writing and sent) from error
        except BaseException:
            # Cancelled: an answer that nobody waits for any more must not be taken for the next one's.
            self._raw.terminate()
            raise

    async def run(self, *script: str) -> None:
        """Run statements without arguments, all or nothing.

        Raises:
            Failed: As `fetch`.
        """
        try:
            await self._raw.execute(";\n".join(script), timeout=self._timeout)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise await self.failed(error, writing=True) from error
        except BaseException:
            self._raw.terminate()
            raise

    async def failed(self, error: Exception, *, writing: bool) -> Failed:
        """What `error` means; closes the connection if it is of no use any more."""
        failure = failure_of(error, self._settings, writing=writing, limit=self._timeout)
        if failure.fatal:
            await self.close()
        return Failed(failure)

    async def close(self) -> None:
        """Say goodbye, within a second. Never raises; idempotent."""
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await self._raw.close(timeout=_GOODBYE)

    def terminate(self) -> None:
        """Close at once."""
        self._raw.terminate()

    async def _prepare(self, query: str) -> _Statement:
        name = None if self.pooled else f"understudy_{len(self._statements)}"
        statement = await self._raw.prepare(query, name=name, timeout=self._timeout)
        self._statements[query] = statement
        return statement


async def connect(settings: PostgresSettings, *, name: str, timeout: float) -> Connection:
    """A connection that takes writes. Cancelled, it leaves nothing open.

    Args:
        name: What the server shows as `application_name`.
        timeout: Seconds for connecting, and for each statement.

    Raises:
        Failed: As it says: nobody there, refused, too old, read-only, ...
    """
    several = len(settings.hosts) > 1
    try:
        raw = cast(
            "_Raw",
            await _connect(
                dsn=f"postgresql://?{settings.tls_query}" if settings.tls else None,
                host=[host for host, _ in settings.hosts] or None,
                port=[port for _, port in settings.hosts] or None,
                user=settings.user,
                password=settings.password,
                database=settings.database,
                target_session_attrs=settings.target_session_attrs or ("read-write" if several else None),
                timeout=timeout,
                statement_cache_size=0,
                server_settings={"application_name": name[:63]},
            ),
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, ValueError) as error:
        raise Failed(failure_of(error, settings, writing=False, limit=timeout)) from error
    connection = Connection(raw, settings, timeout, pooled=True)
    try:
        await _settle(connection, raw, settings, timeout)
    except BaseException:
        raw.terminate()
        raise
    return connection


async def _connect(**options: Any) -> object:
    async with asyncio.timeout(options["timeout"] + _GOODBYE):
        return await cast("Any", asyncpg).connect(**options)


async def _settle(connection: Connection, raw: _Raw, settings: PostgresSettings, timeout: float) -> None:
    """Refuse what the store cannot live on, and see who is at the other end."""
    [(number, version, encoding, standby, read_only, process)] = await connection.fetch(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
        " current_setting('server_encoding'), pg_is_in_recovery(), current_setting('transaction_read_only'),"
        " pg_backend_pid()",
        writing=False,
    )
    where = f"PostgreSQL at {settings.where}"
    if number < OLDEST * 10_000:
        raise _refused(f"{where} is version {version}; the store needs {OLDEST} or later")
    if encoding != "UTF8":
        raise _refused(f"{where} has encoding {encoding}; create a database with UTF8 (createdb --encoding=UTF8)")
    if standby or read_only == "on":
        why = "is a standby" if standby else "is read-only (default_transaction_read_only)"
        failure = failure_of(asyncpg.ReadOnlySQLTransactionError(why), settings, writing=False, limit=timeout)
        raise Failed(failure)
    # Poolers make a number of their own up.
    connection.pooled = process != raw.get_server_pid()
    if not connection.pooled:
        # Plans are kept, also those made while a table was small. All of ours are looks into an index.
        await connection.run(
            "SET enable_seqscan = off",
            "SET enable_hashjoin = off",
            "SET enable_mergejoin = off",
            "SET jit = off",
            f"SET statement_timeout = {round(timeout * 1000) + 1000}",
        )


def _refused(message: str) -> Failed:
    return Failed(Failure(PostgresRefused, message, fatal=True))
