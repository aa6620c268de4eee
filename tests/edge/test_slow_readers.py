"""bounded: clients that read slowly, or never, cost what the bounds say and hold nobody up for longer."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import hosting
from edge.heirs import goes_to, heirs
from edge.server import Stage, make_server
from edge.test_streams import progress, streaming
from support.patience import PATIENCE
from understudy.actors.session import backlog
from understudy.actors.session import exchange as exchanges
from understudy.actors.session.exchange import Exchange
from understudy.actors.session.reading import PORTION
from understudy.runtime.commands.http_servers import HTTP_SERVERS

MANY = 20_000


@pytest.fixture
def quick_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "WRITER_PATIENCE", 0.05)


def open_exchanges(client: Any) -> list[Any]:
    return [
        stream
        for streams in client.runtime._node.resumable.table._sessions.values()
        for stream in streams.requests.values()
    ]


@pytest.mark.usefixtures("quick_patience")
async def test_a_tool_that_floods_a_client_that_never_reads_ends_within_bounds() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        stage.go_on.set()
        call = client.begin_tool("report", {"before": MANY, "after": 0}, token="t", reads=False)
        await call.started()
        async with asyncio.timeout(PATIENCE):
            while not stage.finished:
                assert all(len(one._events or ()) <= backlog.MAX_EVENTS for one in open_exchanges(client))
                await asyncio.sleep(0.005)
        await client.tool("increment")
        (stream,) = open_exchanges(client)
        assert stream.finished
        assert stream.last == MANY + 1
        assert len(stream._events) == backlog.MAX_EVENTS
        # What is kept can still be had: the result is the last of it.
        again = await client.send("GET", headers={"last-event-id": f"{stream.id}-{stream.oldest}"})
        assert again.value == "reported"
        assert progress(again)[-1] == MANY


@pytest.mark.usefixtures("quick_patience")
async def test_large_messages_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_BYTES", 20_000)
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        stage.go_on.set()
        call = client.begin_tool("report", {"before": 1000, "after": 0}, token="t" * 1000, reads=False)
        await call.started()
        async with asyncio.timeout(PATIENCE):
            while not stage.finished:
                assert all(one.size <= 20_000 for one in open_exchanges(client))
                await asyncio.sleep(0.005)


async def test_a_reader_that_lags_is_waited_for_and_misses_nothing() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        stage.go_on.set()
        call = client.begin_tool("report", {"before": MANY, "after": 0}, token="t")
        await call.answered()
        assert progress(call) == [float(n) for n in range(1, MANY + 1)]
        assert call.value == "reported"


@pytest.mark.usefixtures("quick_patience")
async def test_a_client_that_never_reads_holds_up_nobody_else() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        stage.go_on.set()
        call = client.begin_tool("report", {"before": 2000, "after": 0}, token="t", reads=False)
        await call.started()
        other = client.twin()
        await other.open()
        assert await other.tool("increment") == 1
        assert (await client.ask("ping")).result == {}
        assert await client.tool("increment") == 1, "the session goes on too, when the flood is over"


async def test_a_standalone_stream_that_nobody_reads_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_EVENTS", 50)
    async with hosting(make_server()) as client:
        await client.open()
        standing = await client.start("GET", reads=False).started()
        for _ in range(200):
            await client.tool("announce")
        (streams,) = client.runtime._node.resumable.table._sessions.values()
        assert len(streams.standalone._events) == 50
        assert not standing.returned


@pytest.mark.parametrize("name", list(HTTP_SERVERS))
@pytest.mark.usefixtures("quick_patience")
async def test_a_connection_that_is_never_read_is_bounded_over_a_real_socket(name: str) -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        stage.go_on.set()
        sock, stop = socket.create_server(("127.0.0.1", 0)), asyncio.Event()
        port = sock.getsockname()[1]
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            tasks.create_task(HTTP_SERVERS[name](client.runtime.app, sock, None, stop))
            body = client.message(
                "tools/call",
                {
                    "name": "report",
                    "arguments": {"before": MANY, "after": 0},
                    "_meta": {"progressToken": "t" * 500},
                },
            )
            deaf = socket.create_connection(("127.0.0.1", port))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            head = (
                f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Accept: application/json, text/event-stream\r\nMcp-Session-Id: {client.session}\r\n"
                f"Mcp-Protocol-Version: {client.revision}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            deaf.sendall(head.encode() + body)
            while not stage.finished:
                assert all(one.size <= backlog.MAX_BYTES for one in open_exchanges(client))
                await asyncio.sleep(0.01)
            assert await client.tool("increment") == 1
            deaf.close()
            while any(one.attached for one in open_exchanges(client)):
                await asyncio.sleep(0.01)
            stop.set()


async def test_a_response_that_nobody_reads_does_not_stop_the_node() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        deaf: list[HTTPCall] = [await client.start("GET", reads=False).started()]
        deaf.append(await client.begin_tool("hold", reads=False).started())
        stage.go_on.set()
        await client.runtime.drain(5)
        assert client.runtime.stats()["sessions_live"] == 0
        assert stage.finished == 1
        assert not any(call.complete for call in deaf)


async def test_a_reader_takes_a_portion_at_a_time_so_that_one_that_does_not_read_holds_no_second_copy() -> None:
    exchange = Exchange(1, "tools/call")
    sent = [b"%06d" % number + b"x" * 10_000 for number in range(200)]
    for message in [*sent, b"y" * (2 * PORTION)]:
        exchange.pass_on(message)
    exchange.close()
    generation = exchange.attach(0)
    taken: list[bytes] = []
    while (portion := await exchange.next(generation)) is not None:
        assert sum(len(message) for _, message in portion[:-1]) < PORTION, "more only by its last message"
        assert [number for number, _ in portion] == list(range(len(taken) + 1, len(taken) + 1 + len(portion)))
        taken += [message for _, message in portion]
    assert taken == [*sent, b"y" * (2 * PORTION)]


async def test_who_is_replaced_while_it_does_not_read_keeps_nothing_of_the_stream() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server(stage := Stage()))
        await client.open()
        call = await streaming(client, stage, before=5)
        call.disconnect()
        await call.done()
        stage.go_on.set()
        await client.ask("ping")
        heir = goes_to(client, await nodes.node(make_server()))
        resumption: Any = heir.runtime._node.resumable.resumption  # type: ignore[union-attr]
        resuming = {"last-event-id": call.events[0].id}
        older = await heir.start("GET", headers=resuming, reads=False).started()
        (replica,) = resumption._replicas.values()
        assert replica.size > 0
        newer = await heir.send("GET", headers=resuming)
        assert newer.value == "reported"
        assert replica.size == 0
        assert not older.returned
        older.disconnect()
