"""Many nodes: who owns what, how it is found, and how it moves. `nats-py` (extra `cluster`) is needed to join one.

`ClusterOptions` is imported when first used: with it comes the link, and a node that is alone needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .options import ClusterOptions

__all__ = ["ClusterOptions"]


def __getattr__(name: str) -> Any:
    if name == "ClusterOptions":
        from .options import ClusterOptions

        return ClusterOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
