"""`statistics_of`: the numbers of pools of connections."""

from __future__ import annotations

from collections.abc import Iterable

from .pool import ConnectionPool

__all__ = ["statistics_of"]


def statistics_of(pools: Iterable[ConnectionPool]) -> dict[str, int | float]:
    """Plain numbers, of all `pools` together."""
    every = list(pools)
    return {
        "pools": len(every),
        "connections": sum(pool.size for pool in every),
        "connections_in_use": sum(pool.places.taken for pool in every),
        "waiting": sum(pool.places.waiting for pool in every),
        "transactions_total": sum(pool.transactions for pool in every),
        "busy_total": sum(pool.places.busy for pool in every),
        "discarded_total": sum(pool.discarded for pool in every),
    }
