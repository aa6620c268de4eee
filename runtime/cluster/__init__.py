"""Many nodes: who owns what, how it is found, and how it moves. `nats-py` (extra `cluster`) is needed to join one."""

from .options import ClusterOptions

__all__ = ["ClusterOptions"]
