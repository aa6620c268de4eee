"""`tenant_transaction`: from a pooled connection to a tenant's, and back without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

from ...actors.session import TenantContext
from ...actors.session.tenants.running import helpers_for
from .errors import DatabaseError, DatabaseUnavailable, TenantNotProvisioned
from .limits import DatabaseLimits
from .pool import ConnectionPool, asyncpg_module, cut, is_closed
from .statements import CLEANING, UNDOING, opening
from .tenant_connection import TenantConnection

__all__ = ["tenant_transaction"]

UNDO_TIMEOUT: Final = 2.0
"""Seconds to undo a transaction; after that the connection is closed, and the server undoes it."""

_NOT_THERE: Final = ("3F000", "22023", "42704")
"""SQLSTATE of a schema, and of a role, that does not exist."""


@asynccontextmanager
async def tenant_transaction(
    pool: ConnectionPool, tenant: TenantContext, limits: DatabaseLimits, settings: dict[str, str], *statements: str
) -> AsyncGenerator[TenantConnection]:
    """A transaction in which `settings` hold, begun with `statements`: committed when the block ends, undone when it
    raises or is cancelled.

    no-wrong-tenant: the connection goes to the next one only when the server has said that all was cleaned.

    Raises:
        DatabaseBusy, DatabaseUnavailable, TenantNotProvisioned: On entering.
        DatabaseUnavailable: On leaving: the connection broke, and whether it was committed may not be known.
        asyncpg.PostgresError: On leaving: a deferred constraint does not hold; nothing was committed.
    """
    begin = opening(settings | limits.timeouts(), *statements)
    async with pool.connection(tenant.tenant) as raw:
        pool.transactions += 1
        await _begin(raw, begin, limits)
        connection = TenantConnection(raw, partial(helpers_for, tenant), limits.statement_timeout + 1.0)
        try:
            yield connection
        except BaseException as error:
            connection.close()
            broken = is_closed(raw) and _says_so(error)
            await _undo(raw)
            if broken:
                raise DatabaseUnavailable("the connection to the database broke; nothing was committed") from None
            raise
        connection.close()
        await _commit(raw, limits)


async def _begin(raw: Any, begin: str, limits: DatabaseLimits) -> None:
    asyncpg = asyncpg_module()
    try:
        await raw.execute(begin, timeout=limits.connect_timeout)
    except asyncpg.PostgresError as error:
        await _end(raw)
        if error.sqlstate in _NOT_THERE:
            raise TenantNotProvisioned(
                "this tenant's schema or role is not there, or may not be used; its operator must create it"
            ) from None
        raise DatabaseUnavailable(f"the database refused to begin ({type(error).__name__}, {error.sqlstate})") from None
    except (OSError, asyncpg.InterfaceError) as error:
        cut(raw)
        raise DatabaseUnavailable(f"the connection to the database broke ({type(error).__name__})") from None
    except BaseException:
        cut(raw)
        raise


async def _commit(raw: Any, limits: DatabaseLimits) -> None:
    asyncpg = asyncpg_module()
    if is_closed(raw):
        raise DatabaseUnavailable("the connection to the database broke; nothing was committed")
    if not raw.is_in_transaction():
        cut(raw)
        raise DatabaseError("the transaction was over before its block was; its connection was closed")
    try:
        await raw.execute(CLEANING, timeout=limits.statement_timeout + 1.0)
    except asyncpg.InFailedSQLTransactionError:
        await _undo(raw)
        raise DatabaseError(
            "a statement had failed in this block, and so nothing was committed: let its error through, or put what "
            "may fail into `async with connection.transaction():`"
        ) from None
    except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
        if isinstance(error, asyncpg.PostgresError) and not is_closed(raw):
            # The server says what was wrong, and goes on: it has not committed.
            await _undo(raw)
            raise
        cut(raw)
        raise DatabaseUnavailable(
            "the connection to the database broke while it committed: look whether it has before you repeat it",
            outcome_unknown=True,
        ) from None
    except BaseException:
        cut(raw)
        raise
    if raw.is_in_transaction():
        cut(raw)


async def _undo(raw: Any) -> None:
    """Roll back and clean, or close. Never raises, but for a cancellation, after which it is closed."""
    try:
        if is_closed(raw):
            return
        async with asyncio.timeout(UNDO_TIMEOUT):
            await raw.execute(UNDOING)
        if raw.is_in_transaction():
            cut(raw)
    except Exception:
        cut(raw)
    except BaseException:
        cut(raw)
        raise


async def _end(raw: Any) -> None:
    """Leave a transaction that has hardly begun."""
    with suppress(Exception):
        async with asyncio.timeout(UNDO_TIMEOUT):
            await raw.execute("ROLLBACK")
        if not raw.is_in_transaction():
            return
    cut(raw)


def _says_so(error: BaseException) -> bool:
    """Whether it is asyncpg's way to say that the connection broke. What a tool raises of its own stays as it is."""
    asyncpg = asyncpg_module()
    return isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.PostgresError)
