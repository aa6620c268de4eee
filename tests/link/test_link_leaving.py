"""A peer that stops in order says which calls it has not run, and is heard out."""

from __future__ import annotations

import asyncio

from link.ends import EDGE, OWNER, SEALS, Ends, Handler, Heard, a_head, answer, echo, error_of, pattern, soon
from understudy.actors.testing import ManualClock, settle
from understudy.runtime.link import InboundCall, Link, NotRun, PeerGone
from understudy.runtime.link.link import LAST_WORDS
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
    """An owner that has begun to leave, while a call is on its way to it, and what became of that call."""

    def __init__(self, clock: ManualClock, handler: Handler = echo) -> None:
        self.hub = MemoryHub(clock)
        self.wire = Hesitant(self.hub)
        self.owner = Link(self.wire, me=OWNER, serve=handler, seals=SEALS, clock=clock)
        self.edge = Link(self.hub.wire(), me=EDGE, serve=echo, seals=SEALS, clock=clock)
        self.ends = Ends(self.hub, self.edge, self.owner)

    async def begin(self, group: asyncio.TaskGroup) -> asyncio.Task[Exception | None]:
        await self.owner.__aenter__()
        await self.edge.__aenter__()
        await self.ends.ask()
        self.hub.freeze(OWNER)
        under_way = group.create_task(error_of(self.ends.ask()))
        await settle()
        self.left = group.create_task(self.owner.__aexit__(None, None, None))
        await self.wire.draining.wait()
        return under_way

    async def end(self) -> None:
        self.wire.go_on.set()
        await self.left
        await self.edge.__aexit__(None, None, None)


async def test_what_a_leaving_peer_has_not_run_is_known_though_others_find_nobody_there(clock: ManualClock) -> None:
    scene = Leaving(clock)
    async with asyncio.TaskGroup() as group:
        under_way = await scene.begin(group)
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
        await scene.end()


async def test_its_farewell_is_the_last_that_is_waited_for(clock: ManualClock) -> None:
    scene = Leaving(clock)
    async with asyncio.TaskGroup() as group:
        under_way = await scene.begin(group)
        scene.edge.peer_leaves(OWNER)
        await error_of(scene.ends.ask())
        await settle()
        assert not under_way.done()
        # It has never heard of that call.
        scene.wire.go_on.set()
        await settle()
        gone = under_way.result()
        assert isinstance(gone, PeerGone)
        assert gone.maybe_ran
        await scene.end()


async def test_a_leaving_peer_that_dies_is_not_waited_for_much_longer(clock: ManualClock) -> None:
    scene = Leaving(clock)
    async with asyncio.TaskGroup() as group:
        under_way = await scene.begin(group)
        scene.edge.peer_leaves(OWNER)
        await error_of(scene.ends.ask())
        await clock.advance(LAST_WORDS - 0.1)
        assert not under_way.done()
        await clock.advance(0.2)
        gone = under_way.result()
        assert isinstance(gone, PeerGone)
        assert gone.maybe_ran
        await scene.end()


async def test_a_peer_of_which_nobody_knows_that_it_leaves_is_not_waited_for(clock: ManualClock) -> None:
    scene = Leaving(clock)
    async with asyncio.TaskGroup() as group:
        under_way = await scene.begin(group)
        await error_of(scene.ends.ask())
        await settle()
        gone = under_way.result()
        assert isinstance(gone, PeerGone)
        assert gone.maybe_ran
        await scene.end()


async def test_an_edge_that_stops_itself_does_not_wait_for_a_peers_last_words(clock: ManualClock) -> None:
    scene = Leaving(clock)
    async with asyncio.TaskGroup() as group:
        under_way = await scene.begin(group)
        scene.edge.peer_leaves(OWNER)
        await error_of(scene.ends.ask())
        await settle()
        assert not under_way.done()
        await scene.edge.__aexit__(None, None, None)
        assert under_way.done()
        scene.wire.go_on.set()
        await scene.left


async def test_an_answer_that_is_read_slowly_is_finished_before_a_link_ends(clock: ManualClock) -> None:
    size = 2_000_000
    scene = Leaving(clock)
    scene.wire.go_on.set()
    async with asyncio.TaskGroup() as group:
        await scene.owner.__aenter__()
        await scene.edge.__aenter__()
        heard = Heard()
        heard.open.clear()
        group.create_task(scene.edge.forward(OWNER, a_head(f"/bytes/{size}"), b"", heard.send))
        await soon(lambda: heard.status is None and scene.owner.stats()["serving"])
        finishing = group.create_task(scene.owner.finish())
        await settle()
        assert not finishing.done()
        heard.open.set()
        while not finishing.done():
            await clock.advance(0.01)
        scene.left = group.create_task(scene.owner.__aexit__(None, None, None))
        await scene.end()
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
    async with asyncio.TaskGroup() as group:
        await scene.owner.__aenter__()
        await scene.edge.__aenter__()
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
        scene.left = group.create_task(scene.owner.__aexit__(None, None, None))
        await scene.end()
