"""A client that lost its connection comes back with `Last-Event-ID`: no gap, no double, and no cancellation."""

from __future__ import annotations

import pytest
from edge.call import Event
from edge.client import hosting, put_to_sleep
from edge.server import Stage, make_server
from edge.test_streams import progress, streaming
from understudy.stores import EventLogBounds, MemoryStore


def numbers(events: list[Event]) -> list[float]:
    return [event.message["params"]["progress"] for event in events if event.data and "params" in event.message]


@pytest.mark.parametrize("seen", [0, 1, 3, 5])
async def test_a_finished_stream_is_replayed_from_the_event_on(seen: int) -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = await streaming(client, stage, before=5, after=2)
        call.disconnect()
        await call.done()
        stage.go_on.set()
        await client.ask("ping")
        again = await client.send("GET", headers={"last-event-id": call.events[seen].id})
        assert numbers(again.events) == [float(n) for n in range(seen + 1, 8)]
        assert again.value == "reported"
        assert stage.runs == 1
        assert stage.cancelled == 0


async def test_a_running_stream_is_replayed_and_then_goes_on() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = await streaming(client, stage, before=4, after=3)
        call.disconnect()
        await call.done()
        again = await client.start("GET", headers={"last-event-id": call.events[2].id}).started()
        await again.until(lambda: progress(again) == [3, 4])
        stage.go_on.set()
        assert (await again.answered()).value == "reported"
        assert progress(again) == [3, 4, 5, 6, 7]
        assert [event.id for event in again.events[:1]] == [call.events[2].id], "primed where it stands"
        assert again.events[1].id == call.events[3].id


async def test_a_stream_may_be_resumed_again_and_again() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = await streaming(client, stage, before=30, after=0)
        call.disconnect()
        stage.go_on.set()
        await call.done()
        last = call.events[0].id
        seen: list[float] = []
        for size in (1, 7, 2, 11, 9):
            again = await client.start("GET", headers={"last-event-id": last}).started()
            await again.until(lambda again=again, size=size: len(numbers(again.events)) >= size)
            events = [event for event in again.events if event.data][:size]
            again.disconnect()
            await again.done()
            seen += numbers(events)
            last = events[-1].id
        assert seen == [float(n) for n in range(1, 31)]
        assert (await client.send("GET", headers={"last-event-id": last})).value == "reported"


async def test_nothing_of_another_stream_is_replayed() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        one = await streaming(client.same_session(), stage, before=2, after=0)
        other = client.begin_tool("watch", id="other")
        await other.started()
        await client.start("GET").started()
        stage.go_on.set()
        for call in (one, other):
            await call.answered()
        await client.tool("announce")
        again = await client.send("GET", headers={"last-event-id": other.events[0].id})
        assert [message["id"] for message in again.messages] == ["other"]


async def test_the_newer_of_two_who_resume_one_stream_takes_over() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = await streaming(client, stage, before=2, after=2)
        first = call.events[0].id
        older = await client.start("GET", headers={"last-event-id": first}).started()
        await call.answered()
        await older.until(lambda: progress(older) == [1, 2])
        newer = await client.start("GET", headers={"last-event-id": first}).started()
        await older.answered()
        stage.go_on.set()
        assert (await newer.answered()).value == "reported"
        assert progress(newer) == [1, 2, 3, 4]
        assert progress(older) == [1, 2]
        assert [m for m in older.messages if "result" in m] == []


async def test_a_dropped_connection_is_no_cancellation() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        silent = client.begin_tool("hold")
        await stage.began.wait()
        silent.disconnect()
        await silent.started()
        await silent.done()
        await client.ask("ping")
        assert (stage.running, stage.cancelled) == (1, 0)
        stage.go_on.set()
        again = await client.send("GET", headers={"last-event-id": silent.events[0].id})
        assert again.value == 1
        assert await client.tool("count") == 0
        assert await client.tool("hold") == 2


async def test_a_stream_closed_by_its_handler_is_polled() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = await client.begin_tool("poll_later", token="t").answered()
        assert call.events[0].retry == 500
        assert [m for m in call.messages if "result" in m] == []
        assert stage.running <= 1
        polled = await client.start("GET", headers={"last-event-id": call.events[-1].id}).started()
        await stage.began.wait()
        stage.go_on.set()
        assert (await polled.answered()).value == "polled"
        assert progress(call) + progress(polled) == [1, 2]


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18"])
async def test_a_client_that_cannot_poll_is_not_cut_off(revision: str) -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open(revision)
        stage.go_on.set()
        call = await client.begin_tool("poll_later", token="t").answered()
        assert call.value == "polled"
        assert progress(call) == [1, 2]


