"""`LeaseEffects`: what comes and goes with leases, at a real link, registry and holdings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from link.ends import OWNER, Ends, Heard, a_head, error_of, soon, two_ends
from support.counting import CounterKind, Gate, a_registry, a_store, envelope, opened
from understudy.actors.errors import Elsewhere
from understudy.actors.task_owner import TaskOwner
from understudy.actors.testing import ManualClock, settle
from understudy.runtime.cluster.commons import ClusterCommons
from understudy.runtime.cluster.counts import Counts
from understudy.runtime.cluster.directory import MemoryDirectory
from understudy.runtime.cluster.entry import Entry
from understudy.runtime.cluster.holdings import Holdings
from understudy.runtime.cluster.lease_effects import LeaseEffects
from understudy.runtime.cluster.ownership import Ownership
from understudy.runtime.cluster.peers import NodeNews
from understudy.runtime.link import InboundCall, NotRun, PeerGone
from understudy.stores import Address

KEY = b"a key of the cluster of these tests"


class House:
    """A node with some counters, and another that its link leads to."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.counts = Counts()
        self.commons = ClusterCommons([KEY])
        self.registry = a_registry(self.clock, a_store(self.clock), CounterKind())
        self.ownership = Ownership("edge-1.aa", lease=3600.0)
        self.ownership.begin("edge-1.aa", self.clock.monotonic())
        self.moved: list[Address] = []

    async def enter(self, stack: AsyncExitStack) -> None:
        tasks = await stack.enter_async_context(TaskOwner())
        await stack.enter_async_context(self.registry)
        self.ends: Ends = await stack.enter_async_context(two_ends(self._hang, clock=self.clock))
        self.holdings = Holdings(
            self.ownership, MemoryDirectory(), self.clock, tasks, in_use=lambda address: address in self.registry
        )
        self.effects = LeaseEffects(
            self.ends.edge, self.registry, self.holdings, self.commons, self.counts, moved=self.moved.append
        )

    async def _hang(self, call: InboundCall) -> None:
        await asyncio.Event().wait()

    def news(self, **more: object) -> NodeNews:
        return NodeNews(OWNER, 3.0, **more)  # type: ignore[arg-type]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    async with AsyncExitStack() as stack:
        await made.enter(stack)
        yield made


async def test_without_a_lease_no_actor_takes_anything_and_its_streams_are_told(house: House) -> None:
    address = await opened(house.registry, 1)
    assert house.ownership.taken(address, Entry("edge-1.aa", 1, 1))
    gate = Gate()
    message, outcome = envelope(gate)
    waits, refused = envelope(gate)
    house.registry.deliver(address, message)
    await gate.entered.wait()
    house.registry.deliver(address, waits)
    try:
        house.effects.lapsed([address])
        await settle()
        assert refused.done()
        assert isinstance(refused.exception(), Elsewhere)
        assert not outcome.done()
    finally:
        gate.opened.set()
    # The store judges what the turn that ran has to save.
    assert await outcome == "through"
    assert house.moved == [address]
    assert house.counts.lease_losses == 1
    await soon(lambda: address not in house.registry)


async def test_nothing_of_what_it_held_is_written_to_the_directory_any_more(house: House) -> None:
    address = Address("counter", "a")
    assert house.ownership.taken(address, Entry("edge-1.aa", 1, 1))
    house.holdings.rest(address)
    house.effects.lapsed([address])
    await house.holdings.sweep(house.clock.monotonic() + 1.0)
    await settle()
    assert house.ownership.holds(address)
    assert house.holdings.writes_failed == 0


async def test_a_node_goes_by_its_new_incarnation_before_it_is_told(house: House) -> None:
    await house.effects.renamed("edge-1.dd")
    assert not house.ends.edge.renaming
    house.ends.hub.sent.clear()
    async with asyncio.TaskGroup() as group:
        call = group.create_task(error_of(house.ends.ask()))
        await soon(lambda: house.ends.owner.stats()["serving"])
        assert {sender for sender, receiver, _ in house.ends.hub.sent if receiver == OWNER} == {"edge-1.dd"}
        house.effects.peer_dead(OWNER)
        await call


async def test_what_a_peer_speaks_is_known_by_its_news(house: House) -> None:
    house.effects.peer_news(house.news(versions=(98, 99)))
    with pytest.raises(NotRun) as refused:
        await house.ends.edge.forward(OWNER, a_head(), b"", Heard().send)
    assert (refused.value.reason, refused.value.data["theirs"]) == ("version", [98, 99])


async def test_a_call_to_a_dead_peer_ends(house: House) -> None:
    async with asyncio.TaskGroup() as group:
        call = group.create_task(error_of(house.ends.ask()))
        await soon(lambda: house.ends.owner.stats()["serving"])
        house.effects.peer_dead(OWNER)
        gone = await call
    assert isinstance(gone, PeerGone)
    assert gone.maybe_ran


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_peer_that_leaves_is_heard_out(house: House, leaves: bool) -> None:
    async with asyncio.TaskGroup() as group:
        call = group.create_task(error_of(house.ends.ask()))
        await soon(lambda: house.ends.owner.stats()["serving"])
        house.effects.peer_news(house.news(leaving=leaves, versions=(4, 4)))
        # Nobody listens there any more, but what it has not run it may still say.
        house.ends.hub.cut(OWNER)
        assert isinstance(await error_of(house.ends.ask()), PeerGone)
        await soon(lambda: not house.ends.edge.stats()["paths"])
        assert call.done() is not leaves
        await house.clock.advance(10.0)
        assert isinstance(await call, PeerGone)
