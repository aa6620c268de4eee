"""Nodes in one process that share a store: each with a gate, and a router that tries again at another node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from edge.call import Connections
from edge.client import Client, ModernClient
from support.patience import PATIENCE
from understudy.actors import Elsewhere
from understudy.actors.session.wire import error_message
from understudy.runtime import Runtime
from understudy.runtime.wire.inbound import Inbound
from understudy.runtime.wire.refusals import Refused
from understudy.runtime.wire.routing import Leg, NoRoom, Placement
from understudy.stores import Address, MemoryStore


class Shared:
    """A store that outlives the runtimes that close it."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def aclose(self) -> None:
        pass


class Response:
    """One answer to the client, though a second node may have to go on with it."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self.started = False
        self._again = False
        self._json: bytes | None = None

    def go_on(self) -> None:
        self._again = self.started

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            if self._again:
                streams = (b"content-type", b"text/event-stream") in message["headers"]
                self._json = None if streams else b""
                return
            self.started = True
        elif self._json is not None:
            self._json += message["body"]
            assert not message.get("more_body", False)
            message = {"type": "http.response.body", "body": b"event: message\ndata: " + self._json + b"\n\n"}
        await self._send(message)

    async def refuse(self, refused: Refused) -> None:
        event = b"event: message\ndata: " + error_message(refused.request_id, refused.refusal) + b"\n\n"
        await self._send({"type": "http.response.body", "body": event})


class Node:
    """The gate, the router and the announcer of one runtime."""

    def __init__(self, fleet: Fleet, name: str, server: object, **options: Any) -> None:
        self.fleet = fleet
        self.name = name
        self.lease = True
        self.routed: list[tuple[str, Address | None]] = []
        self.attempts: list[str] = []
        """What became of each time that this node's leg was tried."""
        self.no_room: list[Address | None] = []
        """What there was no room for."""
        self.runtime = Runtime(
            server,
            store=fleet.store,
            node_id=name,
            placement=Placement(gate=self, router=self, announce=fleet.announce),
            **options,
        )
        self.connections: Connections

    @property
    def registry(self) -> Any:
        return self.runtime._node.registry

    @property
    def streams(self) -> Any:
        return self.runtime._node.resumable.table

    def may_run(self) -> bool:
        return self.lease

    def may_claim(self, address: Address) -> bool:
        return self.fleet.owners.setdefault(address, self) is self

    def claimed(self, address: Address, epoch: int) -> Awaitable[bool] | None:
        return None

    async def route(self, inbound: Inbound, address: Address | None, run: Leg) -> None:
        self.routed.append((inbound.scope["method"], address))
        response = Response(inbound.send)
        inbound = replace(inbound, send=response.send)
        node = self.fleet.owners.get(address, self) if address is not None else self
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await node.run(inbound, run if node is self else None)
                    return
                except NoRoom as full:
                    if node is not self or len(self.fleet.nodes) == 1:
                        raise
                    node = next(other for other in self.fleet.nodes.values() if other is not self)
                    if full.address is not None:
                        self.fleet.owners[full.address] = node
                except Elsewhere as elsewhere:
                    response.go_on()
                    await self.fleet.settled(elsewhere.address)
                    node = self.fleet.owners[elsewhere.address]
                except Refused as refused:
                    if not response.started:
                        raise
                    await response.refuse(refused)
                    return

    async def run(self, inbound: Inbound, leg: Leg | None) -> None:
        outcome = "answered"
        try:
            if leg is not None:
                await leg(inbound)
            else:
                assert self.runtime.edge is not None
                await self.runtime.edge.serve_inbound(replace(inbound, remote=True))
        except Exception as error:
            outcome = type(error).__name__
            if isinstance(error, NoRoom):
                self.no_room.append(error.address)
            raise
        finally:
            self.attempts.append(outcome)

    def client(self) -> Client:
        return Client(self.connections)

    def modern(self) -> ModernClient:
        return ModernClient(self.connections)


class Fleet:
    """Some nodes, and who owns what."""

    def __init__(self) -> None:
        self.store: Any = Shared()
        self.nodes: dict[str, Node] = {}
        self.owners: dict[Address, Node] = {}
        self.announced: list[Address] = []
        self.announcing: Any = None
        self._moving: dict[Address, asyncio.Event] = {}

    async def announce(self, address: Address) -> None:
        self.owners[address] = next(node for node in self.nodes.values() if address in node.registry)
        if self.announcing is not None:
            await self.announcing(address)
        self.announced.append(address)

    async def settled(self, address: Address) -> None:
        if (moving := self._moving.get(address)) is not None:
            await moving.wait()

    async def move(self, address: Address, to: Node) -> bool:
        """Hand a session off; what waits for it is sent to its new owner."""
        moved = self._moving[address] = asyncio.Event()
        node = self.owners[address]
        try:
            return await node.registry.hand_off(address)
        finally:
            self.owners[address] = to
            moved.set()
            node.streams.move(address)


@asynccontextmanager
async def fleet_of(*servers: object, **options: Any) -> AsyncIterator[Any]:
    """Nodes that host these servers, one each; the fleet, then the nodes."""
    fleet = Fleet()
    async with AsyncExitStack() as stack:
        for number, server in enumerate(servers, 1):
            node = fleet.nodes[f"node-{number}"] = Node(fleet, f"node-{number}", server, **options)
            await stack.enter_async_context(node.runtime)
            node.connections = await stack.enter_async_context(Connections(node.runtime.app))
        yield fleet, *fleet.nodes.values()
