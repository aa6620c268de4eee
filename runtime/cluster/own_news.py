"""`OwnNews`: what a node tells of itself with each renewal of its lease, and what it asks of the others' by that."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...stores import SessionStore
from ...stores.moving import Transition, transition_of
from ..telemetry.metrics import understudy_version
from .commons import ClusterCommons
from .fellowship import Fellowship, store_identity
from .options import ClusterOptions
from .ownership import Ownership
from .peers import NodeNews, Peer

if TYPE_CHECKING:
    from ...actors import Registry

__all__ = ["OwnNews"]


class OwnNews:
    """Made by `Cluster` when it joins, for `Membership`, which tells it."""

    def __init__(
        self,
        options: ClusterOptions,
        ownership: Ownership,
        commons: ClusterCommons,
        store: SessionStore,
        registry: Registry,
        *,
        capacity: int,
    ) -> None:
        """`capacity`: sessions that the node may have in memory."""
        self._options = options
        self._ownership = ownership
        self._commons = commons
        self._store = store
        self._store_identity = store_identity(store)
        self._registry = registry
        self._capacity = capacity

    def tell(self, incarnation: str, serial: int) -> NodeNews:
        """As it is now, under this incarnation."""
        transition = self._transition
        return NodeNews(
            incarnation,
            self._options.lease,
            url=self._options.url,
            pid=os.getpid(),
            host=socket.gethostname(),
            sessions=len(self._registry),
            capacity=self._capacity,
            draining=self._ownership.draining,
            versions=self._options.versions,
            serial=serial,
            build=understudy_version(),
            store=self._store_identity,
            next_store=transition.next,
            former_store=transition.former,
            left=transition.left,
            bus=self._commons.hub.origin,
            published=self._commons.hub.last,
            keys=self._commons.keys.fingerprints,
        )

    def check(self, others: Iterable[Peer]) -> None:
        """
        Raises:
            StoreNotShared, ClusterError: This node and one of `others` must not be of one cluster; see `Fellowship`.
        """
        mine = Fellowship(self._options.name, self._store_identity, self._commons.keys.fingerprints, self._transition)
        for peer in others:
            mine.check(peer.news)

    @property
    def _transition(self) -> Transition:
        return transition_of(self._store) or Transition()
