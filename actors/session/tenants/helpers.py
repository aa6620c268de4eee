"""`TenantHelpers`: what one runtime has for the tenants of its calls."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .cache_bounds import CacheBounds
from .caches import TenantCaches

if TYPE_CHECKING:
    from .database import TenantDatabase
    from .folders import TenantFolders
    from .redaction import Redactor
    from .secrets import SecretKeeper

__all__ = ["TenantHelpers"]

logger = logging.getLogger(__name__)


class TenantHelpers:
    """One for each runtime, so that nothing of a tenant sits in module scope. Used as an async context manager."""

    def __init__(
        self,
        *,
        cache: CacheBounds | None = None,
        files: TenantFolders | None = None,
        secrets: SecretKeeper | None = None,
        database: TenantDatabase | None = None,
    ) -> None:
        """None: not offered, save the cache, which always is."""
        self.caches = TenantCaches(cache)
        self.files = files
        self.secrets = secrets
        self.database = database
        self.closed = True
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        """
        Raises:
            UnderstudyError: A source cannot be used as it is; the message says why.
        """
        async with AsyncExitStack() as stack:
            for helper in (self.files, self.secrets, self.database):
                if helper is not None:
                    await stack.enter_async_context(helper)
            self._stack = stack.pop_all()
        self.closed = False
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.closed = True
        self.caches.clear()
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.__aexit__(exc_type, exc, tb)

    @property
    def redactor(self) -> Redactor | None:
        """Knows the secrets that tools here may have seen; None where there are none."""
        return self.secrets.redactor if self.secrets is not None else None

    def forget(self, tenant: str | None) -> None:
        """What is known of `tenant` may be stale: its cache is empty, its secrets are read again, its idle database
        connections are closed. None: of any tenant; connections then stay until they have been idle for long."""
        if tenant is None:
            self.caches.clear()
        else:
            self.caches.forget(tenant)
        if self.secrets is not None:
            self.secrets.forget(tenant)
        if self.database is not None and tenant is not None:
            self.database.forget(tenant)

    def stats(self) -> dict[str, int | float]:
        """Plain numbers."""
        numbers: dict[str, int | float] = {f"cache_{name}": value for name, value in self.caches.stats().items()}
        helpers: tuple[tuple[str, Any], ...] = (
            ("files", self.files),
            ("secrets", self.secrets),
            ("database", self.database),
        )
        for name, helper in helpers:
            if helper is not None:
                numbers |= {f"{name}_{key}": value for key, value in helper.stats().items()}
        return numbers
