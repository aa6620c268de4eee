"""Streams outlive their nodes: what was sent is there, and a call whose node died ends in one clear error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import LATEST, Client
from edge.heirs import Heirs, address_of, goes_to, heirs, stream_of
from edge.server import Stage, make_server
from edge.test_resumption import numbers
from edge.test_streams import progress, streaming
from support.patience import PATIENCE
from understudy.runtime.streams import resumption
from understudy.runtime.wire.routing import Placement
from understudy.stores import EventLogBounds, MemoryStore


async def resume(client: Client, event: Any) -> HTTPCall:
    return await client.send("GET", headers={"last-event-id": event if isinstance(event, str) else event.id})


async def opened(nodes: Heirs, stage: Stage, **options: Any) -> Client:
    client = await nodes.node(make_server(stage), **options)
    await client.open()
    return client


@pytest.mark.parametrize("seen", [0, 1, 3, 5])
async def test_a_finished_stream_is_replayed_at_a_node_that_never_saw_it(seen: int) -> None:
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=5, after=2)
        call.disconnect()
        await call.done()
        stage.go_on.set()
        await client.ask("ping")
        heir = goes_to(client, await nodes.node(make_server()))
        again = await resume(heir, call.events[seen])
        assert numbers(again.events) == [float(n) for n in range(seen + 1, 8)]
        assert again.value == "reported"
        assert [event.id for event in again.events] == [f"{stream_of(call.events[0])}-{n}" for n in range(seen, 9)]
        assert stage.runs == 1


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", LATEST])
async def test_a_call_whose_node_died_ends_in_one_error_after_what_was_sent(revision: str) -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server(stage := Stage()))
        await client.open(revision)
        call = await streaming(client, stage, before=4, after=3)
        heir = goes_to(client, await nodes.node(make_server(later := Stage())))
        first = next(event for event in call.events if event.data)
        for _ in range(2):
            again = await resume(heir, first)
            assert numbers(again.events) == [2, 3, 4]
            assert again.failure["data"] == {"outcome": "unknown"}
            assert "look before you repeat it" in again.failure["message"]
            assert again.reply["id"] == 2
        assert later.runs == 0, "never-run-twice"
        assert await heir.tool("increment") == 1, "the session lives on"
        assert heir.runtime.stats()["streams_sealed_total"] == 1


async def test_a_call_that_had_sent_nothing_can_be_come_back_to_as_well() -> None:
    async with heirs() as nodes:
        client = await opened(nodes, Stage())
        call = await client.begin_tool("hold").started()
        primed = await call.event(0)
        heir = goes_to(client, await nodes.node(make_server()))
        again = await resume(heir, primed)
        assert again.failure["data"] == {"outcome": "unknown"}
        assert again.events[0].id == primed.id


async def test_an_open_question_is_withdrawn() -> None:
    async with heirs() as nodes:
        client = await opened(nodes, Stage())
        call = client.begin_tool("ask_name")
        question = await call.message("elicitation/create")
        heir = goes_to(client, await nodes.node(make_server()))
        again = await resume(heir, call.events[-1])
        withdrawn, error = again.messages
        assert withdrawn["method"] == "notifications/cancelled"
        assert withdrawn["params"]["requestId"] == question["id"]
        assert error["error"]["data"] == {"outcome": "unknown"}
        # An answer to it finds nobody, and harms nobody.
        assert (await heir.respond(question["id"], {"action": "decline"})).status == 202


async def test_who_has_the_end_of_a_stream_that_was_sealed_gets_it_again() -> None:
    """An event of that number may have left, while the log was out of reach, that was no end."""
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=2)
        heir = goes_to(client, await nodes.node(make_server()))
        end = (await resume(heir, call.events[0])).events[-1]
        again = await resume(heir, end)
        assert again.failure["data"] == {"outcome": "unknown"}
        assert again.events[-1].id == end.id


async def test_a_node_that_was_taken_for_dead_sends_no_more_of_a_stream_that_is_sealed() -> None:
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=2, after=5)
        heir = goes_to(client, await nodes.node(make_server()))
        await resume(heir, call.events[0])
        stage.go_on.set()
        await call.done()
        assert progress(call) == [1, 2]
        assert [message for message in call.messages if "method" not in message] == []
        assert client.runtime.stats()["streams_log_taken_total"] == 1
        logged = await nodes.logged(client, stream_of(call.events[0]))
        assert (logged.last, logged.ended) == (3, True)


# Followed


def alive(answers: list[bool]) -> Placement:
    """A node that takes every other for alive, until told otherwise."""
    return Placement(writer_alive=lambda _: answers[0])


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumption, "LOOK_EVERY", 0.01)


@pytest.mark.usefixtures("often")
async def test_a_stream_that_another_node_still_writes_is_followed_to_its_end() -> None:
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=2, after=3)
        heir = goes_to(client, await nodes.node(make_server(), placement=alive([True])))
        following = await heir.start("GET", headers={"last-event-id": call.events[1].id}).started()
        await following.until(lambda: progress(following) == [2])
        assert not following.complete
        stage.go_on.set()
        assert (await following.answered()).value == "reported"
        assert progress(following) == [2, 3, 4, 5]
        assert (await call.answered()).value == "reported"


@pytest.mark.usefixtures("often")
async def test_a_stream_that_is_followed_is_sealed_when_its_writer_dies() -> None:
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=2, after=3)
        living = [True]
        heir = goes_to(client, await nodes.node(make_server(), placement=alive(living)))
        following = await heir.start("GET", headers={"last-event-id": call.events[0].id}).started()
        await following.until(lambda: progress(following) == [1, 2])
        living[0] = False
        assert (await following.answered()).failure["data"] == {"outcome": "unknown"}
        assert progress(following) == [1, 2]


@pytest.mark.usefixtures("often")
async def test_the_newer_of_two_who_follow_one_stream_takes_over() -> None:
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=2, after=3)
        heir = goes_to(client, await nodes.node(make_server(), placement=alive([True])))
        resuming = {"last-event-id": call.events[0].id}
        older = await heir.start("GET", headers=resuming).started()
        await older.until(lambda: progress(older) == [1, 2])
        newer = await heir.start("GET", headers=resuming).started()
        await older.answered()
        stage.go_on.set()
        assert (await newer.answered()).value == "reported"
        assert progress(newer) == [1, 2, 3, 4, 5]
        assert progress(older) == [1, 2]


@pytest.mark.usefixtures("often")
async def test_a_follower_that_leaves_leaves_nothing() -> None:
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=2, after=0)
        heir = goes_to(client, await nodes.node(make_server(), placement=alive([True])))
        await heir.ask("ping")
        tasks = len(asyncio.all_tasks())
        following = await heir.start("GET", headers={"last-event-id": call.events[0].id}).started()
        await following.until(lambda: progress(following) == [1, 2])
        following.disconnect()
        await following.done()
        assert len(asyncio.all_tasks()) == tasks
        assert heir.runtime._node.resumable.resumption._replicas == {}


# What is refused


async def test_events_that_are_not_there_are_refused_at_every_node() -> None:
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=1, after=0)
        stage.go_on.set()
        await call.answered()
        other = client.twin()
        await other.open()
        heir = goes_to(client, await nodes.node(make_server()))
        foreign = goes_to(other, await nodes.node(make_server()))
        stream = stream_of(call.events[0])
        for at, odd in (
            (heir, f"{stream}-3"),
            (heir, f"{stream}x-0"),
            (heir, "standalone-0"),
            (heir, "../..-1"),
            (heir, f"{stream}-{2**53 + 1}"),
            (foreign, f"{stream}-0"),
        ):
            refused = await resume(at, odd)
            assert refused.status == 400, odd
            assert "unknown in this session, or no longer kept" in refused.json["error"]["message"]


async def test_an_expired_stream_is_refused() -> None:
    now = [1000.0]
    async with heirs(MemoryStore(clock=lambda: now[0])) as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=1, after=0)
        call.disconnect()
        await call.done()
        stage.go_on.set()
        await client.ask("ping")
        heir = goes_to(client, await nodes.node(make_server()))
        now[0] += EventLogBounds().max_age - 1
        assert (await resume(heir, call.events[0])).status == 200
        now[0] += 2
        assert (await resume(heir, call.events[0])).status == 400


async def test_what_memory_has_dropped_comes_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.actors.session.backlog.MAX_EVENTS", 4)
    monkeypatch.setattr("understudy.actors.session.exchange.HIGH_WATER", 2)
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=3, after=12)
        call.disconnect()
        await call.done()
        stage.go_on.set()
        await client.ask("ping")
        again = await resume(client, call.events[1])
        assert again.value == "reported"
        assert progress(again) == [float(n) for n in range(2, 16)]
        ids = [event.id for event in again.events[1:]]
        assert ids == [f"{stream_of(call.events[0])}-{n}" for n in range(2, 17)]


# What is logged, and for how long


async def test_what_needs_no_log_pays_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        monkeypatch.setattr(client.runtime.edge._handshake._posts._deferral, "_delay", 3600.0)
        await client.open()
        assert await client.tool("increment") == 1
        standing = await client.start("GET").started()
        standing.disconnect()
        await standing.done()
        assert nodes.log.stats()["appends_total"] == 0


async def test_the_log_can_be_switched_off() -> None:
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage(), event_log="off")
        call = await streaming(client, stage, before=3, after=0)
        again = await client.start("GET", headers={"last-event-id": call.events[1].id}).started()
        stage.go_on.set()
        assert (await again.answered()).value == "reported"
        assert nodes.log.stats()["appends_total"] == 0
        heir = goes_to(client, await nodes.node(make_server(), event_log="off"))
        assert (await resume(heir, call.events[1])).status == 400


async def test_the_end_of_a_session_takes_its_streams_along() -> None:
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=3, after=0)
        stream = stream_of(call.events[0])
        assert (await nodes.logged(client, stream)).last == 3
        assert (await client.send("DELETE")).status == 200
        async with asyncio.timeout(PATIENCE):
            while await nodes.logged(client, stream) is not None:
                await asyncio.sleep(0.01)
        assert (await resume(client, call.events[0])).status == 404


@pytest.mark.parametrize("arrived", [True, False])
async def test_only_what_has_arrived_leaves_the_log_before_its_age(arrived: bool) -> None:
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=3, after=0)
        if not arrived:
            call.disconnect()
            await call.done()
        stage.go_on.set()
        await (call.answered() if arrived else client.ask("ping"))
        streams: Any = client.runtime._node.resumable.table
        clock = streams._left._clock
        streams._left._clock = lambda: clock() + 61.0
        streams.sweep()
        assert streams.request(address_of(client), stream_of(call.events[0])) is None
        assert (await resume(client, call.events[0])).status == (400 if arrived else 200)
        await client.runtime._node.resumable.flush(5)
        logged = await nodes.logged(client, stream_of(call.events[0]))
        assert (logged is None) == arrived


async def test_a_stream_survives_the_passivation_of_its_session_and_then_its_node() -> None:
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        stage.go_on.set()
        call = await streaming(client, stage, before=2, after=0)
        await call.answered()
        heir = goes_to(client, await nodes.node(make_server()))
        await heir.ask("ping")
        assert (await resume(heir, call.events[0])).value == "reported"


@pytest.mark.parametrize("id", ["x" * 100_000, 2**70, "\udc80"])
async def test_a_request_whose_id_no_log_can_keep_is_served_from_memory(id: Any) -> None:
    async with heirs() as nodes:
        client = await opened(nodes, stage := Stage())
        stage.go_on.set()
        call = await client.begin_tool("report", {"before": 2, "after": 0}, token="t", id=id).answered()
        if call.status == 400:
            return
        assert (await resume(client, call.events[0])).value == "reported"
        heir = goes_to(client, await nodes.node(make_server()))
        assert (await resume(heir, call.events[0])).status == 400
