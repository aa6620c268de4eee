"""The event log contract, part two: what makes room, what is too old, what is dropped, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ..address import Address
from ..errors import StoreUnavailable
from ..event_log import EventLog, event_log_of
from .case import needs_a_second_store
from .event_case import EventLogCase, numbered

__all__ = ["EventBoundsContract"]

CALLS: dict[str, Callable[[EventLog, Address], Coroutine[Any, Any, object]]] = {
    "append": lambda log, address: log.append(address, "stream", 2, [b"two"], head=b"head", writer="node-1"),
    "read": lambda log, address: log.read(address, "stream"),
    "drop": lambda log, address: log.drop([(address, "stream")]),
    "drop_all": lambda log, address: log.drop_all(address),
    "expire": lambda log, address: log.expire(),
}


class EventBoundsContract(EventLogCase):
    """Bounds and outages."""

    async def test_beyond_the_bound_of_events_the_oldest_go(self) -> None:
        async with self.log(max_events=10) as log:
            one_by_one = Address.new("session")
            for number in range(1, 36):
                await self.wrote(log, number, [b"event %d" % number], address=one_by_one)
                logged = await self.found(log, one_by_one)
                assert (logged.oldest, logged.last) == (max(number - 9, 1), number)
                assert logged.events == tuple(numbered(max(number - 9, 1), number))
            at_once = await self.wrote(log, 1, numbered(1, 35))
            in_parts = await self.wrote(log, 1, numbered(1, 12))
            for first in range(13, 36, 6):
                await self.wrote(log, first, numbered(first, min(first + 5, 35)), address=in_parts)
            for address in (one_by_one, at_once, in_parts):
                assert (await self.found(log, address)).events == tuple(numbered(26, 35))
                assert (await self.found(log, address, after=3)).oldest == 26
                assert (await self.found(log, address, after=33)).events == tuple(numbered(34, 35))
            await self.wrote(log, 36, numbered(36, 36), address=at_once, writer="node-2", ends=True)
            assert (await self.found(log, at_once)).events == tuple(numbered(27, 36))

    async def test_beyond_the_bound_of_bytes_the_oldest_go_and_the_newest_stays(self) -> None:
        async with self.log(max_bytes=100) as log:
            address = await self.wrote(log, 1, [b"a" * 40])
            await self.wrote(log, 2, [b"b" * 60], address=address)
            assert (await self.found(log, address)).oldest == 1
            await self.wrote(log, 3, [b"c"], address=address)
            assert (await self.found(log, address)).events == (b"b" * 60, b"c")
            await self.wrote(log, 4, [b"d" * 101], address=address)
            assert (await self.found(log, address)).events == (b"d" * 101,)
            await self.wrote(log, 5, [], address=address, writer="node-2")
            assert (await self.found(log, address)).events == (b"d" * 101,)
            await self.wrote(log, 5, [b"e"], address=address)
            logged = await self.found(log, address)
            assert (logged.oldest, logged.events) == (5, (b"e",))

    async def test_a_long_stream_keeps_what_it_may_when_its_writers_change(self) -> None:
        async with self.log(max_events=50) as log:
            address = Address.new("session")
            for number in range(1, 400, 3):
                batch = numbered(number, number + 2)
                await self.wrote(log, number, batch, address=address, writer=f"node-{number // 40}")
            assert (await self.found(log, address)).events == tuple(numbered(350, 399))

    async def test_beyond_the_bound_of_all_the_streams_of_longest_ago_go(self) -> None:
        async with self.log(max_total_bytes=2**18) as log:
            addresses = [await self.wrote(log, 1, [b"x" * 10_000, b"y" * 10_000]) for _ in range(40)]
            await log.expire()
            held = [await log.read(address, "stream") for address in addresses]
            assert held[0] is None or held[0].oldest > 1
            newest = held[-1]
            assert newest is not None
            assert newest.events == (b"x" * 10_000, b"y" * 10_000)
            sizes = [0 if logged is None else sum(map(len, logged.events)) for logged in held]
            assert 2**17 < sum(sizes) <= 2**18
            assert sizes == sorted(sizes)

    async def test_a_stream_that_is_too_old_is_gone_for_every_method(self) -> None:
        async with self.log(max_age=self.lifetime) as log:
            address = await self.wrote(log, 1, numbered(1, 3), ends=True)
            other = await self.wrote(log, 1, numbered(1, 3))
            await self.pass_time(self.lifetime * 1.1)
            assert await log.read(address, "stream") is None
            await log.drop([(address, "stream")])
            await self.wrote(log, 57, [b"new"], address=address, writer="node-2")
            logged = await self.found(log, address)
            assert (logged.oldest, logged.events, logged.ended) == (57, (b"new",), False)
            assert await log.read(other, "stream") is None

    async def test_each_append_renews_a_stream(self) -> None:
        async with self.log(max_age=self.lifetime) as log:
            address = await self.wrote(log, 1, [b"event 1"])
            for number in range(2, 5):
                await self.pass_time(self.lifetime * 0.6)
                await self.wrote(log, number, [b"event %d" % number], address=address)
                logged = await self.found(log, address)
                assert logged.last == number
                assert logged.oldest < number
            await self.pass_time(self.lifetime * 0.6)
            assert (await self.found(log, address)).events[-1] == b"event 4"

    async def test_expire_sweeps_what_is_too_old_and_nothing_else(self) -> None:
        async with self.log(max_age=self.lifetime) as log:
            old = [await self.wrote(log, 1, [b"old"]) for _ in range(5)]
            await self.pass_time(self.lifetime * 0.6)
            young = await self.wrote(log, 1, [b"young"])
            await self.pass_time(self.lifetime * 0.6)
            swept = [await log.expire(limit=3), await log.expire(limit=3), await log.expire()]
            assert swept == ([3, 2, 0] if self.sweeps else [0, 0, 0])
            assert (await self.found(log, young)).events == (b"young",)
            for address in old:
                assert await log.read(address, "stream") is None
            with pytest.raises(ValueError, match="limit"):
                await log.expire(limit=0)

    async def test_drop_forgets_these_streams_and_no_others(self) -> None:
        async with self.log() as log:
            address, other = Address.new("session"), Address.new("session")
            for name in ("a", "b", "a.b", "a.b.c"):
                await self.wrote(log, 1, numbered(1, 3), address=address, stream=name)
            await self.wrote(log, 1, numbered(1, 3), address=other, stream="a")
            await log.drop([])
            await log.drop([(address, "a"), (address, "missing"), (Address.new("session"), "a"), (address, "a.b")])
            assert await log.read(address, "a") is None
            assert await log.read(address, "a.b") is None
            for kept, name in ((address, "b"), (address, "a.b.c"), (other, "a")):
                assert (await self.found(log, kept, name)).events == tuple(numbered(1, 3))

    async def test_drop_all_forgets_every_stream_of_one_actor(self) -> None:
        async with self.log() as log:
            address = Address("session", "same")
            others = (Address("session", "sam"), Address("session", "same2"), Address("task", "same"))
            for one in (address, *others):
                for name in ("a", "b.c", "standalone"):
                    await self.wrote(log, 1, [b"one"], address=one, stream=name)
            await log.drop_all(address)
            await log.drop_all(Address.new("session"))
            for name in ("a", "b.c", "standalone"):
                assert await log.read(address, name) is None
                for other in others:
                    await self.found(log, other, name)

    async def test_a_stream_that_was_dropped_may_begin_again(self) -> None:
        async with self.log() as log:
            address = await self.wrote(log, 1, numbered(1, 3), ends=True)
            for first in (1, 4, 9):
                await log.drop([(address, "stream")])
                await log.append(address, "stream", first, [b"again"], head=b"new", writer="node-2")
                logged = await self.found(log, address)
                assert (logged.head, logged.oldest, logged.last, logged.ended) == (b"new", first, first, False)
            await log.drop_all(address)
            await self.wrote(log, 10, [b"again"], address=address, writer="node-2")
            assert (await self.found(log, address)).oldest == 10

    async def test_a_thousand_streams_at_once(self) -> None:
        async with self.log() as log:
            addresses = [Address.new("session") for _ in range(1000)]

            async def write(place: int) -> None:
                for first, event in ((1, b"%d" % place), (2, b"more")):
                    for attempts_left in range(5, -1, -1):
                        try:
                            await self.wrote(log, first, [event], address=addresses[place], ends=first == 2)
                            break
                        except StoreUnavailable:
                            # A thousand may be more than a slow disk takes within a deadline: a repeat settles it.
                            if not attempts_left:
                                raise

            await asyncio.gather(*(write(place) for place in range(1000)))
            read = await asyncio.gather(*(log.read(address, "stream") for address in addresses))
            assert [logged and logged.events for logged in read] == [(b"%d" % n, b"more") for n in range(1000)]
            await log.drop([(address, "stream") for address in addresses])
            assert await asyncio.gather(*(log.read(address, "stream") for address in addresses)) == [None] * 1000

    @pytest.mark.parametrize("name", CALLS)
    async def test_a_cancelled_call_leaves_the_log_usable_and_may_be_repeated(self, name: str) -> None:
        async with self.log() as log:
            for steps in range(8):
                address = await self.wrote(log, 1, [b"one"])
                other = await self.wrote(log, 1, [b"one"])
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(CALLS[name](log, address))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    task.cancel()
                await self.wrote(log, 2, [b"two"], address=other)
                assert (await self.found(log, other)).events == (b"one", b"two")
                logged = await log.read(address, "stream")
                # Done, not done, or still to be done: all of it is allowed, and nothing else.
                if logged is None:
                    assert name in ("drop", "drop_all")
                else:
                    assert logged.events == (b"one",) or (name == "append" and logged.events == (b"one", b"two"))
                if name == "append":
                    await CALLS[name](log, address)
                    assert (await self.found(log, address)).events == (b"one", b"two")

    async def test_a_closed_log_says_that_it_is_unavailable(self) -> None:
        async with self.opened() as store:
            log = event_log_of(store)
            assert log is not None
            address = await self.wrote(log, 1, [b"one"])
            await store.aclose()
            for name, call in CALLS.items():
                with pytest.raises(StoreUnavailable) as caught:
                    await call(log, address)
                assert caught.value.outcome_unknown is False, name

    @needs_a_second_store
    async def test_what_was_acknowledged_is_there_after_a_restart(self) -> None:
        async with self.opened() as store:
            log = event_log_of(store)
            assert log is not None
            addresses = [await self.wrote(log, 1, numbered(1, 3), ends=n % 2 == 0) for n in range(20)]
            before = [await log.read(address, "stream") for address in addresses]
            await store.aclose()
            async with self.second_log() as again:
                assert [await again.read(address, "stream") for address in addresses] == before
                await self.wrote(again, 4, [b"event 4"], address=addresses[1], writer="node-2")
                assert (await self.found(again, addresses[1])).events == tuple(numbered(1, 4))
