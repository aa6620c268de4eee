"""A session's standalone stream goes on from owner to owner: exactly, or the client is told to read again."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import LATEST, Client, hosting
from edge.heirs import address_of, goes_to, heirs, sleep_of, stream_of
from edge.server import make_server
from support.patience import PATIENCE
from understudy.runtime.streams.standing import tag_of
from understudy.stores import Address, EventLogBounds, MemoryStore

LISTS = {f"notifications/{what}/list_changed" for what in ("tools", "prompts", "resources")}


async def listen(client: Client, last: Any = None) -> HTTPCall:
    headers = {} if last is None else {"last-event-id": last if isinstance(last, str) else last.id}
    return await client.start("GET", headers=headers).started()


async def leave(call: HTTPCall) -> None:
    call.disconnect()
    await call.done()


async def log(client: Client, *words: str) -> None:
    """Have the session say these words on its standalone stream: what no relay adds to."""
    for word in words:
        await client.runtime.session(client.session or "").notify(
            "notifications/message", {"level": "info", "data": word}
        )


def words(call: HTTPCall) -> list[str]:
    return [m["params"]["data"] for m in call.messages if m["method"] == "notifications/message"]


def rereads(call: HTTPCall) -> set[str]:
    return {m["method"] for m in call.messages if m["method"] != "notifications/message"}


async def heard(call: HTTPCall, *expected: str) -> None:
    await call.until(lambda: words(call) == list(expected))


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", LATEST])
async def test_its_events_have_ids_and_only_the_latest_revision_is_primed(revision: str) -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open(revision)
        standing = await listen(client)
        await log(client, "one", "two")
        await heard(standing, "one", "two")
        tag = tag_of(address_of(client))
        assert all(str(event.id).startswith(f"{tag}.") for event in standing.events)
        assert [str(event.id)[-2:] for event in standing.events] == ["-0", "-1", "-2"][-len(standing.events) :]
        assert len(standing.events) == (3 if revision == LATEST else 2)
        if revision == LATEST:
            assert (standing.events[0].data, standing.events[0].retry) == ("", 3000)


async def test_who_comes_back_to_the_same_node_gets_what_came_after_and_no_more() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        first = await listen(client)
        await log(client, "one", "two", "three")
        await heard(first, "one", "two", "three")
        await leave(first)
        await log(client, "four")
        for event, expected in zip(first.events, (["one"], ["two"], ["three"], []), strict=True):
            again = await listen(client, event)
            await log(client, "last")
            await again.until(lambda again=again: "last" in words(again))
            assert words(again)[: len(expected)] == expected
            assert rereads(again) == set()
            assert not [word for word, count in Counter(words(again)).items() if count > 1 and word != "last"]
            await leave(again)


async def test_it_goes_on_exactly_at_the_next_owner() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        first = await listen(client)
        await log(client, "one", "two")
        await heard(first, "one", "two")
        heir = goes_to(client, await nodes.node(make_server()))
        # While nobody listens there.
        await log(heir, "three")
        again = await listen(heir, first.events[1])
        await heard(again, "two", "three")
        await log(heir, "four")
        await heard(again, "two", "three", "four")
        ids = [event.id for event in again.events if "notifications/message" in event.data]
        stream = stream_of(first.events[0])
        assert ids[:2] == [f"{stream}-2", f"{stream}-3"]
        assert len(set(ids)) == 3
        assert heir.runtime.stats()["streams_adopted_total"] == 1
        # The relay of a node that has not listened for the session has its client read again; the stream is whole.
        assert heir.runtime.stats()["streams_incomplete_total"] == 0


async def test_an_unknown_life_is_told_to_read_everything_again() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        first = await listen(client)
        primed = await first.event(0)
        await client.ask("resources/subscribe", {"uri": "stage://data"})
        heir = goes_to(client, await nodes.node(make_server()))
        again = await listen(heir, primed)
        await again.until(lambda: rereads(again) == LISTS | {"notifications/resources/updated"})
        assert again.events[0].id != primed.id
        updated = [m["params"]["uri"] for m in again.messages if m["method"] == "notifications/resources/updated"]
        assert updated == ["stage://data"]
        # From here on it is known, and nothing is told twice.
        last = again.events[-1]
        await leave(again)
        back = await listen(heir, last)
        await log(heir, "next")
        await heard(back, "next")
        assert rereads(back) == set()


@pytest.mark.parametrize("what", ["foreign", "garbage", "bare"])
async def test_what_is_no_id_of_this_session_is_refused(what: str) -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        id = {
            "foreign": f"{tag_of(Address('session', 'x' * 32))}.0123-0",
            "garbage": "\xff.\xff-0",
            "bare": tag_of(address_of(client)),
        }[what]
        assert (await client.send("GET", headers={"last-event-id": id})).status == 400
        other = client.twin()
        await other.open()
        mine = await listen(client)
        assert (await other.send("GET", headers={"last-event-id": str((await mine.event(0)).id)})).status == 400


async def test_a_number_of_the_future_makes_the_client_read_again_and_never_another_event_of_that_number() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        first = await listen(client)
        await log(client, "one")
        await heard(first, "one")
        ahead = f"{stream_of(first.events[0])}-7"
        again = await listen(client, ahead)
        await again.until(lambda: rereads(again) == LISTS)
        assert stream_of(again.events[0]) != stream_of(first.events[0])


async def test_a_gap_is_told() -> None:
    store = MemoryStore(event_bounds=EventLogBounds(max_events=3))
    async with heirs(store) as nodes:
        client = await nodes.node(make_server())
        await client.open()
        first = await listen(client)
        await log(client, "one")
        await heard(first, "one")
        await leave(first)
        heir = goes_to(client, await nodes.node(make_server()))
        await log(heir, *map(str, range(10)))
        again = await listen(heir, first.events[1])
        await again.until(lambda: rereads(again) >= LISTS)
        assert heir.runtime.stats()["streams_incomplete_total"] == 0, "its memory has what the log has dropped"
        await leave(again)
        await sleep_of(heir)
        third = goes_to(client, await nodes.node(make_server()))
        late = await listen(third, first.events[1])
        await late.until(lambda: rereads(late) >= LISTS)
        assert third.runtime.stats()["streams_incomplete_total"] == 1


async def test_what_came_while_nobody_listened_is_there_after_the_stream_has_left_memory() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        first = await listen(client)
        await log(client, "one")
        await heard(first, "one")
        await leave(first)
        streams: Any = client.runtime._node.resumable.table
        clock = streams._left._clock
        for word in ("two", "three"):
            streams._left._clock = lambda: clock() + 61.0
            streams.sweep()
            streams._left._clock = clock
            assert streams.standalone(address_of(client)) is None
            await log(client, word)
        again = await listen(client, first.events[-1])
        await heard(again, "two", "three")


async def test_who_listens_without_an_id_where_something_may_have_been_missed_is_told_to_read_again() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        await leave(await listen(client))
        heir = goes_to(client, await nodes.node(make_server()))
        # It was never told of any stream: the event is gone, and that it is gone is remembered.
        assert await heir.tool("announce") == "announced"
        again = await listen(heir)
        await again.until(lambda: rereads(again) == LISTS)


async def test_a_client_that_never_listened_costs_the_log_nothing() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        before = nodes.log.stats()["appends_total"]
        assert await client.tool("announce") == "announced"
        assert nodes.log.stats()["appends_total"] == before
        standing = await listen(client)
        await log(client, "three")
        await heard(standing, "three")
        assert rereads(standing) == set()


async def test_what_an_author_tells_a_client_waits_for_it_though_it_never_listened() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        await log(client, "one", "two")
        standing = await listen(client)
        await heard(standing, "one", "two")


async def test_an_orderly_end_keeps_an_idle_stream_exact() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        standing = await listen(client)
        primed = await standing.event(0)
        await client.runtime.drain(1)
        await standing.answered()
        heir = goes_to(client, await nodes.node(make_server()))
        again = await listen(heir, primed)
        assert stream_of(await again.event(0)) == stream_of(primed)
        assert heir.runtime.stats()["streams_incomplete_total"] == 0


async def test_two_owners_of_one_stream_cannot_both_write_it() -> None:
    async with heirs() as nodes:
        client = await nodes.node(make_server())
        await client.open()
        zombie = await listen(client)
        await log(client, "one")
        await heard(zombie, "one")
        heir = goes_to(client, await nodes.node(make_server()))
        again = await listen(heir, zombie.events[-1])
        await log(heir, "two")
        await heard(again, "two")
        streams: Any = client.runtime._node.resumable.table
        streams.publish(address_of(client), {"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
        await zombie.done()
        assert words(zombie) == ["one"]
        assert client.runtime.stats()["streams_log_taken_total"] == 1


async def test_a_restart_of_a_node_with_a_file_loses_nothing(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    async with hosting(make_server(), store=url) as client:
        await client.open()
        first = await listen(client)
        await log(client, "one", "two")
        await heard(first, "one", "two")
        await leave(first)
        await log(client, "three")
    async with hosting(make_server(), store=url) as later:
        goes_to(client, later)
        again = await listen(later, first.events[1])
        async with asyncio.timeout(PATIENCE):
            await heard(again, "two", "three")
