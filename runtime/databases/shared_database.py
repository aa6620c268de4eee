"""`SharedDatabase`: what those have in common who keep tenants apart within one database."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from ...actors.session.tenants.secret import Secret
from .asker_settings import AskerSettings
from .errors import DatabaseMisconfigured
from .limits import DatabaseLimits
from .pool import ConnectionPool
from .statistics import statistics_of

__all__ = ["SharedDatabase"]


class SharedDatabase:
    """One pool of connections, for all tenants."""

    def __init__(
        self,
        url: str | Secret,
        *,
        tenant_setting: str,
        principal_setting: str,
        check: bool,
        limits: DatabaseLimits | None,
    ) -> None:
        self._url = url if isinstance(url, Secret) else Secret(url)
        self._asker = AskerSettings(tenant_setting, principal_setting)
        self._check = check
        self._limits = limits or DatabaseLimits()
        self._pool: ConnectionPool | None = None

    async def _problems(self, raw: Any) -> list[str]:
        """Why the connection `raw` does not keep tenants apart."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        """
        Raises:
            DatabaseMisconfigured: The check found something.
            DatabaseUnavailable: The server cannot be reached to look.
            ConfigurationError: The URL cannot be used.
        """
        pool = ConnectionPool(self._url, self._limits)
        await pool.open()
        try:
            if self._check:
                await self._look(pool)
        except BaseException:
            await pool.close()
            raise
        self._pool = pool
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def _look(self, pool: ConnectionPool) -> None:
        async with pool.connection("") as raw:
            problems = await self._problems(raw)
        if problems:
            raise DatabaseMisconfigured(problems)

    def forget(self, tenant: str) -> None:
        """Nothing is kept for one tenant."""

    def stats(self) -> dict[str, int | float]:
        """Plain numbers."""
        return statistics_of([] if self._pool is None else [self._pool])
