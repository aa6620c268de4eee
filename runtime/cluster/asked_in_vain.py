"""`AskedInVain`: addresses without a record, that are asked for so that the leg says so in the words of its era."""

from __future__ import annotations

from collections.abc import Awaitable

from ...stores import Address

__all__ = ["AskedInVain"]


class AskedInVain:
    """Such an address may be claimed by anybody: it does not exist. Holds as many as there are requests for them."""

    def __init__(self) -> None:
        self._counts: dict[Address, int] = {}

    def __contains__(self, address: Address) -> bool:
        return address in self._counts

    async def during(self, address: Address, answer: Awaitable[None]) -> None:
        """Await `answer`, which asks for `address`. Raises what it raises."""
        counts = self._counts
        counts[address] = counts.get(address, 0) + 1
        try:
            await answer
        finally:
            counts[address] -= 1
            if not counts[address]:
                del counts[address]
