"""What can keep a node from being part of its cluster."""

from __future__ import annotations

from ...stores import UnderstudyError

__all__ = ["ClusterError", "NodeIdTaken", "StoreNotShared"]


class ClusterError(UnderstudyError):
    """This node cannot join, or stay in, its cluster."""


class NodeIdTaken(ClusterError):
    """Another process is this node already."""


class StoreNotShared(ClusterError):
    """The nodes of a cluster would not see each other's sessions."""
