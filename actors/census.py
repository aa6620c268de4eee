"""`Census`: how many live actors each tenant has at a node, and what its share of them is."""

from __future__ import annotations

from math import ceil

__all__ = ["Census"]


class Census:
    """Counts the actors whose tenant is known: of one that wakes, it is told by the record."""

    __slots__ = ("_counts", "_most", "_room")

    def __init__(self, room: int) -> None:
        """`room`: how many actors may live in all."""
        self._room = room
        self._most = ceil(room * 7 / 8)
        self._counts: dict[str, int] = {}

    def __getitem__(self, tenant: str) -> int:
        return self._counts.get(tenant, 0)

    def __len__(self) -> int:
        """How many tenants have any."""
        return len(self._counts)

    def enter(self, tenant: str) -> None:
        if tenant:
            self._counts[tenant] = self._counts.get(tenant, 0) + 1

    def leave(self, tenant: str) -> None:
        count = self._counts.get(tenant)
        if count is None:
            return
        if count == 1:
            del self._counts[tenant]
        else:
            self._counts[tenant] = count - 1

    @property
    def share(self) -> float:
        """What each tenant may have if all want as much as they can get."""
        return self._room / max(1, len(self._counts))

    def has_all_it_may(self, tenant: str) -> bool:
        """Whether `tenant` is not to have one more, however much room there is: others must find some."""
        return self._counts.get(tenant, 0) >= self._most
