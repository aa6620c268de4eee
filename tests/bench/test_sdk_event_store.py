"""The event store that the SDK gets in `bench streams`: if it lost or mixed up events, the comparison would be void."""

from __future__ import annotations

from mcp.server.streamable_http import EventMessage
from mcp_types import JSONRPCNotification
from understudy.bench import sdk_event_store
from understudy.bench.sdk_event_store import InMemoryEventStore


def message(number: int) -> JSONRPCNotification:
    return JSONRPCNotification(jsonrpc="2.0", method="notifications/progress", params={"progress": number})


async def replayed(store: InMemoryEventStore, after: str) -> tuple[str | None, list[EventMessage]]:
    came: list[EventMessage] = []

    async def take(event: EventMessage) -> None:
        came.append(event)

    return await store.replay_events_after(after, take), came


async def test_what_follows_an_event_in_its_own_stream_is_replayed_in_order() -> None:
    store = InMemoryEventStore()
    primed = await store.store_event("7", None)
    ids = [await store.store_event("7", message(number)) for number in range(3)]
    await store.store_event("8", message(9))
    assert await replayed(store, primed) == ("7", [EventMessage(message(n), ids[n]) for n in range(3)])
    assert await replayed(store, ids[1]) == ("7", [EventMessage(message(2), ids[2])])


async def test_a_priming_event_is_no_message() -> None:
    store = InMemoryEventStore()
    first = await store.store_event("7", message(1))
    await store.store_event("7", None)
    assert await replayed(store, first) == ("7", [])


async def test_an_unknown_event_belongs_to_no_stream() -> None:
    store = InMemoryEventStore()
    await store.store_event("7", message(1))
    for unknown in ("8-1", "7-x", "garbage", ""):
        assert await replayed(store, unknown) == (None, [])


async def test_within_its_bounds_it_forgets_the_oldest() -> None:
    store = InMemoryEventStore()
    ids = [await store.store_event("7", message(n)) for n in range(2 * sdk_event_store.MAX_EVENTS + 10)]
    assert len(set(ids)) == len(ids)
    _, came = await replayed(store, ids[-3])
    assert [event.event_id for event in came] == ids[-2:]
    for other in range(sdk_event_store.MAX_STREAMS):
        await store.store_event(f"other-{other}", message(1))
    assert await replayed(store, ids[-3]) == (None, [])