GARBAGE = ["", "-", "1", "0-0", "nonsense", "\xff", "a" * 50_000, "1-1-1", "-1", "9" * 400, "\xb2-\xb2", "a\x00-1"]


@pytest.mark.parametrize("event", GARBAGE)
async def test_an_event_id_that_makes_no_sense_is_refused(event: str) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        call = await client.send("GET", headers={"last-event-id": event})
        assert call.status == 400
        assert call.json["id"] is None
        assert "unknown in this session, or no longer kept" in call.json["error"]["message"]
        assert len(call.body) < 1000
        assert await client.tool("increment") == 1


async def test_an_event_that_has_not_happened_is_refused() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = await streaming(client, stage, before=1, after=0)
        stage.go_on.set()
        stream, _, number = str((await call.answered()).events[-1].id).rpartition("-")
        for odd in (
            f"{stream}-{int(number) + 1}",
            f"{stream}--1",
            f"{stream}-{number}.0",
            f"{stream}-0x1",
            f"{stream}-",
        ):
            assert (await client.send("GET", headers={"last-event-id": odd})).status == 400, odd


async def test_another_sessions_event_is_refused() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = await streaming(client, stage)
        stage.go_on.set()
        await call.answered()
        other = client.twin()
        await other.open()
        for event in call.events:
            assert (await other.send("GET", headers={"last-event-id": event.id})).status == 400


async def test_an_event_of_an_earlier_life_of_the_node_is_refused() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        stage.go_on.set()
        call = await streaming(client, stage)
        await call.answered()
    async with hosting(make_server()) as client:
        await client.open()
        for event in call.events:
            assert (await client.send("GET", headers={"last-event-id": event.id})).status == 400


async def test_a_stream_is_forgotten_when_nobody_came_back_for_it() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        now = [0.0]
        client.runtime._node.resumable.table._left._clock = lambda: now[0]
        await client.open()
        stage.go_on.set()
        call = await streaming(client, stage)
        await call.answered()
        now[0] = 59.0
        assert (await client.send("GET", headers={"last-event-id": call.events[0].id})).status == 200
        now[0] = 59.0 + 61.0
        refused = await client.send("GET", headers={"last-event-id": call.events[0].id})
        assert refused.status == 400
        assert client.runtime.stats()["streams_sessions"] == 0


async def test_an_event_that_had_to_make_room_is_refused_and_later_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("understudy.actors.session.backlog.MAX_EVENTS", 4)
    store = MemoryStore(event_bounds=EventLogBounds(max_events=4))
    async with hosting(make_server(stage := Stage()), store=store) as client:
        await client.open()
        call = await streaming(client, stage, before=3, after=7)
        call.disconnect()
        await call.done()
        stage.go_on.set()
        await client.ask("ping")
        assert (await client.send("GET", headers={"last-event-id": call.events[0].id})).status == 400
        stream = str(call.events[0].id).rpartition("-")[0]
        again = await client.send("GET", headers={"last-event-id": f"{stream}-7"})
        assert numbers(again.events) == [8, 9, 10]
        assert again.value == "reported"


async def test_all_of_many_slow_calls_are_answered() -> None:
    """More than the streams that are kept for clients to come back to."""
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        first = client.begin_tool("hold")
        await stage.began.wait()
        calls = [client.begin_tool("increment") for _ in range(200)]
        for call in calls:
            await call.started()
            assert call.kind == "text/event-stream"
        calls[7].disconnect()
        await calls[7].done()
        stage.go_on.set()
        await first.answered()
        for call in calls[:7] + calls[8:]:
            await call.answered()
        again = await client.send("GET", headers={"last-event-id": calls[7].events[0].id})
        values = [call.value for call in calls[:7]] + [again.value] + [call.value for call in calls[8:]]
        assert values == list(range(1, 201))
        assert client.runtime.stats()["streams_kept"] <= 65


async def test_a_stream_survives_the_passivation_of_its_session() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        stage.go_on.set()
        call = await streaming(client, stage)
        await call.answered()
        await client.ask("ping")
        await put_to_sleep(client.runtime, client.session)
        again = await client.send("GET", headers={"last-event-id": call.events[0].id})
        assert again.value == "reported"
