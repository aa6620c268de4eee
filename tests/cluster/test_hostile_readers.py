"""Readers that do what no client should: each has its stated end, and costs the node no more than its bounds say.

    reader                                  its end
    never reads                             its response ends; the tool goes on, and what is kept can be resumed
    reads a byte now and then               the same, and it has every event once it comes back
    resumes an id of another session        400, at every node; the stream is left as it was
    resumes an id that makes no sense       400, at every node
    resumes an id that is too old           400 that says that it is no longer kept
    resumes one stream twice at once        the newer goes on; the older ends without an outcome, and with nothing more
    resumes while the session moves         goes on, each event once, wherever it asks
    comes back after its session has ended  404

`deaf` and `lame` readers are real connections by a real HTTP server to a node that does not own the session.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psutil
import pytest
from chaos.sse import EventStream
from cluster import household as households
from cluster.household import Member, household
from edge.call import HTTPCall
from edge.client import Client
from edge.fleet import Shared
from edge.server import READ_ONLY, Stage, Steps, make_server
from edge.test_streams import progress
from mcp.server.mcpserver import Context, MCPServer
from support.patience import PATIENCE
from understudy.actors.session import backlog
from understudy.actors.session import exchange as exchanges
from understudy.actors.task_owner import TaskOwner
from understudy.runtime.cluster import response
from understudy.runtime.edge import sse
from understudy.stores import Address, MemoryStore
from understudy.stores.event_log import EventLogBounds

MIB = 2**20
KEPT = 256 * 1024
"""Bytes of a stream that are kept in these tests, in memory and in the log each."""
READERS = 10
LAST_CHUNK = b"\r\n0\r\n\r\n"
STEPS = 3000
TOKEN = "t" * 4000
"""So that the messages of one call come to 12 MB: far more than what sockets, the link and the bounds hold."""
ROOM = 48 * MIB
"""What the process may grow by while `READERS` times 12 MB are sent to nobody."""


def server_of(stage: Stage) -> MCPServer:
    server = make_server(stage)

    @server.tool(annotations=READ_ONLY)
    async def report_reading(before: Steps, after: Steps, ctx: Context) -> str:
        """`report`, which does not keep its session where it is."""
        for step in range(before):
            await ctx.report_progress(step + 1)
        await stage.hold()
        for step in range(before, before + after):
            await ctx.report_progress(step + 1)
        return "reported"

    return server


@asynccontextmanager
async def two_nodes(nats_url: str, **options: Any) -> AsyncIterator[tuple[Member, Member, Client]]:
    """Two nodes, and a client of a session at the first."""
    async with asyncio.timeout(PATIENCE * 2), household(nats_url, server=server_of, **options) as (here, there):
        client = here.client()
        await client.open()
        yield here, there, client


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def shared() -> Shared:
        made = Shared()
        made.store = MemoryStore(event_bounds=EventLogBounds(max_bytes=KEPT))
        return made

    monkeypatch.setattr(households, "Shared", shared)
    monkeypatch.setattr(backlog, "MAX_BYTES", KEPT)


@pytest.fixture
def quick_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "WRITER_PATIENCE", 0.3)
    for module in (sse, response):
        monkeypatch.setattr(module, "READER_PATIENCE", 1.0)


def raw_call(client: Client, port: int, steps: int) -> bytes:
    params = {
        "name": "report",
        "arguments": {"before": steps, "after": 0},
        "_meta": {"progressToken": TOKEN},
    }
    body = client.message("tools/call", params)
    lines = [
        "POST /mcp HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        f"Mcp-Session-Id: {client.session}",
        f"MCP-Protocol-Version: {client.revision}",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def dial(port: int, request: bytes) -> socket.socket:
    """A connection whose socket takes little by itself, but enough to be emptied quickly in the end."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    await loop.sock_sendall(connection, request)
    return connection


