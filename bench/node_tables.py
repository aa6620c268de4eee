"""The tables that a node of a cluster keeps, filled: what `understudy bench scale` weighs."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from ..runtime.cluster.entry import Entry
from ..runtime.cluster.ownership import Ownership
from ..runtime.cluster.peers import NodeNews
from ..stores import Address

__all__ = ["TABLES", "news_of"]

LEASE: Final = 3.0


def news_of(number: int) -> NodeNews:
    """What node `number` says of itself, as long as such news usually is."""
    name = f"node-{number:04}"
    return NodeNews(
        f"{name}.19ab{secrets.token_hex(6)}",
        LEASE,
        url=f"http://10.0.{number % 250}.{number // 250}:8000/mcp",
        pid=10_000 + number,
        host=f"{name}.cluster.internal",
        sessions=8_000,
        capacity=10_000,
        versions=(1, 3),
        serial=1_790_000_000_000 + number,
        build="0.1.0",
        store="nats://nats.cluster.internal:4222/sessions",
    )


def held(entries: int) -> Ownership:
    """A node that holds so many addresses: of its sessions in memory, whose memory itself is not counted here."""
    ownership = _node()
    for revision in range(1, entries + 1):
        address = Address.new("session")
        assert ownership.opened(address) is not None
        ownership.published(address, revision, ownership.me)
    return ownership


def hints(entries: int) -> Ownership:
    """A node that knows of so many sessions at which other node they were last found. Bounded, at 100,000."""
    ownership = _node()
    others = [news_of(number).incarnation for number in range(1, 1000)]
    for revision in range(1, entries + 1):
        ownership.learn(Address.new("session"), Entry(others[revision % len(others)], revision % 7 + 1, revision))
    return ownership


def peers(entries: int) -> Ownership:
    """A node that has heard of so many others."""
    ownership = _node()
    for number in range(1, entries + 1):
        ownership.heard(news_of(number), 0.0)
    return ownership


def _node() -> Ownership:
    ownership = Ownership("node-0000.none", lease=LEASE)
    ownership.begin(news_of(0).incarnation, 0.0)
    return ownership


TABLES: Final[dict[str, Callable[[int], Ownership]]] = {"held": held, "hints": hints, "peers": peers}
