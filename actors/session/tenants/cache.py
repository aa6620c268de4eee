"""`TenantCache`: `tenant.cache`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .caches import TenantCaches
from .errors import CacheError
from .running import helpers_for

if TYPE_CHECKING:
    from ..tenant import TenantContext

__all__ = ["TenantCache"]

T = TypeVar("T")

LONGEST_KEY: Final = 1024


class TenantCache:
    """What the tools of one tenant remember at this node for a while: all its principals together, no other tenant.

    A value is kept as it is, not a copy: do not change what you have put in or got out. It may be gone at any time.
    Keys are texts of at most 1024 characters. Good in the calls of one party; in another's every method raises
    `WrongTenant`.
    """

    __slots__ = ("_tenant",)

    def __init__(self, tenant: TenantContext) -> None:
        self._tenant = tenant

    def _caches(self, key: object) -> TenantCaches:
        caches = helpers_for(self._tenant).caches
        if not isinstance(key, str) or len(key) > LONGEST_KEY:
            shown = f"{len(key)} characters" if isinstance(key, str) else f"a {type(key).__name__}"
            raise CacheError(f"a key of tenant.cache is a text of at most {LONGEST_KEY} characters, not {shown}")
        return caches

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default`.

        Raises:
            CacheError: `key` cannot be a key.
            WrongTenant, NoCall: The running call is another party's; none is running.
        """
        return self._caches(key).get(self._tenant.tenant, key, default)

    def set(self, key: str, value: Any, *, ttl: float | None = None, size: int | None = None) -> bool:
        """Keep `value` for `ttl` seconds (None: as long as the runtime's bounds say); whether there was room for it.

        `size`: its bytes, where the estimate would be wrong or slow. Raises as `get`.
        """
        return self._caches(key).set(self._tenant.tenant, key, value, ttl, size)

    def delete(self, key: str) -> bool:
        """Whether `key` was there. Raises as `get`."""
        return self._caches(key).delete(self._tenant.tenant, key)

    async def get_or_make(
        self,
        key: str,
        make: Callable[[], Awaitable[T] | T],
        *,
        ttl: float | None = None,
        size: int | None = None,
        timeout: float = 30.0,
    ) -> T:
        """The value of `key`; where there is none, what `make` returns, which is called once for all who ask meanwhile.

        If `make` raises, all who wait get its error, and nothing is kept. If the call that makes it is cancelled, one
        of those who wait begins anew. What is deleted or set while it is made is not overwritten by it.

        Raises:
            CacheError: `make` took longer than `timeout` seconds, or asks for the same key; and as `get`.
            Whatever `make` raises.
        """
        return await self._caches(key).get_or_make(self._tenant.tenant, key, make, ttl=ttl, size=size, timeout=timeout)

    def __repr__(self) -> str:
        return "<tenant.cache>"
