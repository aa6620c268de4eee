"""`Holdings`: what has rested is let go of in time, and nothing is remembered of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from understudy.actors.departure import Departure
from understudy.actors.task_owner import TaskOwner
from understudy.actors.testing import ManualClock
from understudy.runtime.cluster.directory import MemoryDirectory
from understudy.runtime.cluster.entry import Entry
from understudy.runtime.cluster.holdings import LINGER, Holdings
from understudy.runtime.cluster.ownership import Ownership
from understudy.stores import Address

A, B = Address("session", "a"), Address("session", "b")


class House:
    """Holdings of one node, with a directory, and who is in use."""

    def __init__(self, tasks: TaskOwner) -> None:
        self.clock = ManualClock()
        self.directory = MemoryDirectory()
        self.ownership = Ownership("n.1", lease=3600.0)
        self.ownership.begin("n.1", self.clock.monotonic())
        self.used: set[Address] = set()
        self.holdings = Holdings(
            self.ownership, self.directory, self.clock, tasks, in_use=lambda address: address in self.used
        )

    async def take(self, *addresses: Address) -> None:
        for address in addresses:
            revision = await self.directory.write(address, Entry("n.1", 1, 0))
            assert self.ownership.taken(address, Entry("n.1", 1, revision))

    async def sweep(self) -> None:
        await self.holdings.sweep(self.clock.monotonic() - LINGER)
        await self.clock.advance(0)

    def cell(self, address: Address) -> Any:
        return cast("Any", SimpleNamespace(address=address))


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with TaskOwner() as tasks:
        yield House(tasks)


async def test_a_session_that_never_rests_long_does_not_keep_others_from_being_let_go_of(house: House) -> None:
    await house.take(A, B)
    house.holdings.rest(A)
    house.holdings.rest(B)
    for _ in range(4):
        await house.clock.advance(LINGER / 2)
        house.holdings.rest(A)
        await house.sweep()
    assert house.ownership.addresses == [A]
    assert (await house.directory.look_up(B) or Entry("?", 0, 0)).asleep


async def test_what_has_ended_is_removed_from_the_directory(house: House) -> None:
    await house.take(A)
    house.holdings.departed(house.cell(A), Departure.ENDED)
    await house.sweep()
    assert await house.directory.look_up(A) is None


@pytest.mark.parametrize("how", ["comes back", "is given away"])
async def test_an_end_is_forgotten_when_the_address_is_used_again(house: House, how: str) -> None:
    """Else the entry of an actor that only sleeps is removed; and a node that drains remembers every end for ever."""
    await house.take(A)
    house.holdings.departed(house.cell(A), Departure.ENDED)
    if how == "comes back":
        house.holdings.activated(house.cell(A), rehydrated=True)
    else:
        await house.holdings.give(A, "")
        entry = await house.directory.look_up(A)
        assert entry is not None
        assert house.ownership.taken(
            A, Entry("n.1", 2, await house.directory.write(A, Entry("n.1", 2, entry.revision)))
        )
    house.holdings.departed(house.cell(A), Departure.PASSIVATED)
    await house.clock.advance(2 * LINGER)
    await house.sweep()
    assert (await house.directory.look_up(A) or Entry("?", 0, 0)).asleep


async def test_a_session_that_has_left_before_it_is_announced_is_let_go_of(house: House) -> None:
    await house.holdings.announce(A)
    await house.clock.advance(2 * LINGER)
    await house.sweep()
    assert house.ownership.addresses == []
    assert (await house.directory.look_up(A) or Entry("?", 0, 0)).asleep


async def test_a_session_that_lives_when_it_is_announced_is_kept(house: House) -> None:
    house.used.add(A)
    await house.holdings.announce(A)
    await house.clock.advance(2 * LINGER)
    await house.sweep()
    assert house.ownership.addresses == [A]


async def test_what_leaves_after_its_hand_off_was_taken_back_is_let_go_of(house: House) -> None:
    await house.take(A)
    assert house.ownership.hand_off(A)
    house.ownership.stays(A)
    house.holdings.departed(house.cell(A), Departure.HANDED_OFF)
    await house.clock.advance(2 * LINGER)
    await house.sweep()
    assert house.ownership.addresses == []
