"""`TenantBus` and the streams of `subscriptions/listen`: who hears what, in what order, and within what bounds."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from mcp.server.subscriptions import PromptsListChanged, ResourceUpdated, ServerEvent, ToolsListChanged
from mcp_types import SubscriptionFilter
from understudy.actors.session.listening import MAX_APART, MAX_URIS, _Stream
from understudy.actors.session.tenant_bus import TenantBus


class Ear:
    def __init__(self, *uris: str, kinds: frozenset[type[ServerEvent]] = frozenset()) -> None:
        self.uris, self.kinds = frozenset(uris), kinds
        self.heard: list[ServerEvent] = []
        self.rereads = 0

    def hear(self, event: ServerEvent) -> None:
        self.heard.append(event)

    def reread(self) -> None:
        self.rereads += 1


def stream(*uris: str, tools: bool = False) -> _Stream:
    return _Stream(SubscriptionFilter(resource_subscriptions=list(uris), tools_list_changed=tools or None))


async def drained(stream: _Stream) -> list[ServerEvent]:
    stream.close()
    return [event async for event in everything(stream)]


async def everything(stream: _Stream) -> Any:
    while (event := await stream.next()) is not None:
        yield event


async def test_a_listener_hears_what_it_asks_for_and_nothing_else() -> None:
    bus = TenantBus()
    ear, deaf = Ear("a", kinds=frozenset({ToolsListChanged})), Ear("b")
    bus.add(ear)
    bus.add(deaf)
    events = [ResourceUpdated("a"), ResourceUpdated("c"), ToolsListChanged(), PromptsListChanged()]
    for event in events:
        await bus.publish(event)
    assert ear.heard == [events[0], events[2]]
    assert deaf.heard == []


async def test_who_has_left_or_changed_its_mind_hears_accordingly() -> None:
    bus, ear = TenantBus(), Ear("a", "b")
    bus.add(ear)
    before, ear.uris = ear.uris, frozenset(("b", "c"))
    bus.change(ear, before)
    for uri in "abc":
        await bus.publish(ResourceUpdated(uri))
    assert [event.uri for event in ear.heard] == ["b", "c"]  # type: ignore[union-attr]
    bus.remove(ear)
    bus.remove(ear)
    await bus.publish(ResourceUpdated("b"))
    assert len(ear.heard) == 2
    assert not bus._by_uri
    assert not bus._by_kinds


async def test_publishing_asks_only_those_concerned() -> None:
    bus, asked = TenantBus(), 0

    class Counting(Ear):
        def hear(self, event: ServerEvent) -> None:
            nonlocal asked
            asked += 1

    for number in range(10_000):
        bus.add(Counting(f"r://{number % 5000}"))
    await bus.publish(ResourceUpdated("r://7"))
    assert asked == 2
    assert len(bus) == 10_000


async def test_a_listener_that_fails_does_not_keep_it_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Ear):
        def hear(self, event: ServerEvent) -> None:
            raise RuntimeError("no")

        reread = None  # type: ignore[assignment]

    bus, ear = TenantBus(), Ear("a")
    bus.add(Failing("a"))
    bus.add(ear)
    with caplog.at_level(logging.ERROR):
        await bus.publish(ResourceUpdated("a"))
        await bus.reread()
    assert (len(ear.heard), ear.rereads) == (1, 1)
    assert len(caplog.records) == 2


async def test_the_others_are_told_before_the_listeners_here() -> None:
    order: list[str] = []

    async def tell(event: ServerEvent) -> None:
        order.append("others")

    bus = TenantBus(tell)
    bus.subscribe(lambda event: order.append("here"))
    await bus.publish(ToolsListChanged())
    await bus.deliver(ToolsListChanged())
    assert order == ["others", "here", "here"]


async def test_who_listens_as_the_sdk_does_hears_everything_until_it_stops() -> None:
    bus, heard = TenantBus(), list[ServerEvent]()
    stop = bus.subscribe(heard.append)
    await bus.publish(ResourceUpdated("a"))
    await bus.reread()
    assert len(heard) == 4
    stop()
    stop()
    await bus.publish(ResourceUpdated("a"))
    assert len(heard) == 4


# Streams


async def test_while_a_client_keeps_up_it_hears_each_event_in_order() -> None:
    one = stream("a", "b")
    events = [ResourceUpdated("ab"[number % 2]) for number in range(MAX_APART)]
    for event in events:
        one.hear(event)
    assert await drained(one) == events


async def test_one_that_lags_has_no_more_waiting_than_the_bound_and_one_of_each() -> None:
    uris = [f"r://{number}" for number in range(100)]
    one = stream(*uris)
    for _ in range(1000):
        for uri in uris[:50]:
            one.hear(ResourceUpdated(uri))
    for uri in uris:
        one.hear(ResourceUpdated(uri))
    waiting = await drained(one)
    assert len(waiting) == MAX_APART + 50
    assert {event.uri for event in waiting} == set(uris)  # type: ignore[union-attr]


async def test_after_a_gap_all_that_was_asked_for_waits_once() -> None:
    one = stream("a", "b", tools=True)
    one.hear(ResourceUpdated("a"))
    one.reread()
    one.reread()
    waiting = await drained(one)
    assert len(waiting) == 3
    assert set(waiting) == {ResourceUpdated("a"), ResourceUpdated("b"), ToolsListChanged()}


async def test_what_comes_after_it_was_taken_waits_again() -> None:
    one = stream("a")
    for _ in range(3):
        one.hear(ResourceUpdated("a"))
        assert await one.next() == ResourceUpdated("a")
    assert not one._count
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(one.next())
        await asyncio.sleep(0)
        one.hear(ResourceUpdated("a"))
    assert asking.result() == ResourceUpdated("a")


def test_the_bound_on_what_one_stream_names_holds_a_client_of_every_size() -> None:
    assert MAX_URIS >= 10_000
