"""A peer that stops in order says which calls it has not run, and is heard out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from link.ends import EDGE, OWNER, SEALS, Ends, Handler, Heard, a_head, answer, echo, error_of, pattern, soon
from understudy.actors.testing import ManualClock, settle
from understudy.runtime.link import InboundCall, Link, NotRun, PeerGone
from understudy.runtime.link.settling import LAST_WORDS
from understudy.runtime.link.testing import MemoryHub, MemoryWire


class Hesitant(MemoryWire):
    """Hears nothing new, and takes its time over what is on its way."""

    def __init__(self, hub: MemoryHub) -> None:
        super().__init__(hub)
        self.draining = asyncio.Event()
        self.go_on = asyncio.Event()

    async def drain(self) -> None:
        await super().drain()
        self.draining.set()
        await self.go_on.wait()


class Leaving:
    """An owner that leaves, and an edge that forwards to it."""

    def __init__(self, clock: ManualClock, handler: Handler = echo) -> None:
        self.hub = MemoryHub(clock)
        self.wire = Hesitant(self.hub)
        self.owner = Link(self.wire, me=OWNER, serve=handler, seals=SEALS, clock=clock)
        self.edge = Link(self.hub.wire(), me=EDGE, serve=echo, seals=SEALS, clock=clock)
        self.ends = Ends(self.hub, self.edge, self.owner)
        self._owner_runs = AsyncExitStack()
        self._edge_runs = AsyncExitStack()

    @asynccontextmanager
    async def play(self) -> AsyncGenerator[asyncio.TaskGroup]:
        """Both run; in the end the owner has left, and the edge too."""
        async with asyncio.TaskGroup() as self.group:
            await self._owner_runs.enter_async_context(self.owner)
            await self._edge_runs.enter_async_context(self.edge)
            self.left: asyncio.Task[None] | None = None
            yield self.group
            left = self.left or self._leave()
            self.wire.go_on.set()
            await left
            await self.stop_edge()

    async def leave(self) -> asyncio.Task[Exception | None]:
        """The owner begins to, while a call is on its way to it: what becomes of that call."""
        await self.ends.ask()
        self.hub.freeze(OWNER)
        under_way = self.group.create_task(error_of(self.ends.ask()))
        await settle()
        self.left = self._leave()
        await self.wire.draining.wait()
        return under_way

    def _leave(self) -> asyncio.Task[None]:
        return self.group.create_task(self._owner_runs.aclose())

    async def stop_edge(self) -> None:
        await self._edge_runs.aclose()


def assert_in_doubt(call: asyncio.Task[Exception | None]) -> None:
    gone = call.result()
    assert isinstance(gone, PeerGone)
    assert gone.maybe_ran


async def test_what_a_leaving_peer_has_not_run_is_known_though_others_find_nobody_there(clock: ManualClock) -> None:
    scene = Leaving(clock)
    async with scene.play():
        under_way = await scene.leave()
        scene.edge.peer_leaves(OWNER)
        # never-run-twice: this one surely has not run, and need not wait for the other.
        gone = await error_of(scene.ends.ask())
        assert isinstance(gone, PeerGone)
        assert not gone.maybe_ran
        await settle()
        assert not under_way.done()
        scene.hub.thaw(OWNER)
        await settle()
        refused = under_way.result()
        assert isinstance(refused, NotRun)
        assert refused.reason == "closing"


async def test_its_farewell_is_the_last_that_is_waited_for(clock: ManualClock) -> None:
    scene = Leaving(clock)
    async with scene.play():
        under_way = await scene.leave()
        scene.edge.peer_leaves(OWNER)
        await error_of(scene.ends.ask())
        await settle()
        assert not under_way.done()
        # It has never heard of that call.
        scene.wire.go_on.set()
        await settle()
        assert_in_doubt(under_way)


async def test_a_leaving_peer_that_dies_is_not_waited_for_much_longer(clock: ManualClock) -> None:
    scene = Leaving(clock)
    async with scene.play():
        under_way = await scene.leave()
        scene.edge.peer_leaves(OWNER)
        await error_of(scene.ends.ask())
        await clock.advance(LAST_WORDS - 0.1)
        assert not under_way.done()
        await clock.advance(0.2)
        assert_in_doubt(under_way)


async def test_a_peer_of_which_nobody_knows_that_it_leaves_is_not_waited_for(clock: ManualClock) -> None:
    scene = Leaving(clock)
    async with scene.play():
        under_way = await scene.leave()
        await error_of(scene.ends.ask())
        await settle()
        assert_in_doubt(under_way)


async def test_an_edge_that_stops_itself_does_not_wait_for_a_peers_last_words(clock: ManualClock) -> None:
    scene = Leaving(clock)
    async with scene.play():
        under_way = await scene.leave()
        scene.edge.peer_leaves(OWNER)
        await error_of(scene.ends.ask())
        await settle()
        assert not under_way.done()
        await scene.stop_edge()
        assert under_way.done()


async def test_an_answer_that_is_read_slowly_is_finished_before_a_link_ends(clock: ManualClock) -> None:
    size = 2_000_000
    scene = Leaving(clock)
    heard = Heard()
    heard.open.clear()
    async with scene.play() as group:
        group.create_task(scene.edge.forward(OWNER, a_head(f"/bytes/{size}"), b"", heard.send))
        await soon(lambda: heard.status is None and scene.owner.stats()["serving"])
        finishing = group.create_task(scene.owner.finish())
        await settle()
        assert not finishing.done()
        heard.open.set()
        while not finishing.done():
            await clock.advance(0.01)
    assert heard.complete
    assert heard.body == pattern(size)


async def test_finishing_does_not_wait_for_what_comes_later(clock: ManualClock) -> None:
    held = [asyncio.Event(), asyncio.Event()]
    begun = 0

    async def handler(call: InboundCall) -> None:
        nonlocal begun
        number, begun = begun, begun + 1
        await held[number].wait()
        await answer(call, b"")

    scene = Leaving(clock, handler)
    async with scene.play() as group:
        group.create_task(scene.ends.ask())
        await soon(lambda: begun == 1)
        finishing = group.create_task(scene.owner.finish())
        await settle()
        group.create_task(scene.ends.ask())
        await soon(lambda: begun == 2)
        assert not finishing.done()
        held[0].set()
        await settle()
        assert finishing.done()
        held[1].set()
        await settle()
