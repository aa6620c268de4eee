"""`Wire`: what a link asks of the network. NATS, or `understudy.runtime.link.testing.MemoryWire`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Letter", "Wire", "WireEvents"]

Letter = tuple[str, bytes, str]
"""Peer, payload and tag: what `Wire.publish` takes."""


class WireEvents(Protocol):
    """What a wire tells its link. Called on the event loop; never raises, never waits."""

    def on_payload(self, peer: str, payload: bytes) -> None:
        """`peer` has published to us."""
        ...

    def on_no_responders(self, peer: str, tag: str) -> None:
        """What was published to `peer` with `tag` reached nobody, surely."""
        ...

    def on_reconnect(self) -> None:
        """The wire was interrupted and is there again. What was under way may be lost."""
        ...


class Wire(Protocol):
    """At-most-once publish and subscribe between incarnations: it may lose, repeat, reorder and delay."""

    @property
    def max_payload(self) -> int:
        """Bytes of one payload, at most."""
        ...

    @property
    def crowded(self) -> bool:
        """Whether a publish may have to wait now."""
        ...

    async def listen(self, me: str, events: WireEvents) -> None:
        """Be `me` from now on: what is published to it goes to `events`, what is published to an earlier name does not.

        A publish after this returns is answered to `me`, even if that is not known to the server yet.
        """
        ...

    async def publish(self, peer: str, payload: bytes, tag: str) -> bool:
        """Hand `payload` over; False if it surely will not arrive. Never raises, and waits a few seconds at most.

        `tag`, visible ASCII without `.`, `*` and `>`, comes back in `on_no_responders`.
        """
        ...

    def publish_at_once(self, letters: Sequence[Letter]) -> bool:
        """Publish all of `letters` without waiting; False, and nothing done, if that is not possible. Never raises."""
        ...

    async def catch_up(self) -> None:
        """Until `events` has heard which publishes reached nobody. Never raises, and waits a second at most."""
        ...

    async def drain(self) -> None:
        """Hear all that is on its way, and nothing that is published from now on: its publisher learns that it reached
        nobody. Never raises, and waits a second at most."""
        ...

    async def close(self) -> None:
        """Hear and tell nothing more. Never raises."""
        ...
