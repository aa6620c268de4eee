"""JSON when quick, SSE when slow: what a stream looks like, and which message goes on which stream."""

from __future__ import annotations

import asyncio

import pytest
from edge.call import HTTPCall
from edge.client import LATEST, Client, hosting
from edge.server import Stage, make_server

REVISIONS = ["2025-03-26", "2025-06-18", LATEST]


def assert_stream(call: HTTPCall) -> None:
    assert call.status == 200
    assert call.kind == "text/event-stream"
    assert call.header("cache-control") == "no-cache, no-transform"
    assert call.header("x-accel-buffering") == "no"
    assert call.header("content-length") is None


async def streaming(client: Client, stage: Stage, *, before: int = 1, after: int = 1) -> HTTPCall:
    """A call that has reported `before` times and waits for the stage."""
    stage.began.clear()
    call = client.begin_tool("report", {"before": before, "after": after}, token="t")
    await stage.began.wait()
    await call.until(lambda: len(progress(call)) >= before)
    return call


def progress(call: HTTPCall) -> list[float]:
    if not call.status:
        return []
    return [m["params"]["progress"] for m in call.messages if m.get("method") == "notifications/progress"]


async def test_a_quick_answer_is_json() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        call = await client.begin_tool("increment").answered()
        assert (call.kind, call.value) == ("application/json", 1)


async def test_a_slow_answer_is_a_stream() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = await client.begin_tool("hold", id=5).started()
        assert_stream(call)
        stage.go_on.set()
        assert (await call.answered()).reply["id"] == 5
        assert call.value == 1


async def test_a_first_notification_makes_it_a_stream_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosting(make_server(stage := Stage())) as client:
        monkeypatch.setattr(client.runtime.edge._handshake._posts._deferral, "_delay", 3600.0)
        await client.open()
        call = await streaming(client, stage)
        assert_stream(call)
        stage.go_on.set()
        await call.answered()
        assert progress(call) == [1, 2]
        assert call.messages[-1] == call.reply


async def test_a_question_makes_it_a_stream_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosting(make_server()) as client:
        monkeypatch.setattr(client.runtime.edge._handshake._posts._deferral, "_delay", 3600.0)
        await client.open()
        call = client.begin_tool("ask_name")
        question = await call.message("elicitation/create")
        assert_stream(call)
        answered = await client.respond(question["id"], {"action": "accept", "content": {"name": "Ada"}})
        assert answered.status == 202
        assert (await call.answered()).value == "Ada"


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_stream_is_primed_at_the_latest_revision_only(revision: str) -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open(revision)
        call = await streaming(client, stage)
        stage.go_on.set()
        first = (await call.answered()).events[0]
        if revision == LATEST:
            assert (first.data, first.retry) == ("", 500)
            assert first.id
        else:
            assert first.message["method"] == "notifications/progress"
            assert all(event.retry is None for event in call.events)


async def test_event_ids_are_unique_in_the_session_and_name_their_stream() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        calls = [await streaming(client.same_session(), stage, before=0)]
        stage.go_on.set()
        calls += [await streaming(client.same_session(), stage, before=3, after=0) for _ in range(4)]
        ids: list[str] = []
        for call in calls:
            own = [event.id for event in (await call.answered()).events]
            assert None not in own
            streams = {str(id).rpartition("-")[0] for id in own}
            assert len(streams) == 1
            ids += map(str, own)
        assert len(ids) == len(set(ids)) == 3 + 4 * 5


async def test_every_message_goes_on_one_stream() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        standing = await client.start("GET").started()
        call = await streaming(client, stage)
        other = client.begin_tool("watch")
        await other.started()
        stage.go_on.set()
        await call.answered()
        await other.answered()
        assert len(call.messages[1:] if call.messages[0].get("id") else call.messages) == 3
        assert [m for m in other.messages if "method" in m] == []
        assert [event.data for event in standing.events if event.data] == []


async def test_the_standalone_stream_hears_what_belongs_to_no_call() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        standing = await client.start("GET").started()
        assert_stream(standing)
        call = await client.begin_tool("announce").answered()
        assert call.kind == "application/json"
        message = await standing.message("notifications/tools/list_changed")
        assert "id" not in message
        assert len(standing.messages) == 2, "by its session, and by the tenant's bus"


async def test_of_two_standalone_streams_the_newer_hears() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        older = await client.start("GET").started()
        newer = await client.start("GET").started()
        await older.answered()
        await client.tool("announce")
        await newer.message("notifications/tools/list_changed")
        assert older.messages == []
        assert not newer.returned


async def test_what_came_while_nobody_listened_waits_for_the_next_standalone_stream() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        first = await client.start("GET").started()
        first.disconnect()
        await first.done()
        await client.tool("announce")
        second = await client.start("GET").started()
        await second.message("notifications/tools/list_changed")
        second.disconnect()
        await second.done()
        third = await client.start("GET").started()
        await client.ask("ping")
        assert third.messages == [], "and comes once"


async def test_a_standalone_stream_that_nobody_read_for_too_long_still_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.actors.session.backlog.MAX_EVENTS", 3)
    async with hosting(make_server()) as client:
        await client.open()
        first = await client.start("GET").started()
        first.disconnect()
        await first.done()
        for _ in range(10):
            await client.tool("announce")
        second = await client.start("GET").started()
        await second.until(lambda: len(second.messages) == 3)
        await client.tool("announce")
        await second.until(lambda: len(second.messages) > 3)


async def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.edge.sse.KEEP_ALIVE", 0.01)
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        standing = await client.start("GET").started()
        call = await client.begin_tool("hold").started()
        for stream in (standing, call):
            await stream.event(0)
            events = len(stream.events)
            await stream.until(lambda stream=stream: stream.comments >= 3)
            assert len(stream.events) == events
        stage.go_on.set()
        assert (await call.answered()).value == 1


async def test_a_session_with_a_standing_stream_is_as_free_as_one_without() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        stream = client.start("GET")
        await stream.started()
        stream.disconnect()
        await stream.done()
        before = len(asyncio.all_tasks())
        for _ in range(50):
            stream = await client.start("GET").started()
            stream.disconnect()
            await stream.done()
        assert len(asyncio.all_tasks()) == before
        assert client.runtime.stats()["streams_sessions"] == 1


STREAM_FIRST = {"accept": "text/event-stream, application/json"}


async def test_a_client_that_would_rather_have_a_stream_gets_one_for_a_quick_answer_too() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        call = await client.begin_tool("increment", headers=STREAM_FIRST).answered()
        assert_stream(call)
        assert call.value == 1
        again = await client.send("GET", headers={"last-event-id": call.events[0].id})
        assert again.value == 1, "it can be resumed as any other"
        refused = await client.begin("no/such", headers=STREAM_FIRST).answered()
        assert refused.kind == "application/json", "an error keeps its status"
