"""Hooks of a session's life at one node: what they are told, once, and that they are never in the way."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from edge.client import hosting, hosting_modern, put_to_sleep
from edge.server import make_server
from support.patience import PATIENCE
from understudy.runtime import (
    ConfigurationError,
    Runtime,
    SessionEvent,
    SessionHooks,
    SessionUnavailable,
    TenantContext,
)
from understudy.runtime.provider.session_life import LANES, MOST_WAITING
from understudy.stores import FaultyStore, MemoryStore

EVENTS = ("opened", "rehydrated", "passivated", "moved", "ended")


def all_told(told: list[SessionEvent]) -> SessionHooks:
    return SessionHooks(**dict.fromkeys(EVENTS, told.append))


async def until_told(told: list[Any], count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(told) < count:
            await asyncio.sleep(0.001)


async def test_a_life_is_told_in_order_with_who_it_belongs_to() -> None:
    told: list[SessionEvent] = []
    hooks = all_told(told)
    async with hosting(
        make_server(), hooks=hooks, tenants=lambda request: TenantContext("acme", "ada"), node_id="one"
    ) as client:
        await client.open()
        await client.tool("increment")
        await put_to_sleep(client.runtime, client.session)
        await client.tool("increment")
        assert (await client.send("DELETE")).status == 200
        await until_told(told, 4)
    id = client.session or ""
    assert told == [
        SessionEvent("opened", id, "acme", "ada", "handshake", "one"),
        SessionEvent("passivated", id, "acme", "ada", "handshake", "one", "passivated"),
        SessionEvent("rehydrated", id, "acme", "ada", "handshake", "one"),
        SessionEvent("ended", id, "acme", "ada", "handshake", "one", "ended"),
    ]


async def test_each_way_to_open_and_to_end_is_told_once() -> None:
    told: list[SessionEvent] = []
    async with hosting_modern(make_server(), hooks=all_told(told)) as client:
        handle = await client.handle()
        await client.begin_tool("close_session", {"session": handle}).answered()
        created = await client.runtime.sessions.create()
        await put_to_sleep(client.runtime, created.id)
        await client.runtime.sessions.delete(created.id)
        await client.runtime.sessions.delete(created.id)
        await until_told(told, 6)
    lives = {id: [event.name for event in told if event.id == id] for id in (handle, created.id)}
    assert lives == {handle: ["opened", "ended"], created.id: ["opened", "passivated", "rehydrated", "ended"]}
    assert {event.opened_by for event in told} == {"handle"}


async def test_a_node_that_stops_tells_of_all_that_leave_memory_before_it_is_gone() -> None:
    told: list[SessionEvent] = []

    async def slowly(event: SessionEvent) -> None:
        await asyncio.sleep(0.001)
        told.append(event)

    async with hosting(make_server(), hooks=SessionHooks(passivated=slowly)) as client:
        for _ in range(20):
            await client.runtime.sessions.create()
    assert len({event.id for event in told}) == len(told) == 20


async def test_what_was_never_saved_is_not_told_of() -> None:
    told: list[SessionEvent] = []
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(), hooks=all_told(told), store=store) as client:
        store.fail_next("create", "refuse", times=2)
        with pytest.raises(SessionUnavailable, match="nothing was changed"):
            await client.runtime.sessions.create()
    assert told == []


async def test_an_end_whose_record_is_still_there_is_not_told_as_one() -> None:
    told: list[SessionEvent] = []
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(), hooks=all_told(told), store=store) as client:
        await client.open()
        store.fail_next("delete", "refuse", times=2)
        assert (await client.send("DELETE")).status == 503
        await until_told(told, 2)
        assert [(event.name, event.reason) for event in told] == [("opened", None), ("passivated", "in doubt")]
        assert await client.tool("increment") == 1
        assert (await client.send("DELETE")).status == 200
        await until_told(told, 4)
        assert [event.name for event in told[2:]] == ["rehydrated", "ended"]


class Stubborn(BaseException):
    """Nothing that is expected of a hook."""


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError(), Stubborn()])
async def test_a_hook_that_raises_harms_nothing(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    told: list[SessionEvent] = []

    def fail(event: SessionEvent) -> None:
        raise error

    async with hosting(make_server(), hooks=SessionHooks(opened=fail, ended=told.append)) as client:
        for _ in range(2):
            await client.open()
            assert await client.tool("increment") == 1
            assert (await client.send("DELETE")).status == 200
        await until_told(told, 2)
        stats = client.runtime.stats()
    assert (stats["session_hooks_failed_total"], stats["session_hooks_told_total"]) == (2, 2)
    assert "the hook opened failed" in caplog.text


async def test_a_hook_that_hangs_is_given_up_and_delays_no_call(caplog: pytest.LogCaptureFixture) -> None:
    async def hang(event: SessionEvent) -> None:
        await asyncio.get_running_loop().create_future()

    async with hosting(make_server(), hooks=SessionHooks(opened=hang)) as client:
        life = client.runtime._node.life
        assert life is not None
        life._timeout = 0.01
        await client.open()
        assert await client.tool("increment") == 1
        async with asyncio.timeout(PATIENCE):
            while not client.runtime.stats()["session_hooks_failed_total"]:
                await asyncio.sleep(0.001)
    assert "took longer than 0.01 s" in caplog.text


async def test_what_finds_no_room_is_dropped_and_counted_and_one_session_keeps_its_order() -> None:
    told: list[SessionEvent] = []
    go_on = asyncio.Event()

    async def wait(event: SessionEvent) -> None:
        await go_on.wait()
        told.append(event)

    async with hosting(make_server(), hooks=SessionHooks(opened=wait, ended=wait)) as client:
        life = client.runtime._node.life
        assert life is not None
        first = await client.runtime.sessions.create()
        for lane in life._lanes:
            while not lane.full():
                lane.put_nowait(SessionEvent("opened", "filler", "t", "p", "handle", "n"))
        await client.runtime.sessions.delete(first.id)
        stats = client.runtime.stats()
        assert stats["session_hooks_dropped_total"] == 1
        assert MOST_WAITING - LANES <= stats["session_hooks_waiting"] <= MOST_WAITING
        go_on.set()
        await until_told(told, int(stats["session_hooks_waiting"]))
        second = await client.runtime.sessions.create()
        await client.runtime.sessions.delete(second.id)
        async with asyncio.timeout(PATIENCE):
            while [event.name for event in told if event.id == second.id] != ["opened", "ended"]:
                await asyncio.sleep(0.001)


async def test_a_node_does_not_wait_for_ever_for_its_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.provider.session_life.LAST_WORDS", 0.05)

    async def hang(event: SessionEvent) -> None:
        await asyncio.get_running_loop().create_future()

    began = time.monotonic()
    async with hosting(make_server(), hooks=SessionHooks(opened=hang)) as client:
        for _ in range(20):
            await client.runtime.sessions.create()
    assert time.monotonic() - began < PATIENCE


async def test_without_hooks_nothing_is_kept_for_them() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        assert client.runtime._node.life is None  # type: ignore[union-attr]
        assert "session_hooks_waiting" not in client.runtime.stats()


def test_what_is_no_hook_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the hook opened is 7"):
        SessionHooks(opened=7)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="must be SessionHooks"):
        Runtime(make_server(), hooks=print)  # type: ignore[arg-type]
