"""A client's stream goes on though its owner does not: the router, with nodes and legs that do what a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster.test_router import ANSWER, READ, WRITE, A, Does, House, answered
from support.patience import PATIENCE
from understudy.actors import Elsewhere
from understudy.actors.session import ANONYMOUS
from understudy.actors.session.wire import INVALID_REQUEST, SERVER_BUSY, Refusal
from understudy.actors.task_owner import TaskOwner
from understudy.actors.testing import settle
from understudy.runtime.cluster.keep_alive import KeepAlive
from understudy.runtime.cluster.whole_events import HOLD
from understudy.runtime.link import CallFailed, NotRun, PeerGone
from understudy.runtime.wire.http import JSON_TYPE, SSE_HEADERS, answer
from understudy.runtime.wire.inbound import Inbound
from understudy.runtime.wire.refusals import Refused

UNKNOWN_EVENT = Refusal(INVALID_REQUEST, "no such event", status=400)
GONE = PeerGone("m.1", "it was killed", maybe_ran=True)
ENDS = "ends"
"""Written as the last part of a stream that is complete."""


class Client:
    """One request over HTTP, and what has come of it."""

    def __init__(self, method: str = "POST", body: bytes = WRITE, last_id: bytes | None = None) -> None:
        self.starts = 0
        self.body = b""
        self.over = False
        self.gone = asyncio.Event()
        lines = [(b"mcp-session-id", A.id.encode()), (b"mcp-protocol-version", b"2025-11-25")]
        lines += [(b"content-type", b"application/json")] if method == "POST" else []
        lines += [(b"last-event-id", last_id)] if last_id is not None else []
        scope = {"type": "http", "method": method, "path": "/mcp", "headers": lines}
        self.inbound = Inbound(
            scope, dict(lines), ANONYMOUS, self.receive, self.send, body if method == "POST" else b""
        )

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        assert not self.over, "something after the end"
        if message["type"] == "http.response.start":
            self.starts += 1
        else:
            self.body += message["body"]
            self.over = not message.get("more_body", False)

    @property
    def blocks(self) -> list[bytes]:
        return [block for block in self.body.split(b"\n\n") if block]

    @property
    def ids(self) -> list[str]:
        """Of the events with data."""
        return [b.split(b"\n")[0][4:].decode() for b in self.blocks if b.startswith(b"id: ") and b"data: {" in b]

    @property
    def last(self) -> Any:
        return json.loads(self.blocks[-1].rpartition(b"data: ")[2])

    @property
    def comments(self) -> int:
        return sum(block.startswith(b":") for block in self.blocks)


def message(number: int, stream: str = "s.1") -> bytes:
    return f'id: {stream}-{number}\nevent: message\ndata: {{"number":{number}}}\n\n'.encode()


def priming(number: int = 0, stream: str = "s.1") -> bytes:
    return f"id: {stream}-{number}\nretry: 500\ndata: \n\n".encode()


class Script:
    """What was asked of the nodes, and what they do about it."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.asked: list[tuple[str, str | None]] = []
        """The method of each request that somebody got, and its `Last-Event-ID`."""

    def writes(self, *parts: bytes | str, then: Exception | None = None) -> Does:
        """Streams `parts`; then fails, or ends, or goes on without another word."""

        async def stream(inbound: Inbound) -> None:
            self.heard(inbound)
            await inbound.send({"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)})
            for part in parts:
                if isinstance(part, str):
                    await inbound.send({"type": "http.response.body", "body": b"", "more_body": False})
                    return
                await inbound.send({"type": "http.response.body", "body": part, "more_body": True})
            if then is None:
                await asyncio.Event().wait()
            else:
                raise then

        return stream

    def says(self, refusal: Refusal) -> Does:
        """Answers with a status and a body, as over the link."""

        async def refuse(inbound: Inbound) -> None:
            self.heard(inbound)
            await answer(inbound.send, refusal.status, ANSWER, headers=(JSON_TYPE,))

        return refuse

    def raises(self, error: Exception) -> Does:
        async def fail(inbound: Inbound) -> None:
            self.heard(inbound)
            raise error

        return fail

    def heard(self, inbound: Inbound) -> None:
        if inbound.scope:
            headers = dict(inbound.scope["headers"])
            assert inbound.headers == headers, "both say the same"
            assert (inbound.scope["method"] == "POST") == (inbound.body != b"") == (b"content-type" in headers)
        else:
            headers = {}
        last_id = headers.get(b"last-event-id")
        self.asked.append((inbound.scope.get("method", ""), last_id.decode() if last_id is not None else None))


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with TaskOwner() as tasks:
        house = House(tasks)
        house.actors.lives = False
        yield house


@pytest.fixture
async def script(house: House) -> Script:
    """The session is m.1's."""
    await house.owned_by("m.1")
    script = Script(house)

    async def forward(peer: str, head: Any, body: bytes, send: Any) -> None:
        house.forwards += 1
        does = house.links.pop(0)
        if isinstance(does, Exception):
            raise does
        scope = {"method": head.method, "headers": head.headers}
        await does(Inbound(scope, dict(head.headers), ANONYMOUS, None, send, body))  # type: ignore[arg-type]

    async def strike(_: str) -> None:
        pass

    house.forward = forward  # type: ignore[method-assign]
    house.router.strike = strike
    return script


async def led(house: House, client: Client) -> Client:
    await house.router.route(client.inbound, A, house.run)
    return client


async def test_the_next_owner_is_asked_for_the_rest(house: House, script: Script) -> None:
    house.links = [script.writes(priming(), message(1) + message(2), message(3)[:-9], then=GONE)]
    house.legs = [script.writes(priming(2), message(3), message(4), ENDS)]
    client = await led(house, Client())
    assert script.asked == [("POST", None), ("GET", "s.1-2")]
    assert client.ids == ["s.1-1", "s.1-2", "s.1-3", "s.1-4"]
    assert (client.starts, client.over) == (1, True)
    assert house.router._counts.streams_reattached == house.router._counts.failovers == 1


async def test_each_resumption_begins_where_the_last_one_ended(house: House, script: Script) -> None:
    house.links = [script.writes(priming(), message(1), then=CallFailed("m.1", "closing"))]
    house.links += [script.writes(priming(1), message(2), then=CallFailed("m.1", "elsewhere"))]
    house.links += [script.writes(priming(2), message(3), ENDS)]
    async with TaskOwner() as tasks:
        leading = tasks.spawn(led(house, Client()))
        while not leading.done():
            await house.clock.advance(0.05)
        client = leading.result()
    assert script.asked == [("POST", None), ("GET", "s.1-1"), ("GET", "s.1-2")]
    assert client.ids == ["s.1-1", "s.1-2", "s.1-3"]
    assert house.router._counts.streams_reattached == 2


@pytest.mark.parametrize("where", ["here", "there"])
async def test_a_call_whose_stream_nobody_knows_is_in_doubt(house: House, script: Script, where: str) -> None:
    broken = script.writes(priming(), message(1), then=GONE if where == "here" else CallFailed("m.1", "closing"))
    house.links, house.legs = [broken], [script.raises(Refused(UNKNOWN_EVENT))]
    if where == "there":
        house.links.append(script.says(UNKNOWN_EVENT))
    async with TaskOwner() as tasks:
        leading = tasks.spawn(led(house, Client()))
        while not leading.done():
            await house.clock.advance(0.05)
        client = leading.result()
    assert script.asked[1:] == [("GET", "s.1-1")]
    assert (client.last["id"], client.last["error"]["data"]) == (7, {"outcome": "unknown"})
    assert (client.starts, client.over) == (1, True)
    assert house.router._counts.streams_reattached == 0


async def test_half_a_large_event_has_the_client_resume_by_itself(house: House, script: Script) -> None:
    large = message(2)[:-4] + b"x" * HOLD
    house.links = [script.writes(priming(), message(1), large, then=GONE)]
    house.legs = [script.writes(priming(1), message(2), ENDS)]
    client = await led(house, Client())
    assert not client.over, "the connection is closed in the middle, and the half event is discarded"
    assert client.ids[0] == "s.1-1"


async def test_an_owner_that_cannot_reach_its_store_is_asked_again(house: House, script: Script) -> None:
    busy = Refusal(SERVER_BUSY, "the store", status=503)
    house.links = [script.writes(priming(), message(1), then=GONE)]
    house.legs = [script.raises(Refused(busy)), script.raises(Refused(busy)), script.writes(message(2), ENDS)]
    async with TaskOwner() as tasks:
        leading = tasks.spawn(led(house, Client()))
        while not leading.done():
            await house.clock.advance(0.05)
        client = leading.result()
    assert client.ids == ["s.1-1", "s.1-2"]
    assert script.asked[1:] == [("GET", "s.1-1")] * 3


async def test_one_that_never_can_ends_the_call_in_doubt(house: House, script: Script) -> None:
    busy = Refusal(SERVER_BUSY, "the store", status=503)
    house.links = [script.writes(priming(), message(1), then=GONE)]
    house.legs = [script.raises(Refused(busy))] * 1000
    began = house.clock.monotonic()
    async with TaskOwner() as tasks:
        leading = tasks.spawn(led(house, Client()))
        while not leading.done():
            await house.clock.advance(0.05)
        client = leading.result()
    assert client.last["error"]["data"] == {"outcome": "unknown"}
    assert 9 < house.clock.monotonic() - began < 12


async def test_a_reading_call_that_has_shown_nothing_yet_runs_again(house: House, script: Script) -> None:
    """never-run-twice allows it, and an answer is better than none."""
    house.links, house.legs = [script.writes(priming(), then=GONE)], [answered]
    client = await led(house, Client(body=READ))
    assert script.asked == [("POST", None)]
    assert client.last["result"] == {}
    assert house.router._counts.streams_reattached == 0


async def test_one_that_has_shown_something_goes_on_with_that(house: House, script: Script) -> None:
    """Each number exactly once."""
    house.links, house.legs = [script.writes(priming(), message(1), then=GONE)], [script.writes(message(2), ENDS)]
    client = await led(house, Client(body=READ))
    assert script.asked == [("POST", None), ("GET", "s.1-1")]
    assert client.ids == ["s.1-1", "s.1-2"]


async def test_and_is_in_doubt_if_nothing_of_it_is_known(house: House, script: Script) -> None:
    """Run again it would say again what the client has heard."""
    house.links = [script.writes(priming(), message(1), then=GONE)]
    house.legs = [script.raises(Refused(UNKNOWN_EVENT))]
    client = await led(house, Client(body=READ))
    assert script.asked == [("POST", None), ("GET", "s.1-1")]
    assert client.ids == ["s.1-1"]
    assert client.last["error"]["data"] == {"outcome": "unknown"}
    assert (client.starts, client.over) == (1, True)


async def test_a_call_that_has_not_run_is_sent_on_and_resumed_by_its_new_name(house: House, script: Script) -> None:
    """It waited at m.1 for its turn when the session left; then its next owner dies with it."""
    house.links = [script.writes(priming(), then=CallFailed("m.1", "elsewhere"))]
    house.links += [script.writes(priming(0, "t.1"), message(1, "t.1"), then=GONE)]
    house.legs = [script.writes(message(2, "t.1"), ENDS)]
    client = await led(house, Client())
    assert script.asked == [("POST", None), ("POST", None), ("GET", "t.1-1")]
    assert client.ids == ["t.1-1", "t.1-2"]


async def test_what_an_owner_gave_away_is_not_looked_for_under_its_old_name(house: House, script: Script) -> None:
    house.links = [script.writes(priming(), then=CallFailed("m.1", "elsewhere")), GONE]
    client = await led(house, Client())
    assert script.asked == [("POST", None)]
    assert client.last["error"]["data"] == {"outcome": "unknown"}


# Streams that belong to no request


async def test_a_stream_that_only_listens_goes_on_where_the_session_is(house: House, script: Script) -> None:
    house.links = [script.writes(priming(5, "x.y"), message(6, "x.y"), then=CallFailed("m.1", "elsewhere"))]
    house.links += [script.writes(priming(6, "x.y"), then=GONE)]
    house.legs = [script.writes(priming(6, "x.y"), message(7, "x.y"), ENDS)]
    client = await led(house, Client("GET"))
    assert script.asked == [("GET", None), ("GET", "x.y-6"), ("GET", "x.y-6")]
    assert client.ids == ["x.y-6", "x.y-7"]


async def test_a_stream_held_at_the_owner_goes_on_elsewhere_after_what_was_sent(house: House, script: Script) -> None:
    house.actors.lives = True
    house.legs = [script.writes(priming(0, "x.y"), message(1, "x.y"), then=Elsewhere(A))]
    house.links = [script.writes(message(2, "x.y"), ENDS)]
    client = await led(house, Client("GET"))
    assert script.asked == [("GET", None), ("GET", "x.y-1")]
    assert client.ids == ["x.y-1", "x.y-2"]


async def test_one_that_is_refused_is_opened_anew_once(house: House, script: Script) -> None:
    house.links = [script.writes(priming(5, "x.y"), then=GONE)]
    house.legs = [script.raises(Refused(UNKNOWN_EVENT))] * 2
    client = await led(house, Client("GET"))
    assert script.asked == [("GET", None), ("GET", "x.y-5"), ("GET", None)]
    assert (client.starts, client.over, client.ids) == (1, True, [])


async def test_one_that_the_client_had_resumed_ends_and_is_told_when_it_asks_again(
    house: House, script: Script
) -> None:
    house.links = [script.writes(priming(5), message(6), then=GONE)]
    house.legs = [script.raises(Refused(UNKNOWN_EVENT))]
    client = await led(house, Client("GET", last_id=b"s.1-5"))
    assert script.asked == [("GET", "s.1-5"), ("GET", "s.1-6")]
    assert (client.over, client.ids) == (True, ["s.1-6"])


async def test_one_of_which_nothing_came_is_asked_for_as_the_client_did(house: House, script: Script) -> None:
    house.links, house.legs = [script.writes(then=GONE)], [script.writes(message(6), ENDS)]
    client = await led(house, Client("GET", last_id=b"s.1-5"))
    assert script.asked == [("GET", "s.1-5")] * 2
    assert client.ids == ["s.1-6"]


# Time, and who else is there


async def test_a_stream_that_has_lasted_has_all_the_time_to_be_found_again(house: House, script: Script) -> None:
    class Broken(Exception):
        pass

    def lasting(*parts: bytes) -> Does:
        writing = script.writes(*parts, then=Broken())

        async def breaks_after_a_while(inbound: Inbound) -> None:
            try:
                await writing(inbound)
            except Broken:
                await house.clock.sleep(100.0)
                raise CallFailed("m.1", "closing") from None

        return breaks_after_a_while

    searched = [NotRun("m.1", "busy", {})] * 20
    house.links = [lasting(priming(), message(1)), *searched, lasting(message(2)), *searched]
    house.links += [script.writes(message(3), ENDS)]
    async with TaskOwner() as tasks:
        leading = tasks.spawn(led(house, Client()))
        while not leading.done():
            await house.clock.advance(1.0)
        client = leading.result()
    assert client.ids == ["s.1-1", "s.1-2", "s.1-3"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_stream_that_every_owner_only_opens_comes_to_an_end(house: House, script: Script, method: str) -> None:
    opens = script.writes(priming(), message(1), then=CallFailed("m.1", "closing"))
    opens_again = script.writes(priming(1), then=CallFailed("m.1", "closing"))
    house.links = [opens, *[opens_again] * 1000]
    async with TaskOwner() as tasks:
        leading = tasks.spawn(led(house, Client(method)))
        while not leading.done():
            await house.clock.advance(0.05)
        client = leading.result()
    assert client.over
    assert len(script.asked) < 100
    assert method == "GET" or client.last["error"]["data"] == {"outcome": "unknown"}


async def test_a_client_that_leaves_is_not_searched_for(house: House, script: Script) -> None:
    """Its stream, which it may have resumed elsewhere by now, is not taken from it."""
    house.links = [script.writes(priming(), message(1), then=CallFailed("m.1", "closing"))]
    client = Client()
    async with TaskOwner() as tasks:
        leading = tasks.spawn(led(house, client))
        while len(script.asked) < 1:
            await settle()
        client.gone.set()
        async with asyncio.timeout(PATIENCE):
            await leading
    await house.clock.advance(5.0)
    assert (script.asked, client.over) == ([("POST", None)], False)


async def test_a_stream_that_somebody_else_reads_now_is_not_taken_back(house: House, script: Script) -> None:
    """The owner ends it as it ends any stream: the client resumed it at another node."""
    house.links = [script.writes(priming(), message(1), ENDS)]
    client = await led(house, Client())
    assert (client.over, script.asked) == (True, [("POST", None)])


async def test_comments_go_on_while_an_owner_is_looked_for(house: House, script: Script) -> None:
    async with TaskOwner() as tasks:
        keep_alive = KeepAlive(tasks, every=0.02)
        router = house.router
        router._keep_alive = router._forwarding._keep_alive = router._reattachment._keep_alive = keep_alive
        house.links = [script.writes(priming(), then=CallFailed("m.1", "closing"))]
        house.links += [script.writes(message(1), ENDS)]
        client = Client()
        leading = tasks.spawn(led(house, client))
        async with asyncio.timeout(PATIENCE):
            while client.comments < 3:
                await asyncio.sleep(0.005)
        await house.clock.advance(5.0)
        await leading
        body = client.body
        await asyncio.sleep(0.1)
        assert (client.ids, client.body) == (["s.1-1"], body)


async def test_a_resumption_that_would_only_fail_again_leaves_the_call_in_doubt(house: House, script: Script) -> None:
    house.links = [script.writes(priming(), message(1), then=CallFailed("m.1", "error"))]
    house.links += [script.raises(CallFailed("m.1", "error"))]
    async with TaskOwner() as tasks:
        leading = tasks.spawn(led(house, Client()))
        while not leading.done():
            await house.clock.advance(0.05)
        client = leading.result()
    assert len(script.asked) == 2
    assert client.last["error"]["data"] == {"outcome": "unknown"}


async def test_a_client_that_the_owner_has_given_up_on_is_not_served_on(house: House, script: Script) -> None:
    """It reads too slowly: it loses the connection and not its events, which it asks for when it can take them."""
    house.links = [script.writes(priming(), message(1), then=CallFailed("m.1", "incomplete"))]
    client = await led(house, Client())
    assert (script.asked, client.ids, client.over) == ([("POST", None)], ["s.1-1"], False)
