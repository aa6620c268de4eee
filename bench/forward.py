"""`understudy bench forward`: what it costs that a call is answered by another node than the one it came to."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from nats.aio.client import Client

from ..runtime.link import OLDEST, VERSION, CallHead, InboundCall, Link
from ..runtime.link.nats_wire import NatsWire
from ..stores import Address
from .asgi import Refused
from .clients import HANDSHAKE_VERSION, HEADERS, HandshakeClient, PreparedCall
from .counterpart import LINK_PREFIX, LINK_SEALS, REPLY, SUBJECT, cluster_app_options
from .cpu_time import CpuMeter
from .fleet import HTTP, Fleet, described_nodes, fleet
from .http_client import HttpConnection, RemoteSession, open_session
from .local_nats import connected, connected_raw, local_nats
from .measure import Effort, Progress, Side, Stopwatch, in_flight, interleave
from .report import Comparison, Report, Scenario, Series, Target, ratio
from .servers import ARGUMENTS, TOOL, ten_tools
from .sides import understudy_app

__all__ = ["BODY", "bench_forward", "counterpart"]

MANY = 256
CLIENTS = (48, 144)
"""Of the cluster: each waits for its answer before it sends its next call. The more there are, the more calls share a
batch between two nodes."""
START_DEADLINE = 60.0
_OWN_PID = os.getpid()

RATE_TARGET = Target("at least", 1.0)
LATENCY_TARGET = Target("at most", 1.5)
CLUSTER_TARGET = Target("at least", 0.6)

BODY = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "order_state",
            "arguments": {"order": "A-2026-000417", "customer": "c-88213", "fields": ["state", "leaves"], "lang": "en"},
            "_meta": {"progressToken": 17},
        },
    }
).encode()

RAW, LINK = "raw nats-py request and reply", "link, one call"
LOCAL, FORWARDED = "call at its owner", "call forwarded to its owner"
OWNER, ROBIN = "every call at its owner", "round robin"


async def bench_forward(effort: Effort, progress: Progress) -> Report:
    """Measure; `effort` says how long each scenario."""
    scenarios: list[Scenario] = []
    async with local_nats() as nats:
        async with counterpart(nats.url) as there:
            scenarios.append(await _many_in_flight(nats.url, there, effort, progress))
            scenarios.append(await _one_in_flight(nats.url, there, effort, progress))
        progress("cluster: starting 3 nodes")
        async with fleet(nats.url) as nodes:
            for clients in (3,) if effort.quick else CLIENTS:
                scenarios += await _cluster(nodes, nats.pid, clients, effort, progress)
    return Report("forward", tuple(scenarios), effort.quick)


@asynccontextmanager
async def counterpart(nats: str, **arguments: Any) -> AsyncGenerator[dict[str, Any]]:
    """The other process; what it says of itself, and `tell`, which sends it a line.

    Raises:
        Refused: It did not start; the message ends with what it said.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "understudy.bench.counterpart",
        json.dumps({"nats": nats, **arguments}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(START_DEADLINE):
            said = await process.stdout.readline()
            if not said:
                error = (await process.stderr.read()).decode(errors="replace")
                raise Refused(f"the other process ended before it was ready:\n{error[-4000:]}")
        yield {**json.loads(said), "tell": process.stdin.write}
        process.stdin.close()
        async with asyncio.timeout(10.0):
            await process.wait()
    except TimeoutError:
        raise Refused("the other process does not answer, or does not end") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# Raw NATS and the link


async def _many_in_flight(nats: str, there: dict[str, Any], effort: Effort, progress: Progress) -> Scenario:
    name = f"{MANY} in flight between two processes, {len(BODY)} bytes there and {len(REPLY)} back"
    # A slice begins and ends with fewer in flight, so that it must be long enough for many rounds of all of them.
    long = replace(effort, slices=4, slice_seconds=0.4) if not effort.quick else effort
    async with AsyncExitStack() as stack:
        raw = await stack.enter_async_context(connected_raw(nats))
        link = await stack.enter_async_context(_bare_link(nats))
        calls = LinkCalls(link, there["link"])
        # Within the slices of one side the other is idle, as it should be.
        sides = [
            Side(RAW, in_flight([partial(_raw, raw)] * MANY), at_once=MANY),
            Side("link", in_flight([calls.call] * MANY), at_once=MANY),
        ]
        seconds = await interleave(sides, long, lambda said: progress(f"{MANY} in flight, {said}"))
    series = tuple(
        Series(side.name, side.unit, tuple(1 / each for each in figures))
        for side, figures in zip(sides, seconds, strict=True)
    )
    return Scenario(name, series, (ratio("link / raw", series[1], series[0], RATE_TARGET),))


async def _one_in_flight(nats: str, there: dict[str, Any], effort: Effort, progress: Progress) -> Scenario:
    async with AsyncExitStack() as stack:
        raw = await stack.enter_async_context(connected_raw(nats))
        link = await stack.enter_async_context(_bare_link(nats))
        app = await stack.enter_async_context(
            understudy_app(ten_tools(sessions=True), **cluster_app_options(nats, "edge"))
        )
        call = PreparedCall(TOOL, ARGUMENTS)
        local = await HandshakeClient.open(app)
        forwarded = HandshakeClient(app, there["sessions"][0])
        first, second = [(await client.call(call)).reply()["result"] for client in (local, forwarded)]
        if first != second:
            raise Refused(f"a forwarded call is answered {second}, a local one {first}")
        watches = {
            RAW: Stopwatch(partial(_raw, raw)),
            LINK: Stopwatch(LinkCalls(link, there["link"]).call),
            LOCAL: Stopwatch(partial(local.call, call)),
            FORWARDED: Stopwatch(partial(forwarded.call, call)),
        }
        sides = [Side(name, watch.run) for name, watch in watches.items()]
        await interleave(sides, effort, lambda said: progress(f"1 in flight, {said}"))
    series = tuple(
        Series(name, "us", tuple(each * 1e6 for each in watch.medians(effort))) for name, watch in watches.items()
    )
    trips, alone, here, through = (each.rounds for each in series)
    added = tuple((b - a) / trip for trip, a, b in zip(trips, here, through, strict=True))
    comparisons = (
        Comparison("what forwarding adds to a call", "raw round trips", added, LATENCY_TARGET),
        Comparison("link / raw", "x", tuple(a / b for a, b in zip(alone, trips, strict=True))),
    )
    return Scenario("1 in flight between two nodes, bare ASGI at both: the median call", series, comparisons)


async def _raw(client: Client) -> None:
    message = await client.request(SUBJECT, BODY, timeout=30)
    if message.data != REPLY:
        raise Refused(f"a raw request was answered {message.data[:100]!r}")


@asynccontextmanager
async def _bare_link(nats: str) -> AsyncGenerator[Link]:
    async def serve(call: InboundCall) -> None:
        call.refuse("nothing is served here")

    async with (
        connected(nats) as client,
        Link(
            NatsWire(client, prefix=LINK_PREFIX), me=f"caller.{secrets.token_hex(4)}", serve=serve, seals=LINK_SEALS
        ) as link,
    ):
        yield link


class LinkCalls:
    """Calls over a bare link, with the head that a forwarded call of a real session has."""

    def __init__(self, link: Link, peer: str) -> None:
        self._link = link
        self._peer = peer
        # As membership does for the nodes of a cluster.
        link.set_peer_versions(peer, (OLDEST, VERSION))
        headers = {**HEADERS, "host": "localhost:8000", "content-length": str(len(BODY))}
        address = Address.new("session")
        headers |= {"mcp-session-id": address.id, "mcp-protocol-version": HANDSHAKE_VERSION}
        self._head = CallHead(
            method="POST",
            path="/mcp",
            headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            client=("127.0.0.1", 50000),
            server=("127.0.0.1", 8000),
            address=address,
            hops=1,
        )

    async def call(self) -> None:
        body = b""

        async def send(message: Any) -> None:
            nonlocal body
            if message["type"] == "http.response.body":
                body += message["body"]

        await self._link.forward(self._peer, self._head, BODY, send)
        if body != REPLY:
            raise Refused(f"a call over the link was answered {body[:100]!r}")


# A cluster


async def _cluster(nodes: Fleet, nats_pid: int, clients: int, effort: Effort, progress: Progress) -> list[Scenario]:
    """Two scenarios: calls a second, and whose processor time a call takes."""
    long = effort if effort.quick else replace(effort, slices=4, slice_seconds=0.5)
    async with _visitors(nodes, clients) as visitors:
        groups = {"nodes": nodes.pids, "nats-server": lambda: [nats_pid], "client": lambda: [_OWN_PID]}
        meters = {OWNER: CpuMeter(groups), ROBIN: CpuMeter(groups)}
        sides = [
            Side(OWNER, meters[OWNER].around(in_flight([visitor.at_owner for visitor in visitors])), at_once=clients),
            Side(ROBIN, meters[ROBIN].around(in_flight([visitor.anywhere for visitor in visitors])), at_once=clients),
        ]
        seconds = await interleave(sides, long, lambda said: progress(f"cluster, {clients} clients, {said}"))
    owner, robin = (
        Series(side.name, side.unit, tuple(1 / each for each in figures))
        for side, figures in zip(sides, seconds, strict=True)
    )
    title = f"{len(nodes.nodes)} nodes ({described_nodes(HTTP)}), {clients} clients over HTTP"
    used = tuple(
        Series(f"{group}, {side}", "us/call", (meter.per_operation(group) * 1e6,))
        for side, meter in meters.items()
        for group in groups
    )
    return [
        Scenario(title, (owner, robin), (ratio(f"{ROBIN} / {OWNER}", robin, owner, CLUSTER_TARGET),)),
        Scenario(f"processor time of a call there, {clients} clients, all rounds together", used),
    ]


class Visitor:
    """A client with one session and a connection to every node."""

    def __init__(self, session: RemoteSession, owner: int, connections: Sequence[HttpConnection]) -> None:
        self._session = session
        self._owner = connections[owner]
        self._connections = connections
        self._turns = count(owner)
        self._call = PreparedCall(TOOL, ARGUMENTS)

    async def at_owner(self) -> None:
        """A call at the node that has the session."""
        await self._session.call(self._owner, self._call)

    async def anywhere(self) -> None:
        """A call at the next node in turn, as a balancer sends it that knows nothing."""
        await self._session.call(self._connections[next(self._turns) % len(self._connections)], self._call)


@asynccontextmanager
async def _visitors(nodes: Fleet, clients: int) -> AsyncGenerator[list[Visitor]]:
    visitors: list[Visitor] = []
    opened: list[HttpConnection] = []
    try:
        for number in range(clients):
            connections = [await node.connect() for node in nodes.nodes]
            opened += connections
            owner = number % len(connections)
            visitors.append(Visitor(await open_session(connections[owner]), owner, connections))
        yield visitors
    finally:
        for connection in opened:
            connection.close()
