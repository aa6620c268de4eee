"""`Permits`: a registry's gate that a test opens and shuts."""

from __future__ import annotations

from collections.abc import Awaitable

from understudy.stores import Address


class Permits:
    """`lease`: whether turns may start. `mine`: what may be claimed; None: everything."""

    def __init__(self) -> None:
        self.lease = True
        self.mine: set[Address] | None = None

    def may_run(self) -> bool:
        return self.lease

    def may_claim(self, address: Address) -> bool:
        return self.mine is None or address in self.mine

    def claimed(self, address: Address, epoch: int) -> Awaitable[bool] | None:
        return None
