"""Records and events in NATS JetStream. What needs nats-py is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .store import NatsStore

__all__ = ["NatsStore"]


def __getattr__(name: str) -> Any:
    if name == "NatsStore":
        from .store import NatsStore

        return NatsStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
