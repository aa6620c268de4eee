"""`TenantChanges`: since when what was made for a tenant is out of date."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

__all__ = ["TenantChanges"]

MOST: Final = 4096
"""Tenants whose last change is known. Of one that is forgotten, everything counts as out of date."""


class TenantChanges:
    """Changes are numbered. What is made notes the number that is the latest as its making begins.

    So nobody has to go through what exists: each thing that is used again is compared with the last change of its
    tenant, and made anew if it is older. A session that nobody asks for costs nothing.
    """

    __slots__ = ("_floor", "_last", "latest")

    def __init__(self) -> None:
        self.latest = 0
        self._floor = 0
        self._last: OrderedDict[str, int] = OrderedDict()

    def note(self, tenant: str | None) -> None:
        """`tenant` has changed; None: all may have."""
        self.latest += 1
        if tenant is None:
            self._floor = self.latest
            self._last.clear()
            return
        self._last[tenant] = self.latest
        self._last.move_to_end(tenant)
        if len(self._last) > MOST:
            _, self._floor = self._last.popitem(last=False)

    def outdated(self, tenant: str, made: int) -> bool:
        """Whether what was made for `tenant` as change `made` was the latest is out of date."""
        return made != self.latest and made < max(self._last.get(tenant, 0), self._floor)
