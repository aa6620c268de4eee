"""`TenantConnection`: what `tenant.connection()` gives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from .errors import DatabaseError
from .statements import checked_statement

__all__ = ["TenantConnection"]


class TenantConnection:
    """A transaction in the tenant's part of the database. Statements, parameters (`$1`) and rows are asyncpg's.

    One statement at a time, and not the words that begin and end transactions. A statement that fails ends the
    transaction, unless it is in a block of `transaction()` of its own. Whatever else is left (settings, temporary
    tables, locks, cursors, prepared statements) is gone with the block.
    """

    __slots__ = ("_check", "_depth", "_raw", "_timeout")

    def __init__(self, raw: Any, check: Callable[[], object], timeout: float) -> None:
        """`check` raises where the running call is not the tenant's; `timeout`: seconds for one statement."""
        self._raw = raw
        self._check = check
        self._timeout = timeout
        self._depth = 0

    def close(self) -> None:
        """The block is over: later uses raise."""
        self._raw = None

    def _connection(self, query: str) -> Any:
        if self._raw is None:
            raise DatabaseError("a connection was used after the block of tenant.connection() that it belongs to")
        self._check()
        checked_statement(query)
        return self._raw

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement; what the server says of it, as `INSERT 0 1`.

        Raises:
            asyncpg.PostgresError: The server refused it, or ended it after `statement_timeout`.
            StatementRefused: It would end the transaction.
            DatabaseError: The block is over. `WrongTenant`: the running call is another party's.
        """
        # Without a name, and not by asyncpg's `execute`, which without arguments sends any number of statements.
        statement = await self._connection(query).prepare(query, name="", timeout=self._timeout)
        await statement.fetch(*args, timeout=self._timeout)
        return str(statement.get_statusmsg())

    async def executemany(self, query: str, args: Iterable[Iterable[object]]) -> None:
        """Run a statement for each of `args`. Raises as `execute`."""
        await self._connection(query).executemany(query, args, timeout=self._timeout)

    async def fetch(self, query: str, *args: object) -> list[Any]:
        """All rows. Raises as `execute`."""
        return await self._connection(query).fetch(query, *args, timeout=self._timeout)

    async def fetchrow(self, query: str, *args: object) -> Any:
        """The first row, or None. Raises as `execute`."""
        return await self._connection(query).fetchrow(query, *args, timeout=self._timeout)

    async def fetchval(self, query: str, *args: object, column: int = 0) -> Any:
        """One value of the first row, or None. Raises as `execute`."""
        return await self._connection(query).fetchval(query, *args, column=column, timeout=self._timeout)

    async def rows(self, query: str, *args: object, prefetch: int = 50) -> AsyncGenerator[Any]:
        """Row after row, `prefetch` at a time, of a result that is too large for memory. Raises as `execute`."""
        async for row in self._connection(query).cursor(query, *args, prefetch=prefetch, timeout=self._timeout):
            self._check()
            yield row

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        """A part that is undone by itself if its block raises."""
        raw = self._connection("")
        self._depth += 1
        name = f"part_{self._depth}"
        await raw.execute(f"SAVEPOINT {name}", timeout=self._timeout)
        try:
            yield
        except BaseException:
            await raw.execute(f"ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}", timeout=self._timeout)
            raise
        else:
            await raw.execute(f"RELEASE SAVEPOINT {name}", timeout=self._timeout)
        finally:
            self._depth -= 1
