"""`Fellowship`: what all nodes of a cluster must have alike, or they would work against each other."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...stores import SessionStore
from ...stores.moving import Transition
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
    transition: Transition
    """Where its store is on the way to, or from."""

    def check(self, peer: NodeNews) -> None:
        """
        Raises:
            StoreNotShared: `peer` keeps sessions elsewhere.
            ClusterError: `peer` has other keys.
        """
        if peer.store and self.store and (why := self._apart(peer)):
            raise StoreNotShared(f"node {peer.node!r} of cluster {self.cluster!r} {why}")
        if peer.keys and self.keys and not {peer.keys[0], self.keys[0]} <= {*peer.keys} & {*self.keys}:
            # Neither would take a word of the other's.
            raise ClusterError(
                f"node {peer.node!r} of cluster {self.cluster!r} has other keys (it seals with "
                f"{peer.keys[0]}) than this one ({self.keys[0]}): give all nodes the same "
                "--request-state-keys, and when they change, first add the new key behind the others at every node"
            )

    def _apart(self, peer: NodeNews) -> str:
        """Why this node and `peer` would not find each other's sessions; empty if they do.

        A cluster moves from one store to another in three restarts, and a node knows those of the step before and the
        step after its own.
        """
        mine = _Place(self.store, self.transition.next, self.transition.former, self.transition.left)
        theirs = _Place(peer.store, peer.next_store, peer.former_store, peer.left)
        if mine.store == theirs.store:
            return _from_elsewhere(mine, theirs) or _to_elsewhere(mine, theirs)
        if mine.precedes(theirs) or theirs.precedes(mine):
            return ""
        for one, other in ((mine, theirs), (theirs, mine)):
            if one.store == other.former and not one.next:
                return (
                    f"{_who(one is theirs)} keeps sessions in {one.store} and does not know that they are moved to "
                    f"{other.store}: start every node with --next-store before the first with --former-store"
                )
            if one.next == other.store and not other.former:
                return (
                    f"{_who(other is theirs)} keeps sessions in {other.store} and does not look for those in "
                    f"{one.store}: start every node with --former-store before the first with the new store alone"
                )
        return (
            f"keeps sessions in another store ({theirs.store}) than this one ({mine.store}): give all nodes one that "
            "each of them reaches"
        )


class _Place(NamedTuple):
    """Where a node has its sessions."""

    store: str
    next: str
    former: str
    left: bool

    def precedes(self, other: _Place) -> bool:
        """Whether it follows sessions to where `other` moves them from here."""
        return self.next == other.store and other.former == self.store


def _from_elsewhere(mine: _Place, theirs: _Place) -> str:
    if mine.former == theirs.former:
        return ""
    for mover, other in ((mine, theirs), (theirs, mine)):
        if mover.former and not other.former:
            if other.next:
                return f"moves on to {other.next} before all is moved from {mover.former}: one move after the other"
            if mover.left:
                return (
                    f"{_who(mover is theirs)} still moves sessions from {mover.former}, and {_who(other is theirs)} "
                    "does not look for them there: see to it that nothing is left with `understudy store move`, then "
                    "start nodes without --former-store"
                )
            return ""
    return f"moves sessions from {theirs.former}, and this one from {mine.former}: name one --former-store"


def _to_elsewhere(mine: _Place, theirs: _Place) -> str:
    if not mine.next or not theirs.next or mine.next == theirs.next:
        return ""
    return f"follows sessions to {theirs.next}, and this one to {mine.next}: name one --next-store"


def _who(peer: bool) -> str:
    return "it" if peer else "this node"


def store_identity(store: SessionStore) -> str:
    """What tells a store from others; empty where it cannot be told."""
    identity: Any = getattr(store, "identity", None)
    if isinstance(identity, str):
        return identity
    return "" if store.shared else f"{type(store).__name__} of {socket.gethostname()}, process {os.getpid()}"