async def closed(connection: socket.socket, got: bytes = b"") -> bytes:
    """What was on the way when the node ended the response or closed the connection, after what was `got` before."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while not got.endswith(LAST_CHUNK) and (data := await loop.sock_recv(connection, MIB)):
            got += data
    connection.close()
    return got


def ids_in(got: bytes) -> list[str]:
    """The ids of the whole events in the raw bytes of an answer."""
    whole = got.rpartition(b"\n\n")[0]
    return [line[4:].decode() for line in whole.split(b"\n") if line.startswith(b"id: ")]


async def read_from(port: int, client: Client, last_id: str) -> list[dict[str, Any]]:
    """All messages after an event, on a connection of its own."""
    headers = "".join(
        f"{name}: {value}\r\n"
        for name, value in {
            "accept": "text/event-stream",
            "mcp-session-id": client.session,
            "mcp-protocol-version": client.revision,
            "last-event-id": last_id,
        }.items()
    )
    stream = await EventStream.open(port, "GET", headers)
    messages: list[dict[str, Any]] = []
    while (event := await stream.next()) is not None:
        if event.data:
            messages.append(json.loads(event.data))
    stream.abort()
    return messages


def open_streams(member: Member) -> list[Any]:
    return [one for streams in member.streams._sessions.values() for one in streams.requests.values()]


@pytest.mark.usefixtures("small_bounds", "quick_patience")
async def test_ten_readers_that_never_read_cost_what_the_bounds_say_and_lose_their_connections(nats_url: str) -> None:
    async with two_nodes(nats_url, http_server="hypercorn") as (here, there, first):
        clients = [first, *(here.client() for _ in range(READERS - 1))]
        for client in clients[1:]:
            await client.open()
        here.stage.go_on.set()
        process = psutil.Process()
        gc.collect()
        before = process.memory_info().rss
        deaf = [await dial(there.port, raw_call(client, there.port, STEPS)) for client in clients]
        most = 0
        while here.stage.finished < READERS:
            most = max(most, process.memory_info().rss - before)
            assert all(stream.size <= KEPT for stream in open_streams(here))
            # Nobody else is held up.
            other = here.client()
            await other.open()
            assert await there.same(other).tool("increment") == 1
            await asyncio.sleep(0.02)
        assert most < ROOM, f"grew by {most / MIB:.0f} MiB"
        assert here.stage.cancelled == 0
        for client in clients:
            assert await there.same(client).tool("increment") == 1
        for stream, connection in zip(open_streams(here), deaf, strict=True):
            got = await closed(connection)
            assert b'"result"' not in got, "it was closed, not served"
            # What is kept can still be had, and the result is the last of it.
            client = next(c for c in clients if here.streams.request(_address(c), stream.id) is stream)
            rest = await read_from(there.port, client, f"{stream.id}-{stream.oldest - 1}")
            assert [m["params"]["progress"] for m in rest[:-1]] == list(range(stream.oldest, STEPS + 1))
            assert rest[-1]["result"]["structuredContent"] == {"result": "reported"}
        assert process.memory_info().rss - before < ROOM


@pytest.mark.usefixtures("quick_patience")
async def test_one_that_reads_a_byte_now_and_then_loses_its_connection_and_no_event(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MAX_BYTES", 32 * MIB)
    async with two_nodes(nats_url, http_server="hypercorn") as (here, there, client):
        here.stage.go_on.set()
        connection = await dial(there.port, raw_call(client, there.port, STEPS))
        got = b""
        while not here.stage.finished or open_streams(here)[0].attached:
            got += await asyncio.get_running_loop().sock_recv(connection, 1)
            await asyncio.sleep(0.02)
        assert await there.same(client).tool("increment") == 1
        got = await closed(connection, got)
        assert b'"result"' not in got, "it was closed, not served"
        (stream,) = open_streams(here)
        last_id = (ids_in(got) or [f"{stream.id}-0"])[-1]
        rest = await read_from(there.port, client, last_id)
        seen = int(last_id.rpartition("-")[2])
        assert [m["params"]["progress"] for m in rest[:-1]] == list(range(seen + 1, STEPS + 1))
        assert rest[-1]["result"]["structuredContent"] == {"result": "reported"}


async def streaming(there: Member, here: Member, client: Client, *, tool: str = "report") -> HTTPCall:
    """A call at `there` that has said five things, and will say five more."""
    here.stage.began.clear()
    call = there.same(client).begin_tool(tool, {"before": 5, "after": 5}, token="t")
    await here.stage.began.wait()
    await call.until(lambda: call.status and len(progress(call)) == 5)
    return call


async def test_an_id_of_another_session_is_refused_and_its_stream_left_alone(nats_url: str) -> None:
    async with two_nodes(nats_url) as (here, there, client):
        call = await streaming(there, here, client)
        for node in (here, there):
            thief = node.client()
            await thief.open()
            for event in call.events:
                for at in (here, there):
                    refused = await at.same(thief).send("GET", headers={"last-event-id": event.id})
                    assert refused.status == 400, refused.body
                    assert "unknown in this session, or no longer kept" in refused.json["error"]["message"]
        assert not call.returned
        here.stage.go_on.set()
        assert (await call.answered()).value == "reported"
        assert progress(call) == [float(n) for n in range(1, 11)]


GARBAGE = [
    "nonsense",
    "-1",
    "1-1-1",
    "9" * 4000,
    "a-" + "9" * 30,
    "standalone-0",
    "\xff\xfe",
    "../../-1",
    "a" * 70 + "-1",
]


@pytest.mark.parametrize("known", ["here", "asleep"])
async def test_an_id_that_makes_no_sense_is_refused_at_every_node(nats_url: str, known: str) -> None:
    async with two_nodes(nats_url) as (here, there, client):
        if known == "asleep":
            await here.registry.passivate(_address(client))
        for event in GARBAGE:
            for at in (here, there):
                refused = await at.same(client).send("GET", headers={"last-event-id": event})
                assert refused.status == 400, (event, refused.body)
                assert len(refused.body) < 1000
        assert await there.same(client).tool("increment") == 1


async def test_an_id_that_is_too_old_is_refused_at_every_node(nats_url: str) -> None:
    async with two_nodes(nats_url) as (here, there, client):
        call = await streaming(there, here, client)
        here.stage.go_on.set()
        await call.answered()
        now = here.runtime._node.store.events._clock() + 10_000
        for member in (here, there):
            clock = member.streams._left._clock
            member.streams._left._clock = lambda clock=clock: clock() + 10_000
        here.runtime._node.store.events._clock = lambda: now
        for event in call.events:
            for at in (here, there):
                refused = await at.same(client).send("GET", headers={"last-event-id": event.id})
                assert refused.status == 400, refused.body
                assert "no longer kept" in refused.json["error"]["message"]
        assert await there.same(client).tool("increment") == 1


def at_here(here: Member, there: Member) -> tuple[Member, Member]:
    return here, here


def at_there(here: Member, there: Member) -> tuple[Member, Member]:
    return there, there


def at_both(here: Member, there: Member) -> tuple[Member, Member]:
    return here, there


@pytest.mark.parametrize("places", [at_here, at_there, at_both])
async def test_of_two_who_resume_one_stream_at_once_one_goes_on(
    nats_url: str, places: Callable[[Member, Member], tuple[Member, Member]]
) -> None:
    async with two_nodes(nats_url) as (here, there, client):
        for round in range(4):
            here.stage.go_on.clear()
            call = await streaming(there, here, client)
            call.disconnect()
            nodes = places(here, there)
            event = call.events[round].id
            two = [node.same(client).start("GET", headers={"last-event-id": event}) for node in nodes]
            for one in two:
                await one.started()
                assert one.status == 200, one.body
            await _any_done(two)
            here.stage.go_on.set()
            for one in two:
                await one.answered()
            (winner,) = [one for one in two if any("result" in message for message in one.messages)]
            assert winner.value == "reported"
            assert progress(winner) == [float(n) for n in range(round + 1, 11)]
            (loser,) = [one for one in two if one is not winner]
            assert progress(loser) == progress(winner)[: len(progress(loser))]
            assert len(progress(loser)) <= 5 - round, "what came later went to the other alone"


async def _any_done(calls: list[HTTPCall]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not any(call.returned for call in calls):
            await asyncio.sleep(0.005)


@asynccontextmanager
async def moving(here: Member) -> AsyncIterator[asyncio.Task[None]]:
    """The node hands its sessions off. Whatever happens in the block, the tools go on at its end."""
    async with TaskOwner() as tasks:
        cluster = here.runtime.cluster
        assert cluster is not None
        task = tasks.spawn(cluster.drain())
        try:
            await asyncio.sleep(0)
            yield task
        finally:
            here.stage.go_on.set()


@pytest.mark.parametrize("tool", ["report", "report_reading"])
async def test_a_stream_that_is_resumed_while_its_session_moves_goes_on(nats_url: str, tool: str) -> None:
    async with two_nodes(nats_url) as (here, there, client):
        call = await streaming(there, here, client, tool=tool)
        call.disconnect()
        async with moving(here) as moved:
            again = there.same(client).start("GET", headers={"last-event-id": call.events[2].id})
            await again.until(lambda: again.status and len(progress(again)) >= 3)
            assert again.status == 200, again.body
            again.disconnect()
            await again.done()
            last = again.events[-1].id
            once_more = await here.same(client).start("GET", headers={"last-event-id": last}).started()
            assert once_more.status == 200, once_more.body
            here.stage.go_on.set()
            assert (await once_more.answered()).value == "reported"
            assert progress(again) + progress(once_more) == [float(n) for n in range(3, 11)]
            await moved
        assert not here.owns(client.session)
        # And all of it again, from the log, at the new owner.
        from_log = await there.same(client).send("GET", headers={"last-event-id": call.events[0].id})
        assert progress(from_log) == [float(n) for n in range(1, 11)]
        assert from_log.value == "reported"
        assert (here.stage.runs, there.stage.runs) == (1, 0)


async def test_a_question_that_is_read_while_its_session_moves_can_be_answered(nats_url: str) -> None:
    """Otherwise the move waits for a tool that waits for a client that waits for the move."""
    async with two_nodes(nats_url) as (here, there, client):
        call = await there.same(client).begin_tool("ask_name").started()
        await call.message("elicitation/create")
        call.disconnect()
        await call.done()
        async with moving(here) as moved:
            again = there.same(client).start("GET", headers={"last-event-id": call.events[0].id})
            question = (await again.message("elicitation/create"))["id"]
            await there.same(client).respond(question, {"action": "accept", "content": {"name": "Ada"}})
            assert (await again.answered()).value == "Ada"
            await asyncio.wait_for(asyncio.shield(moved), PATIENCE)
        assert await here.same(client).tool("increment") == 1
        assert not here.owns(client.session)


async def test_whoever_comes_back_after_the_session_has_ended_finds_nothing(nats_url: str) -> None:
    async with two_nodes(nats_url) as (here, there, client):
        call = await streaming(there, here, client)
        here.stage.go_on.set()
        await call.answered()
        assert (await there.same(client).send("DELETE")).status == 200
        for event in call.events:
            for at in (here, there):
                assert (await at.same(client).send("GET", headers={"last-event-id": event.id})).status == 404


def _address(client: Client) -> Address:
    return Address("session", client.session or "")
