"""A node, and others that take its sessions over as if it had died: all share one store, and none knows of another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from edge.call import Connections
from edge.client import Client, put_to_sleep
from edge.fleet import Shared
from understudy.runtime import Runtime
from understudy.stores import Address


class Heirs:
    """Nodes of one store. The one that is asked last has the session; the others only do not know it yet."""

    def __init__(self, stack: AsyncExitStack, store: Any) -> None:
        self.store = store
        self._stack = stack

    @property
    def log(self) -> Any:
        return self.store.events

    async def node(self, server: object, **options: Any) -> Client:
        """A client of another node."""
        runtime = await self._stack.enter_async_context(Runtime(server, store=self.store, **options))
        # Nobody answers what its tools still wait for.
        self._stack.push_async_callback(runtime.drain, 0.05)
        connections = await self._stack.enter_async_context(Connections(runtime.app))
        client = Client(connections)
        client.runtime = runtime
        return client

    async def logged(self, client: Client, stream: str, after: int = 0) -> Any:
        """What the log has of a stream of the client's session."""
        return await self.log.read(address_of(client), stream, after=after)


def address_of(client: Client) -> Address:
    return Address("session", client.session or "")


def goes_to(client: Client, heir: Client) -> Client:
    """The same client, at another node."""
    heir.session, heir.revision, heir.headers = client.session, client.revision, client.headers
    heir._ids = client._ids
    return heir


async def sleep_of(client: Client) -> None:
    """Have the session leave the node's memory; its streams stay."""
    await put_to_sleep(client.runtime, client.session)


def stream_of(event: Any) -> str:
    return str(event.id).rpartition("-")[0]


@asynccontextmanager
async def heirs(store: Any = None) -> AsyncIterator[Heirs]:
    shared = Shared()
    if store is not None:
        shared.store = store
    async with AsyncExitStack() as stack:
        yield Heirs(stack, shared)
