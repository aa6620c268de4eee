"""`ClusterRouter`: one answer for each request, whatever its legs and the nodes behind the link do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from understudy.actors import Elsewhere, RegistryFull
from understudy.actors.session import ANONYMOUS
from understudy.actors.session.wire import NOT_FOUND, SERVER_BUSY, Refusal
from understudy.actors.task_owner import TaskOwner
from understudy.actors.testing import ManualClock
from understudy.runtime.cluster.client_watch import ClientWatch
from understudy.runtime.cluster.counts import Counts
from understudy.runtime.cluster.directory import MemoryDirectory
from understudy.runtime.cluster.entry import Entry
from understudy.runtime.cluster.holdings import Holdings
from understudy.runtime.cluster.keep_alive import KeepAlive
from understudy.runtime.cluster.ownership import Ownership
from understudy.runtime.cluster.peers import NodeNews
from understudy.runtime.cluster.router import ClusterRouter
from understudy.runtime.link import CallFailed, CallHead, NotRun
from understudy.runtime.telemetry.metrics import Latency
from understudy.runtime.wire.http import SSE_HEADERS, answer
from understudy.runtime.wire.inbound import Inbound
from understudy.runtime.wire.refusals import Refused
from understudy.runtime.wire.routing import NoRoom
from understudy.stores import Address, MemoryStore

A = Address("session", "a" * 32)
READ = b'{"jsonrpc":"2.0","id":7,"method":"tools/list"}'
WRITE = b'{"jsonrpc":"2.0","id":7,"method":"resources/subscribe","params":{"uri":"x://y"}}'
ANSWER = b'{"jsonrpc":"2.0","id":7,"result":{}}'
FULL = NoRoom(A, RegistryFull("full", A, retry_after=1.0), Refusal(SERVER_BUSY, "full", status=503), 7)

Does = Callable[[Inbound], Awaitable[None]]


class Wire:
    """The client's end of one request."""

    def __init__(self, body: bytes) -> None:
        self.starts = 0
        self.body = b""
        self.over = False
        self.inbound = Inbound(
            {"type": "http", "method": "POST", "path": "/mcp", "headers": []},
            {},
            ANONYMOUS,
            self.receive,
            self.send,
            body,
        )

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def send(self, message: Any) -> None:
        assert not self.over, "something after the end"
        if message["type"] == "http.response.start":
            self.starts += 1
        else:
            self.body += message["body"]
            self.over = not message.get("more_body", False)

    @property
    def last(self) -> Any:
        """The last message of the stream."""
        return json.loads(self.body.decode().strip().rpartition("data: ")[2])


class Call:
    """What the link gives to whom it serves, as far as the router uses it."""

    def __init__(self, body: bytes) -> None:
        self.head = CallHead("POST", "/mcp", address=A)
        self.channel = SimpleNamespace(answered=False, held=False)
        self.over = False
        self.ends: list[str] = []
        self._body: bytes | None = body

    async def receive(self) -> Any:
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not self.channel.answered, "a second start"
            self.channel.answered = True
        elif not message.get("more_body", False):
            self.ends.append("answered")

    def refuse(self, reason: str, data: Any = None) -> None:
        assert not self.channel.answered, "refused after its start"
        self.ends.append(f"refused: {reason}")

    def give_up(self, reason: str) -> None:
        self.ends.append(f"given up: {reason}")


class Actors:
    """The registry: whether the session is in memory at first."""

    lives = True

    def live(self, address: Address) -> object | None:
        return self if self.lives else None

    def __contains__(self, address: Address) -> bool:
        return False


class House:
    """A router whose link and legs do what a test says."""

    def __init__(self, tasks: TaskOwner) -> None:
        self.clock = ManualClock()
        self.ownership = Ownership("n.1", lease=3600.0)
        self.ownership.begin("n.1", self.clock.monotonic())
        self.ownership.heard(NodeNews("m.1", 3600.0, capacity=5), self.clock.monotonic())
        self.directory = MemoryDirectory()
        self.actors = Actors()
        self.legs: list[Does | Exception] = []
        self.links: list[Does | Exception] = []
        self.runs = self.forwards = 0
        holdings = Holdings(self.ownership, self.directory, self.clock, tasks, in_use=lambda _: False)
        self.router = ClusterRouter(
            self.ownership,
            self.directory,
            holdings,
            store=MemoryStore(),
            servers=cast("Any", None),
            clock=self.clock,
            keep_alive=KeepAlive(tasks),
            client_watch=ClientWatch(tasks),
            counts=Counts(),
            failover=Latency(),
            patience=10.0,
        )
        self.router.registry = cast("Any", self.actors)
        self.router.link = cast("Any", self)
        self.router.serve_here = self.run

    async def run(self, inbound: Inbound) -> None:
        """The leg here."""
        self.runs += 1
        await _do(self.legs.pop(0), inbound)

    async def forward(self, peer: str, head: CallHead, body: bytes, send: Any) -> None:
        """The link."""
        self.forwards += 1
        await _do(self.links.pop(0), Inbound({}, {}, ANONYMOUS, cast("Any", None), send, body))

    async def ask(self, body: bytes) -> Wire:
        wire = Wire(body)
        await self.router.route(wire.inbound, A, self.run)
        return wire

    async def owned_by(self, incarnation: str) -> None:
        revision = await self.directory.write(A, Entry(incarnation, 1, 0))
        if incarnation == "n.1":
            assert self.ownership.taken(A, Entry("n.1", 1, revision))


