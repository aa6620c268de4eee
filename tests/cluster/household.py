"""Some nodes of a real cluster in this process: one NATS, one store, each node with a stage of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from edge.call import Connections
from edge.client import Client, ModernClient
from edge.fleet import Shared
from edge.server import Stage, make_server
from edge.sockets import carried
from support.nats import fresh_name
from understudy.runtime import ClusterOptions, Runtime
from understudy.stores import Address

LEASE = 30.0
"""Seconds: a machine that is busy with something else may hold this process up for longer than the usual lease."""


class Member:
    """One node, and how to reach it: by ASGI, and by a real HTTP server at `port`."""

    def __init__(self, runtime: Runtime, stage: Stage, connections: Connections) -> None:
        self.runtime = runtime
        self.stage = stage
        self.connections = connections
        self.port = 0

    @property
    def name(self) -> str:
        return self.runtime.node_id

    @property
    def registry(self) -> Any:
        return self.runtime._node.registry

    @property
    def streams(self) -> Any:
        return self.runtime._node.resumable.table

    def client(self) -> Client:
        return Client(self.connections)

    def modern(self) -> ModernClient:
        return ModernClient(self.connections)

    def same(self, client: Client) -> Client:
        """Another connection of the same client, to this node."""
        other = Client(self.connections)
        other.session, other.revision = client.session, client.revision
        other.headers = dict(client.headers)
        other._ids = client._ids
        return other

    def owns(self, session: str | None) -> bool:
        return Address("session", session or "") in self.registry


@asynccontextmanager
async def household(
    nats_url: str,
    nodes: int = 2,
    *,
    server: Callable[[Stage], object] = make_server,
    http_server: str | None = None,
    settings: Callable[[int], dict[str, Any]] = lambda number: {},
    **options: Any,
) -> AsyncIterator[list[Member]]:
    """Start so many nodes. `http_server`: which one carries them, if any. `settings`: more of `ClusterOptions` for
    each node, by its number; `options` are the runtimes', and `tenants` is given the number too.

    What the stages hold at the end goes on, or the nodes would wait for it.
    """
    cluster, store = fresh_name("house"), Shared()
    async with AsyncExitStack() as stack:
        members: list[Member] = []
        for number in range(1, nodes + 1):
            stage = Stage()
            runtime = Runtime(
                server(stage),
                store=store,
                node_id=f"node-{number}",
                cluster=ClusterOptions(**{"name": cluster, "nats": nats_url, "lease": LEASE, **settings(number)}),
                **{key: value(number) if key == "tenants" else value for key, value in options.items()},
            )
            await stack.enter_async_context(runtime)
            connections = await stack.enter_async_context(Connections(runtime.app))
            member = Member(runtime, stage, connections)
            if http_server is not None:
                member.port = await stack.enter_async_context(carried(member, http_server))  # type: ignore[arg-type]
            members.append(member)
        try:
            yield members
        finally:
            for member in members:
                member.stage.go_on.set()
