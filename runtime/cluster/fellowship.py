"""`Fellowship`: what all nodes of a cluster must have alike, or they would work against each other."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...stores import SessionStore
from .errors import ClusterError, StoreNotShared
from .peers import NodeNews

__all__ = ["Fellowship", "store_identity"]


@dataclass(frozen=True, slots=True)
class Fellowship:
    """Of one node."""

    cluster: str
    store: str
    """As `store_identity` gives it."""
    keys: Sequence[str]
    """Fingerprints of the cluster's keys, the one that it seals with first."""

    def check(self, peer: NodeNews) -> None:
        """
        Raises:
            StoreNotShared: `peer` keeps sessions elsewhere.
            ClusterError: `peer` has other keys.
        """
        if peer.store and self.store and peer.store != self.store:
            raise StoreNotShared(
                f"node {peer.node!r} of cluster {self.cluster!r} keeps sessions in another store "
                f"({peer.store}) than this one ({self.store}): give all nodes one that each of them reaches"
            )
        if peer.keys and self.keys and not {peer.keys[0], self.keys[0]} <= {*peer.keys} & {*self.keys}:
            # Neither would take a word of the other's.
            raise ClusterError(
                f"node {peer.node!r} of cluster {self.cluster!r} has other keys (it seals with "
                f"{peer.keys[0]}) than this one ({self.keys[0]}): give all nodes the same "
                "--request-state-keys, and when they change, first add the new key behind the others at every node"
            )


def store_identity(store: SessionStore) -> str:
    """What tells a store from others; empty where it cannot be told."""
    identity: Any = getattr(store, "identity", None)
    if isinstance(identity, str):
        return identity
    return "" if store.shared else f"{type(store).__name__} of {socket.gethostname()}, process {os.getpid()}"
