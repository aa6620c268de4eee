"""`TenantDatabase`: the seam behind `tenant.connection()`."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from ..tenant import TenantContext

__all__ = ["TenantDatabase"]


class TenantDatabase(Protocol):
    """Connections that see one tenant's data and nobody else's. Used as an async context manager by the runtime."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def connection(self, tenant: TenantContext) -> AbstractAsyncContextManager[Any]:
        """A transaction of `tenant`'s: committed when the block ends, rolled back when it raises or is cancelled."""
        ...

    def forget(self, tenant: str) -> None:
        """Close what is kept for `tenant` and not in use."""
        ...

    def stats(self) -> dict[str, int | float]:
        """Plain numbers."""
        ...
