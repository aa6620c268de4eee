"""Two ends of a link in one process, and what a client hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from understudy.actors.clock import Clock
from understudy.actors.session import TenantContext
from understudy.actors.testing import settle
from understudy.runtime.link import OLDEST, VERSION, CallHead, InboundCall, Link, Seals
from understudy.runtime.link.testing import MemoryHub
from understudy.stores import Address

EDGE = "edge-1.aa"
OWNER = "owner-1.bb"
KEY = b"the key of the cluster of these tests"
SEALS = Seals("tests", [KEY])
"""What all links of one cluster have."""
TENANT = TenantContext("acme", "bob", "gold", frozenset({"read", "write"}), {"sub": "bob", "n": 1}, 2e9)

Handler = Callable[[InboundCall], Awaitable[None]]


def a_head(path: str = "/mcp", **others: Any) -> CallHead:
    """A head with every field set."""
    fields: dict[str, Any] = {
        "method": "POST",
        "path": path,
        "query": b"a=1",
        "headers": [(b"content-type", b"application/json"), (b"x-empty", b"")],
        "client": ("10.0.0.1", 5123),
        "server": ("10.0.0.2", 8000),
        "tenant": TENANT,
        "address": Address("session", "s" * 32),
        "purpose": "call",
        "hops": 1,
        "budget": 30.0,
        "trace": "trace-1",
    }
    return CallHead(**(fields | others))


@dataclass
class Heard:
    """Plays the client: keeps what was sent to it. While `open` is unset it takes nothing."""

    status: int | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    complete: bool = False
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await self.open.wait()
        assert not self.complete, "something came after the end"
        if message["type"] == "http.response.start":
            assert self.status is None, "the response began twice"
            self.status, self.headers = message["status"], message["headers"]
        else:
            assert self.status is not None, "a body before the beginning"
            if message["body"]:
                self.parts.append(message["body"])
            self.complete = not message["more_body"]


async def answer(call: InboundCall, body: bytes, status: int = 200) -> None:
    """One complete response."""
    await call.send({"type": "http.response.start", "status": status, "headers": [(b"x-by", b"owner")]})
    await call.send({"type": "http.response.body", "body": body})


async def echo(call: InboundCall) -> None:
    """Answers with the request's body, or with as many bytes as its path says."""
    request = await call.receive()
    size = call.head.path.removeprefix("/bytes/")
    await answer(call, pattern(int(size)) if size.isdecimal() else request["body"])


@lru_cache(maxsize=16)
def pattern(size: int) -> bytes:
    """Bytes in which a lost, doubled or misplaced part shows."""
    return b"".join(number.to_bytes(8, "big") for number in range(size // 8 + 1))[:size]


@dataclass
class Ends:
    hub: MemoryHub
    edge: Link
    owner: Link

    async def ask(self, body: bytes = b"ping", **head: Any) -> Heard:
        heard = Heard()
        await self.edge.forward(OWNER, a_head(**head), body, heard.send)
        return heard


@asynccontextmanager
async def two_ends(
    handler: Handler = echo, *, clock: Clock | None = None, hub: MemoryHub | None = None, **options: Any
) -> AsyncIterator[Ends]:
    """An edge and an owner that can reach each other. `options` go to both links."""
    hub = hub or MemoryHub(clock)
    async with (
        Link(hub.wire(), me=OWNER, serve=handler, seals=SEALS, clock=clock, **options) as owner,
        Link(hub.wire(), me=EDGE, serve=echo, seals=SEALS, clock=clock, **options) as edge,
    ):
        edge.set_peer_versions(OWNER, (OLDEST, VERSION))
        owner.set_peer_versions(EDGE, (OLDEST, VERSION))
        yield Ends(hub, edge, owner)


async def soon(condition: Callable[[], Any]) -> None:
    """Until `condition` holds, without time passing."""
    for _ in range(200):
        if condition():
            return
        await settle(5)
    raise AssertionError("it does not happen")


async def error_of(work: Awaitable[object]) -> Exception | None:
    """What `work` raised, so that it may fail beside others."""
    try:
        await work
    except Exception as error:
        return error
    return None
