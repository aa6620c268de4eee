"""`LeaseEffects`: what it means for the rest of a node that a lease, its own or another's, comes or goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...actors.session import SessionActor
from ...stores import Address
from ..link import Link
from .commons import ClusterCommons
from .counts import Counts
from .holdings import Holdings
from .peers import NodeNews

if TYPE_CHECKING:
    from ...actors import Registry

__all__ = ["LeaseEffects"]


class LeaseEffects:
    """The `MembershipEvents` of a node that serves. Made by `Cluster` when it joins."""

    def __init__(
        self,
        link: Link,
        registry: Registry,
        holdings: Holdings,
        commons: ClusterCommons,
        counts: Counts,
        *,
        moved: Callable[[Address], None],
    ) -> None:
        """`moved` is called with each session that this node has lost."""
        self._link = link
        self._registry = registry
        self._holdings = holdings
        self._commons = commons
        self._counts = counts
        self._moved = moved

    async def renamed(self, incarnation: str) -> None:
        """See `MembershipEvents.renamed`."""
        self._link.rename(incarnation)
        # A few turns of the event loop, unless NATS takes nothing; then the lease is late, not wrong.
        turns = 0
        while self._link.renaming:
            turns += 1
            await asyncio.sleep(0 if turns < 10 else 0.01)

    def lapsed(self, held: list[Address]) -> None:
        """See `MembershipEvents.lapsed`."""
        self._counts.lease_losses += 1
        for address in held:
            actor = self._registry.live(address)
            if isinstance(actor, SessionActor) and actor.calls_in_flight:
                # Its turns are finished, and would wait for answers that go to the next owner.
                actor.cut_off()
        self._registry.lapse()
        self._holdings.forget()
        for address in held:
            self._moved(address)

    def peer_news(self, news: NodeNews) -> None:
        """See `MembershipEvents.peer_news`."""
        self._link.set_peer_versions(news.incarnation, news.versions)
        if news.leaving:
            self._link.peer_leaves(news.incarnation)
        self._commons.heard_of_keys(news.keys)

    def peer_dead(self, incarnation: str) -> None:
        """See `MembershipEvents.peer_dead`."""
        self._link.peer_gone(incarnation)