async def _do(what: Does | Exception, inbound: Inbound) -> None:
    if isinstance(what, Exception):
        raise what
    await what(inbound)


async def stream(inbound: Inbound) -> None:
    await inbound.send({"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)})
    await inbound.send({"type": "http.response.body", "body": b"id: 1-0\ndata: \n\n", "more_body": True})


async def stream_and_move(inbound: Inbound) -> None:
    """It waited for its turn, and the session has left."""
    await stream(inbound)
    raise Elsewhere(A)


async def answered(inbound: Inbound) -> None:
    await answer(inbound.send, 200, ANSWER)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with TaskOwner() as tasks:
        yield House(tasks)


@pytest.mark.parametrize(
    ("then", "code", "text"),
    [
        (Refused(NOT_FOUND, 7), NOT_FOUND.code, NOT_FOUND.message),
        (Elsewhere(A), SERVER_BUSY, "The session is not available now; nothing was changed"),
    ],
    ids=["it is gone", "it cannot be run"],
)
async def test_a_stream_that_was_opened_ends_with_the_refusal(
    house: House, then: Exception, code: int, text: str
) -> None:
    house.legs = [stream_and_move, then]
    wire = await house.ask(READ)
    assert (wire.starts, wire.over) == (1, True)
    assert wire.last == {"jsonrpc": "2.0", "id": 7, "error": {"code": code, "message": text}}


async def test_a_body_too_large_for_the_link_ends_a_stream_that_was_opened(house: House) -> None:
    await house.owned_by("m.1")
    house.legs, house.links = [stream_and_move], [NotRun("m.1", "too_large", {})]
    wire = await house.ask(READ)
    assert (wire.starts, wire.over) == (1, True)
    assert wire.last["error"]["message"] == "Request body too large"


async def test_a_session_that_falls_asleep_at_a_full_node_is_asked_for_elsewhere(house: House) -> None:
    await house.owned_by("m.1")
    house.legs, house.links = [FULL], [answered]
    wire = await house.ask(READ)
    assert wire.body == ANSWER


async def test_a_client_that_reads_nothing_is_given_up_quietly(house: House) -> None:
    async def stall(inbound: Inbound) -> None:
        await stream(inbound)
        raise TimeoutError

    await house.owned_by("m.1")
    house.actors.lives = False
    house.links = [stall]
    wire = await house.ask(READ)
    assert (wire.starts, wire.over) == (1, False)


async def test_what_fails_at_its_owner_is_not_asked_again_and_again(house: House) -> None:
    await house.owned_by("m.1")
    house.actors.lives = False
    house.links = [CallFailed("m.1", "error")]
    with pytest.raises(Refused) as refused:
        await house.ask(READ)
    assert (refused.value.refusal.status, refused.value.request_id, house.forwards) == (500, 7, 1)


async def test_what_fails_at_its_owner_and_may_have_run_is_in_doubt(house: House) -> None:
    await house.owned_by("m.1")
    house.actors.lives = False
    house.links = [CallFailed("m.1", "error")]
    wire = await house.ask(WRITE)
    assert json.loads(wire.body)["error"]["data"] == {"outcome": "unknown"}
    assert house.forwards == 1


@pytest.mark.parametrize("live", [True, False])
async def test_an_owner_does_not_run_what_it_could_not_answer(house: House, live: bool) -> None:
    """The head of the stream has crossed the link: a second run here would have to send another."""
    await house.owned_by("n.1")
    house.actors.lives = live
    house.legs = [stream_and_move, answered]
    call = Call(READ)
    await house.router.serve(cast("Any", call))
    assert (call.ends, house.runs) == (["given up: elsewhere"], 1)


async def test_an_owner_that_finds_a_record_after_all_gives_the_request_back(house: House) -> None:
    house.actors.lives = False
    house.legs = [Elsewhere(A)]
    call = Call(READ)
    await house.router.serve(cast("Any", call))
    assert call.ends == ["refused: elsewhere"]
