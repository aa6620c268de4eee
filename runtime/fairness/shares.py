"""`Shares`: places of a node of which no tenant takes all."""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["Full", "Shares"]

OF_FREE: Final = 3
"""A tenant may take so many times what is free: alone three quarters of all, two of them three sevenths each."""


class Full(Enum):
    """Why there is no place."""

    NODE = "all places are taken"
    TENANT = "the tenant has its share of them"


class Shares:
    """Counts who has how many places. Dynamic thresholds (Choudhury and Hahne, 1998): whatever some take, a part stays
    free for those who have none, with no need to know how many there will be.
    """

    __slots__ = ("_counts", "_fair", "_places", "taken")

    def __init__(self, places: int, *, fair: bool) -> None:
        """`fair`: whether tenants have shares; otherwise anybody may take all."""
        self._places = places
        self._fair = fair
        self._counts: dict[str, int] = {}
        self.taken = 0

    def full(self, tenant: str) -> Full | None:
        """Why `tenant` can have no place now; None if it can."""
        free = self._places - self.taken
        if free <= 0:
            return Full.NODE
        if self._fair and self._counts.get(tenant, 0) >= OF_FREE * free:
            return Full.TENANT
        return None

    def take(self, tenant: str) -> None:
        """`tenant` has one more."""
        self.taken += 1
        if self._fair:
            self._counts[tenant] = self._counts.get(tenant, 0) + 1

    def give_back(self, tenant: str) -> None:
        """`tenant` has one less."""
        self.taken -= 1
        if self._fair:
            left = self._counts[tenant] - 1
            if left:
                self._counts[tenant] = left
            else:
                del self._counts[tenant]
