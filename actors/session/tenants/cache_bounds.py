"""`CacheBounds`: how much tenants may keep in memory, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheBounds"]


@dataclass(frozen=True, slots=True)
class CacheBounds:
    """How much `tenant.cache` keeps at one node. At a tenant's bound its own least recently used entries go; at the
    bound of all together, all of the tenant that has used its cache least recently."""

    max_entries: int = 1024
    """Of one tenant."""
    max_bytes: int = 8 * 2**20
    """Of one tenant, by estimate. What is larger by itself is not kept."""
    max_total_bytes: int = 64 * 2**20
    """Of all tenants."""
    ttl: float = 300.0
    """Seconds that an entry lives, where its maker says nothing else."""

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: A bound is not above 0, or one tenant's is above that of all.
        """
        for name in ("max_entries", "max_bytes", "max_total_bytes", "ttl"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} of CacheBounds is {getattr(self, name)!r}; it must be greater than 0")
        if self.max_bytes > self.max_total_bytes:
            raise ValueError(
                f"max_bytes of CacheBounds is {self.max_bytes}, more than max_total_bytes, {self.max_total_bytes}"
            )
