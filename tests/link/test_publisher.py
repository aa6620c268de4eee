"""When a link publishes: at once, or with the next turn of the event loop; and what if it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from link.ends import EDGE, OWNER, SEALS, Ends, answer, echo, error_of, two_ends
from understudy.actors.testing import ManualClock, settle
from understudy.runtime.link import OLDEST, VERSION, InboundCall, Link, PeerGone, publisher
from understudy.runtime.link.publisher import RUSH
from understudy.runtime.link.testing import MemoryHub, MemoryWire
from understudy.runtime.link.wire import Letter


class BusyWire(MemoryWire):
    """Has no time at once, as a socket that is full."""

    def publish_at_once(self, letters: Sequence[Letter]) -> bool:
        return False


@asynccontextmanager
async def ends_with(wire: type[MemoryWire], clock: ManualClock) -> AsyncIterator[Ends]:
    hub = MemoryHub(clock)
    async with (
        Link(hub.wire(), me=OWNER, serve=echo, seals=SEALS, clock=clock) as owner,
        Link(wire(hub), me=EDGE, serve=echo, seals=SEALS, clock=clock) as edge,
    ):
        edge.set_peer_versions(OWNER, (OLDEST, VERSION))
        owner.set_peer_versions(EDGE, (OLDEST, VERSION))
        ends = Ends(hub, edge, owner)
        await ends.ask()
        hub.sent.clear()
        yield ends


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def sent_by_the_edge(ends: Ends) -> int:
    return sum(source == EDGE for source, _, _ in ends.hub.sent)


async def test_a_call_that_is_alone_is_published_in_the_iteration_in_which_it_comes(clock: ManualClock) -> None:
    async with ends_with(MemoryWire, clock) as ends, asyncio.TaskGroup() as group:
        await clock.advance(2 * RUSH)
        group.create_task(ends.ask())
        await asyncio.sleep(0)
        assert sent_by_the_edge(ends) == 1


async def test_calls_of_one_iteration_share_what_is_published_in_the_next(clock: ManualClock) -> None:
    async with ends_with(MemoryWire, clock) as ends, asyncio.TaskGroup() as group:
        asked = [group.create_task(ends.ask()) for _ in range(10)]
        await settle(20)
        assert all(task.done() for task in asked)
        assert sent_by_the_edge(ends) == 1


async def test_a_call_that_comes_right_after_another_lets_others_add_to_it(clock: ManualClock) -> None:
    # What has gathered while a process had to wait comes one by one, and would leave one by one.
    async with ends_with(MemoryWire, clock) as ends, asyncio.TaskGroup() as group:
        await clock.advance(2 * RUSH)
        await ends.ask()
        ends.hub.sent.clear()
        group.create_task(ends.ask())
        await asyncio.sleep(0)
        assert sent_by_the_edge(ends) == 0
        await asyncio.sleep(0)
        assert sent_by_the_edge(ends) == 1


async def test_what_cannot_be_published_at_once_is_published_in_order(clock: ManualClock) -> None:
    async with ends_with(BusyWire, clock) as ends:
        heard = await asyncio.gather(*[ends.ask(str(number).encode()) for number in range(200)])
        assert [one.body for one in heard] == [str(number).encode() for number in range(200)]
        assert ends.owner.stats()["reordered"] == ends.owner.stats()["duplicates"] == 0


async def test_a_failure_to_publish_is_survived(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    async with two_ends(clock=clock) as ends, asyncio.TaskGroup() as group:
        await ends.ask()
        path = ends.edge._paths[OWNER]
        take, failed = path.session.take_batches, []

        def fail_once(now: float) -> list[object]:
            if not failed:
                failed.append(now)
                raise RuntimeError("a bug")
            return take(now)  # type: ignore[return-value]

        path.session.take_batches = fail_once  # type: ignore[method-assign,assignment]
        asked = group.create_task(ends.ask(b"still"))
        await settle(20)
        assert failed
        assert not asked.done()
        await clock.advance(1.0)
        await settle(50)
        assert asked.result().body == b"still"
    assert "publishing failed" in caplog.text


async def test_calls_that_come_in_one_batch_are_answered_in_one(clock: ManualClock) -> None:
    async with ends_with(MemoryWire, clock) as ends:
        await asyncio.gather(*[ends.ask() for _ in range(10)])
        assert [(source, target) for source, target, _ in ends.hub.sent] == [(EDGE, OWNER), (OWNER, EDGE)]


async def test_a_lone_call_is_answered_and_its_answer_taken_in_the_turns_that_bring_them(clock: ManualClock) -> None:
    async with ends_with(MemoryWire, clock) as ends, asyncio.TaskGroup() as group:
        await clock.advance(2 * RUSH)
        asked = group.create_task(ends.ask())
        await asyncio.sleep(0)
        assert [source for source, _, _ in ends.hub.sent] == [EDGE]
        await clock.advance(2 * RUSH)
        for _ in range(2):
            # One turn of the memory wire there, and one back.
            await asyncio.sleep(0)
        assert [source for source, _, _ in ends.hub.sent] == [EDGE, OWNER]
        assert asked.done()


async def test_the_answer_of_a_lone_call_leaves_before_its_handler_does_and_those_of_a_batch_together(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    async def handler(call: InboundCall) -> None:
        await echo(call)
        sent.append(sum(source == OWNER for source, _, _ in ends.hub.sent))

    async with two_ends(handler, clock=clock) as ends:
        await ends.ask()
        ends.hub.sent.clear()
        sent.clear()
        monkeypatch.setattr(publisher, "RUSH", -1.0)
        await asyncio.gather(*[ends.ask() for _ in range(4)])
        # The first call leaves alone, the others share a batch.
        assert sent == [1, 1, 1, 1]
        assert [source for source, _, _ in ends.hub.sent].count(OWNER) == 2


async def test_nothing_of_a_batch_is_acted_on_after_the_frame_that_ends_its_path(clock: ManualClock) -> None:
    served: list[bytes] = []

    async def handler(call: InboundCall) -> None:
        served.append((await call.receive())["body"])
        if served[-1] == b"last":
            ends.owner.peer_gone(EDGE)
        else:
            await answer(call, b"")

    async with two_ends(handler, clock=clock) as ends, asyncio.TaskGroup() as group:
        await ends.ask(b"first")
        served.clear()
        asked = [group.create_task(error_of(ends.ask(body))) for body in (b"last", b"never")]
        await settle(20)
        assert served == [b"last"]
        await clock.advance(31)
        await settle(20)
        assert [type(task.result()) for task in asked] == [PeerGone, PeerGone]
