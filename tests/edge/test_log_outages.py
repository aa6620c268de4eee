"""An event log that is slow, or out of reach: streams go on, and nobody is told what the log does not bear out."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from edge.client import Client
from edge.heirs import Heirs, goes_to, heirs, stream_of
from edge.server import Stage, make_server
from edge.test_logged_streams import resume
from edge.test_standing_streams import LISTS, heard, leave, listen, log, rereads
from edge.test_streams import progress, streaming
from support.patience import PATIENCE
from understudy.runtime.streams import log_outage
from understudy.stores import FaultyStore, MemoryStore

FOREVER = 1000


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_outage, "BACKOFF", 0.01)
    monkeypatch.setattr(log_outage, "LONGEST_BACKOFF", 0.02)


def faulty() -> FaultyStore:
    return FaultyStore(MemoryStore(), seed=1)


async def opened(nodes: Heirs, stage: Stage, **options: Any) -> Client:
    client = await nodes.node(make_server(stage), **options)
    await client.open()
    return client


def recover(store: FaultyStore) -> None:
    store._scripted["events.append"].clear()
    store.release()


async def test_nothing_leaves_before_the_log_has_it() -> None:
    store = faulty()
    async with heirs(store) as nodes:
        client = await opened(nodes, stage := Stage())
        store.fail_next("events.append", "hang")
        call = client.begin_tool("report", {"before": 3, "after": 0}, token="t")
        await stage.began.wait()
        await asyncio.sleep(0.05)
        assert call.body == b"", "not even its id"
        store.release()
        await call.until(lambda: progress(call) == [1, 2, 3])
        store.fail_next("events.append", "hang")
        stage.go_on.set()
        async with asyncio.timeout(PATIENCE):
            while not store.hanging:
                await asyncio.sleep(0.01)
        assert not call.complete, "nor the outcome; the tool is done"
        assert stage.finished == 1
        store.release()
        assert (await call.answered()).value == "reported"


async def test_all_that_comes_while_an_append_is_on_its_way_is_one_more() -> None:
    store = faulty()
    async with heirs(store) as nodes:
        client = await opened(nodes, stage := Stage())
        appends = client.runtime.stats()["streams_log_appends_total"]
        stage.go_on.set()
        store.fail_next("events.append", "hang")
        call = client.begin_tool("report", {"before": 200, "after": 0}, token="t")
        await stage.began.wait()
        async with asyncio.timeout(PATIENCE):
            while not store.hanging:
                await asyncio.sleep(0.01)
        store.release()
        assert (await call.answered()).value == "reported"
        assert client.runtime.stats()["streams_log_appends_total"] - appends <= 3


@pytest.mark.parametrize("fault", ["refuse", "lose", "hang"])
@pytest.mark.usefixtures("quick_retries")
async def test_streams_go_on_without_a_log_and_are_logged_when_it_is_back(
    fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = faulty()
    async with heirs(store) as nodes:
        client = await opened(nodes, stage := Stage(), store_timeout=0.05)
        store.fail_next("events.append", fault, times=FOREVER)
        with caplog.at_level(logging.WARNING, logger="understudy.runtime.streams.log_outage"):
            call = await streaming(client, stage, before=5, after=2)
        assert progress(call) == [1, 2, 3, 4, 5]
        assert client.runtime.stats()["streams_log_failed_total"] > 0
        assert len([r for r in caplog.records if "out of reach" in r.message]) == 1
        recover(store)
        async with asyncio.timeout(PATIENCE):
            while client.runtime.stats()["streams_log_behind"]:
                await asyncio.sleep(0.01)
        logged = await nodes.logged(client, stream_of(call.events[0]))
        assert logged.last == 5
        heir = goes_to(client, await nodes.node(make_server()))
        again = await resume(heir, call.events[2])
        assert progress(again) == [3, 4, 5]
        assert again.failure["data"] == {"outcome": "unknown"}


async def test_who_has_events_that_the_log_lacks_gets_the_end_that_their_node_died_of() -> None:
    store = faulty()
    async with heirs(store) as nodes:
        client = await opened(nodes, stage := Stage(), store_timeout=0.05)
        call = client.begin_tool("report", {"before": 1, "after": 6}, token="t")
        await call.until(lambda: call.status and progress(call) == [1])
        store.fail_next("events.append", "refuse", times=FOREVER)
        stage.go_on.set()
        assert progress(await call.answered()) == [1, 2, 3, 4, 5, 6, 7]
        store._scripted["events.append"].clear()
        heir = goes_to(client, await nodes.node(make_server()))
        for event in call.events[-2], call.events[3], call.events[2], call.events[3]:
            again = await resume(heir, event)
            assert again.status == 200, again.body
            assert progress(again) == []
            assert again.failure["data"] == {"outcome": "unknown"}
            assert again.events[-1].id == event.id
        whole = await resume(heir, call.events[0])
        assert progress(whole) == [1]
        assert whole.failure["data"] == {"outcome": "unknown"}


async def test_who_has_events_that_the_log_lacks_comes_again_while_their_node_lives() -> None:
    store = faulty()
    async with heirs(store) as nodes:
        client = await opened(nodes, stage := Stage(), store_timeout=0.05)
        call = await streaming(client, stage, before=1, after=1)
        store.fail_next("events.append", "refuse", times=FOREVER)
        stage.go_on.set()
        await call.answered()
        store._scripted["events.append"].clear()
        heir = goes_to(client, await nodes.node(make_server()))
        heir.runtime._node.resumable.resumption._writer_alive = lambda writer: True
        assert (await resume(heir, call.events[-1])).status == 503
        heir.runtime._node.resumable.resumption._writer_alive = lambda writer: False
        assert (await resume(heir, call.events[-1])).failure["data"] == {"outcome": "unknown"}


@pytest.mark.usefixtures("quick_retries")
async def test_a_stream_that_can_no_longer_be_logged_whole_is_not_logged_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("understudy.actors.session.backlog.MAX_EVENTS", 4)
    store = faulty()
    async with heirs(store) as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=2, after=9)
        store.fail_next("events.append", "refuse", times=FOREVER)
        stage.go_on.set()
        await call.done()
        recover(store)
        async with asyncio.timeout(PATIENCE):
            while client.runtime.stats()["streams_log_behind"]:
                await asyncio.sleep(0.01)
        assert client.runtime.stats()["streams_log_given_up_total"] == 1
        assert await nodes.logged(client, stream_of(call.events[0])) is None
        heir = goes_to(client, await nodes.node(make_server()))
        assert (await resume(heir, call.events[1])).status == 400


async def test_who_comes_back_while_the_log_is_out_of_reach_is_told_to_come_again() -> None:
    store = faulty()
    async with heirs(store) as nodes:
        client = await opened(nodes, stage := Stage())
        stage.go_on.set()
        call = await (await streaming(client, stage, before=2, after=0)).answered()
        heir = goes_to(client, await nodes.node(make_server()))
        store.fail_next("events.read")
        refused = await resume(heir, call.events[0])
        assert (refused.status, refused.header("retry-after")) == (503, "1")
        assert (await resume(heir, call.events[0])).value == "reported"


async def test_a_seal_that_cannot_be_written_is_no_end() -> None:
    store = faulty()
    async with heirs(store) as nodes:
        client = await opened(nodes, stage := Stage())
        call = await streaming(client, stage, before=2, after=0)
        heir = goes_to(client, await nodes.node(make_server()))
        store.fail_next("events.append")
        assert (await resume(heir, call.events[0])).status == 503
        assert (await resume(heir, call.events[0])).failure["data"] == {"outcome": "unknown"}


@pytest.mark.usefixtures("quick_retries")
async def test_what_a_standalone_stream_sent_without_the_log_is_never_missed_in_silence() -> None:
    store = faulty()
    async with heirs(store) as nodes:
        client = await opened(nodes, Stage())
        standing = await listen(client)
        await log(client, "one")
        await heard(standing, "one")
        known = standing.events[-1]
        store.fail_next("events.append", "refuse", times=FOREVER)
        await log(client, "two")
        await heard(standing, "one", "two")
        unlogged = standing.events[-1]
        assert stream_of(unlogged) != stream_of(known)
        # The node dies with it; the log has the life of `known`, and one event of it.
        heir = goes_to(client, await nodes.node(make_server()))
        again = await listen(heir, unlogged)
        await again.until(lambda: rereads(again) == LISTS)
        await leave(again)


@pytest.mark.usefixtures("quick_retries")
async def test_a_standalone_stream_is_logged_again_when_the_log_is_back() -> None:
    store = faulty()
    async with heirs(store) as nodes:
        client = await opened(nodes, Stage())
        standing = await listen(client)
        await log(client, "one")
        store.fail_next("events.append", "refuse", times=FOREVER)
        await log(client, "two")
        await heard(standing, "one", "two")
        recover(store)
        async with asyncio.timeout(PATIENCE):
            while client.runtime.stats()["streams_log_behind"]:
                await asyncio.sleep(0.01)
        await log(client, "three")
        await heard(standing, "one", "two", "three")
        heir = goes_to(client, await nodes.node(make_server()))
        again = await listen(heir, standing.events[2])
        await heard(again, "three")
        assert heir.runtime.stats()["streams_incomplete_total"] == 0


async def test_a_standalone_stream_opens_though_the_log_cannot_say_what_was() -> None:
    store = faulty()
    async with heirs(store) as nodes:
        client = await opened(nodes, Stage())
        standing = await listen(client)
        await log(client, "one")
        await heard(standing, "one")
        heir = goes_to(client, await nodes.node(make_server()))
        store.fail_next("events.read")
        again = await listen(heir, standing.events[-1])
        await again.until(lambda: rereads(again) == LISTS)
        await log(heir, "two")
        await heard(again, "two")
        # Its life is another, and the log forgets the one that was.
        logged = await nodes.logged(client, "standalone")
        assert stream_of(again.events[0]).encode().rpartition(b".")[2] in logged.head
