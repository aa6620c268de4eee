"""`Settlements`: how many peers that are gone a link remembers, and what it does beyond."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from link.ends import EDGE, OWNER, SEALS, Heard, a_head, error_of, soon
from understudy.actors.testing import ManualClock, settle
from understudy.runtime.link import InboundCall, Link, PeerGone
from understudy.runtime.link import link as link_module
from understudy.runtime.link.settling import LAST_WORDS
from understudy.runtime.link.testing import MemoryHub, MemoryWire

OTHER = "owner-2.cc"


class Behind(MemoryWire):
    """Has not read yet what came before, for as long as a test says so."""

    def __init__(self, hub: MemoryHub) -> None:
        super().__init__(hub)
        self.caught_up = asyncio.Event()

    async def catch_up(self) -> None:
        await self.caught_up.wait()


class Three:
    """An edge with a call at each of two owners, which hang. It remembers one peer that is gone, and no more."""

    def __init__(self, clock: ManualClock) -> None:
        self.hub = MemoryHub(clock)
        self.wire = Behind(self.hub)
        self.owners = {
            name: Link(self.hub.wire(), me=name, serve=_hang, seals=SEALS, clock=clock) for name in (OWNER, OTHER)
        }
        self.edge = Link(self.wire, me=EDGE, serve=_hang, seals=SEALS, clock=clock)
        self.calls: dict[str, asyncio.Task[Exception | None]] = {}

    async def call(self, owner: str, group: asyncio.TaskGroup) -> None:
        self.calls[owner] = group.create_task(error_of(self.edge.forward(owner, a_head(), b"", Heard().send)))
        await soon(lambda: self.owners[owner].stats()["serving"])


async def _hang(call: InboundCall) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def three(clock: ManualClock) -> AsyncIterator[Three]:
    scene = Three(clock)
    async with (
        scene.owners[OWNER],
        scene.owners[OTHER],
        scene.edge,
        asyncio.timeout(30.0),
        asyncio.TaskGroup() as group,
    ):
        try:
            # There is room for one path: another begins when this one is gone.
            await scene.call(OWNER, group)
            yield scene
        finally:
            scene.wire.caught_up.set()
            for call in scene.calls.values():
                call.cancel()


@pytest.fixture(autouse=True)
def one_is_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "MAX_PATHS", 1)


async def test_a_path_too_many_ends_at_once(clock: ManualClock) -> None:
    async with three(clock) as scene, asyncio.TaskGroup() as group:
        scene.edge.peer_gone(OWNER)
        await settle()
        assert not scene.calls[OWNER].done()
        await scene.call(OTHER, group)
        scene.edge.peer_gone(OTHER)
        await settle()
        gone = scene.calls[OTHER].result()
        assert isinstance(gone, PeerGone)
        assert gone.maybe_ran
        assert not scene.calls[OWNER].done()
        scene.wire.caught_up.set()
        assert isinstance(await scene.calls[OWNER], PeerGone)


@pytest.mark.parametrize("forgotten", [True, False])
async def test_of_peers_that_leave_those_of_long_ago_are_forgotten(clock: ManualClock, forgotten: bool) -> None:
    async with three(clock) as scene:
        scene.wire.caught_up.set()
        scene.edge.peer_leaves(OWNER)
        if forgotten:
            scene.edge.peer_leaves(OTHER)
        scene.hub.cut(OWNER)
        await error_of(scene.edge.forward(OWNER, a_head(), b"", Heard().send))
        await settle()
        assert scene.calls[OWNER].done() is forgotten
        await clock.advance(LAST_WORDS + 0.1)
        assert isinstance(await scene.calls[OWNER], PeerGone)


async def test_the_end_of_a_lease_is_the_last_word_also_of_one_that_leaves(clock: ManualClock) -> None:
    async with three(clock) as scene:
        scene.wire.caught_up.set()
        scene.edge.peer_leaves(OWNER)
        scene.edge.peer_gone(OWNER)
        await settle()
        assert scene.calls[OWNER].done()
