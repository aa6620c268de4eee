"""A session that moves to another node: what ran is not run again, what did not run may be."""

from __future__ import annotations

import asyncio

import pytest
from session.stagehand import Stagehand
from session.visitor import Kept, Visitor, hosted
from support.patience import PATIENCE
from support.permits import Permits
from understudy.actors import Elsewhere, NodeDraining, RegistryFull
from understudy.actors.session.exchange import Exchange
from understudy.actors.task_owner import TaskOwner
from understudy.runtime.wire.routing import Placement
from understudy.stores import Address


async def lapse(host, permits: Permits) -> None:
    permits.lease = False
    host.registry.lapse()
    await asyncio.sleep(0)


# What an exchange makes of it


def test_an_exchange_that_is_for_another_node_has_no_outcome_and_says_so():
    address = Address.new("session")
    exchange = Exchange(1, "tools/call")
    finished = []
    exchange.when_finished = lambda: finished.append(exchange)
    exchange.fail(Elsewhere(address))
    assert (exchange.elsewhere, exchange.outcome, exchange.refusal) == (address, None, None)
    assert exchange.finished
    assert exchange.quiet
    assert finished == [exchange]
    exchange.resolve({"content": []})
    assert exchange.outcome is None, "it is not for this node to answer any more"


def test_an_exchange_that_nobody_can_send_on_fails_instead():
    exchange = Exchange(1, "tools/call")
    exchange.senders = 0
    exchange.fail(Elsewhere(Address.new("session")))
    assert exchange.elsewhere is None
    assert exchange.refusal is not None
    assert exchange.refusal.status == 503
    assert b"nothing was changed" in (exchange.outcome or b"")


async def test_a_stream_that_ends_before_the_log_has_anything_of_it_ends_for_its_reader():
    exchange = Exchange(1, "tools/call")
    exchange.logged = -1
    generation = exchange.attach(0)
    exchange.fail(Elsewhere(Address.new("session")))
    async with asyncio.timeout(PATIENCE):
        assert await exchange.next(generation) is None


def test_an_exchange_remembers_that_there_was_no_room():
    address = Address.new("session")
    for error in (RegistryFull("full", address, retry_after=1), NodeDraining("stops", address, retry_after=1)):
        exchange = Exchange(1, "tools/call")
        exchange.fail(error)
        assert exchange.no_room is error
        assert exchange.outcome is not None
        assert exchange.refusal is not None
    exchange = Exchange(1, "tools/call")
    exchange.fail(ValueError())
    assert exchange.no_room is None


@pytest.mark.parametrize("begun", [False, True], ids=["who waits for the first message", "who reads"])
async def test_the_reader_wakes_when_the_stream_is_for_another_node(begun):
    exchange = Exchange(1, "tools/call")
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(exchange.next(exchange.attach(0)) if begun else exchange.first())
        await asyncio.sleep(0)
        exchange.fail(Elsewhere(Address.new("session")))
    assert reading.result() is None


# Interleaved turns


@pytest.mark.parametrize("way", ["hand_off", "lapse"])
async def test_interleaved_turns_that_run_are_finished_and_saved(way):
    stagehand, permits, store = Stagehand(), Permits(), Kept()
    async with hosted(stagehand.server(), turns="interleaved", store=store, placement=Placement(gate=permits)) as host:
        visitor = await host.visit()
        gates = {key: stagehand.gate(key) for key in "ab"}
        calls = [visitor.call("put", key=key, value=number, gate=key) for number, key in enumerate(gates)]
        for gate in gates.values():
            await gate.entered.wait()
        async with TaskOwner() as tasks:
            if way == "lapse":
                await lapse(host, permits)
            else:
                tasks.spawn(host.registry.hand_off(visitor.address))
                await asyncio.sleep(0.01)
            for gate in gates.values():
                gate.opened.set()
            assert [await call.value() for call in calls] == ["put", "put"]
        async with asyncio.timeout(PATIENCE):
            while visitor.address in host.registry:
                await asyncio.sleep(0)
    async with hosted(stagehand.server(), store=store) as host:
        again = Visitor(host, session=visitor.session)
        assert await again.ask("state") == {"state": {"a": 0, "b": 1}}


async def test_an_interleaved_turn_whose_change_comes_too_late_is_not_run_again():
    """never-run-twice: what is not saved is the change, what must not be repeated is the turn."""
    stagehand, permits, store = Stagehand(), Permits(), Kept()
    async with hosted(stagehand.server(), turns="interleaved", store=store, placement=Placement(gate=permits)) as host:
        visitor = await host.visit()
        gate = stagehand.gate("a")
        call = visitor.call("put", key="a", value=1, gate="a")
        await gate.entered.wait()
        await store.claim(visitor.address, owner="another")
        gate.opened.set()
        outcome = await call.outcome()
        assert outcome["error"]["message"] == "The session is not available now; nothing was changed"
        assert call.error is None


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_a_merge_that_finds_its_session_gone_fails_the_call_and_sends_nothing_elsewhere(era, monkeypatch):
    stagehand, permits = Stagehand(), Permits()
    async with hosted(stagehand.server(), turns="interleaved", placement=Placement(gate=permits)) as host:
        visitor = await host.visit(era)
        gate = stagehand.gate("a")
        call = visitor.call("put", key="a", value=1, gate="a")
        await gate.entered.wait()

        async def ask(address, *rest, **options):
            raise Elsewhere(address)

        monkeypatch.setattr(host.registry, "ask", ask)
        gate.opened.set()
        outcome = await call.outcome()
        assert "nothing was changed" in outcome["error"]["message"]
        assert outcome["id"] == call.request_id, "not what an edge says that knows no other node"
        monkeypatch.undo()
