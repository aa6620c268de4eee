"""`ConnectionPool`: connections, given to one tenant at a time, and to the next only when they are clean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from ...actors.session.tenants.secret import Secret
from ..errors import ConfigurationError
from .errors import DatabaseUnavailable, TenantNotProvisioned
from .limits import DatabaseLimits
from .places import Places

__all__ = ["ConnectionPool", "asyncpg_module", "cut", "is_closed"]


def asyncpg_module() -> Any:
    """asyncpg, which comes with an extra.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        import asyncpg  # pyright: ignore[reportMissingTypeStubs]
    except ModuleNotFoundError as error:
        raise ConfigurationError("a database of tenants needs asyncpg: pip install 'understudy[postgres]'") from error
    return asyncpg


class ConnectionPool:
    """Connections to one database, made when they are needed."""

    def __init__(self, url: str | Secret, limits: DatabaseLimits) -> None:
        """
        Raises:
            ConfigurationError: `url` is none, or asyncpg is not installed.
        """
        self._asyncpg = asyncpg_module()
        self._limits = limits
        self.places = Places(limits)
        self.discarded = 0
        self.transactions = 0
        plain = url.reveal() if isinstance(url, Secret) else url
        if not plain.startswith(("postgresql://", "postgres://")):
            # asyncpg would take it for something else, and look in the environment.
            raise _unusable(ValueError())
        self._pool: Any = self._asyncpg.create_pool(
            plain,
            min_size=0,
            max_size=limits.connections,
            max_inactive_connection_lifetime=limits.keep,
            timeout=limits.connect_timeout,
            # A statement's name is kept by the server, where the next tenant can read its text; and behind PgBouncer
            # it may be another server's.
            statement_cache_size=0,
            # Whoever had it has cleaned it, in his transaction: behind PgBouncer no later statement would get there.
            reset=_nothing,
            server_settings={"application_name": "understudy tenants"},
        )

    @property
    def size(self) -> int:
        """Connections that are open."""
        return self._pool.get_size()

    @property
    def idle(self) -> bool:
        """Whether nobody has a connection, or waits for one."""
        return not self.places.taken and not self.places.waiting

    async def open(self) -> None:
        """Make ready. Connects to nothing yet.

        Raises:
            ConfigurationError: The URL cannot be understood.
        """
        try:
            await self._pool
        except (ValueError, self._asyncpg.InterfaceError) as error:
            raise _unusable(error) from None

    async def close(self, *, patience: float = 5.0) -> None:
        """Close all connections; those still in use after `patience` seconds are cut."""
        try:
            async with asyncio.timeout(patience):
                await self._pool.close()
        except Exception:
            self._pool.terminate()

    def cut(self) -> None:
        """Close all connections at once, which nobody has."""
        self._pool.terminate()

    @asynccontextmanager
    async def connection(self, tenant: str) -> AsyncGenerator[Any]:
        """A connection of the tenant's within the block. It goes to the next one after it: clean it, or terminate it.

        Raises:
            DatabaseBusy: None became free in time.
            DatabaseUnavailable: The server did not answer, or refused us.
            TenantNotProvisioned: There is no such database.
        """
        async with self.places.one(tenant):
            raw = await self._acquire()
            try:
                yield raw
            finally:
                await self._release(raw)

    async def _acquire(self) -> Any:
        try:
            return await self._pool.acquire(timeout=self._limits.connect_timeout)
        except TimeoutError:
            raise DatabaseUnavailable(
                f"the database server did not answer within {self._limits.connect_timeout:g} s"
            ) from None
        except ValueError as error:
            raise _unusable(error) from None
        except self._asyncpg.InvalidCatalogNameError:
            raise TenantNotProvisioned("this tenant's database is not there; its operator must create it") from None
        except (OSError, self._asyncpg.PostgresError, self._asyncpg.InterfaceError) as error:
            # Not its words: they say where the server is, and as whom we come.
            state = getattr(error, "sqlstate", None)
            reason = f"{type(error).__name__}{f', {state}' if state else ''}"
            raise DatabaseUnavailable(f"the database server cannot be reached, or refuses us ({reason})") from None

    async def _release(self, raw: Any) -> None:
        if is_closed(raw):
            self.discarded += 1
        try:
            await self._pool.release(raw, timeout=self._limits.connect_timeout)
        except Exception:
            # It could not be told to let go of what it had.
            cut(raw)
            self.discarded += 1


def is_closed(raw: Any) -> bool:
    """Whether a connection of a pool's is of no use any more."""
    try:
        return bool(raw.is_closed())
    except asyncpg_module().InterfaceError:
        # asyncpg takes one that was cut back into its pool at once, and says so in this way.
        return True


def cut(raw: Any) -> None:
    """Close a connection without a word to the server, which undoes what it has not committed. Idempotent."""
    with suppress(asyncpg_module().InterfaceError):
        raw.terminate()


def _unusable(error: Exception) -> ConfigurationError:
    # Not its words: they may quote the URL.
    return ConfigurationError(
        f"the database URL cannot be used ({type(error).__name__}): write postgresql://user:password@host/name"
    )


async def _nothing(_: object) -> None:
    pass
