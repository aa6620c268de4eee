"""`PermitPool`: a node's share of what may be in use at once, such as calls in flight. What is taken is put back."""

from __future__ import annotations

from typing import ClassVar, Final

from .pool import Pool
from .sharing import Sharing

__all__ = ["PermitPool"]

_ALWAYS: Final = 2**62


class PermitPool(Pool):
    """See `Pool`."""

    __slots__ = ("_plain_from", "_takes")

    spends: ClassVar[bool] = False

    def __init__(self, key: str, sharing: Sharing) -> None:
        super().__init__(key, sharing)
        self._takes = 0
        self._plain_from = _ALWAYS
        """While so many are in use, or more, one is put back with nothing else to be looked at."""

    def take(self, limit: int) -> bool:
        """Take a permit if one is in hand. Never waits."""
        in_use = self._used
        if in_use >= self._plain_below or limit != self._limit:
            return self._take_slowly(limit)
        self._used = in_use + 1
        self._takes += 1
        return True

    def put_back(self) -> None:
        """A permit is no longer in use."""
        in_use = self._used = self._used - 1
        if in_use < self._plain_from:
            self._put_back_slowly()

    def _take_one(self) -> None:
        self._used += 1
        self._takes += 1

    def _put_back_slowly(self) -> None:
        self._nothing_until = 0.0
        # It may have become lower meanwhile.
        tokens = max(0, min(self.tokens, self._limit - self._used))
        if tokens > self._high:
            self._high = self._ahead
        self._keep(tokens)
        if self._changing is None and self._has_too_many:
            self._change_soon()

    def _keep(self, tokens: int) -> None:
        super()._keep(tokens)
        looks = self._nothing_until or self._most > self._limit
        self._plain_from = _ALWAYS if looks else self._most - self._high

    @property
    def in_use(self) -> int:
        return self._used

    @property
    def takes(self) -> int:
        return self._takes
