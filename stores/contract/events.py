"""The event log contract, part one: what an append does, what a read shows, and who may append."""

from __future__ import annotations

import asyncio
import os

import pytest

from ..address import Address
from ..errors import EventsTooLarge, StreamTaken
from ..event_log import HEAD_LIMIT, EventLog, LoggedStream
from .case import needs_a_second_store
from .event_case import EventLogCase, numbered
from .records import IDS

__all__ = ["AppendsContract"]

STREAMS = ("a", "A", "0", ".", "..", "-", "_", "a.b", "a..b", "a-b", "a_b", "standalone", "x" * 64, "." * 64)

NO_STREAMS = ("", "x" * 65, "a b", "a/b", "a*", ">", "a=b", "\u00e9", "a\n", "\0")

NO_WRITERS = ("", "w" * 129, "a b", "\u00e9", "a\n")

EVENTS = (b"", b"\0", bytes(range(256)), b"\xff\xfe\xc0\x80", os.urandom(1024) * 1024)


class AppendsContract(EventLogCase):
    """One stream and its writers."""

    async def test_the_log_is_an_event_log_with_the_bounds_it_was_given(self) -> None:
        async with self.log() as log:
            assert isinstance(log, EventLog)
            assert log.bounds == self.bounds
            assert all(type(value) in (int, float) for value in log.stats().values())

    async def test_what_was_appended_is_read_in_order_and_byte_for_byte(self) -> None:
        async with self.log() as log:
            address = Address.new("session")
            await log.append(address, "stream", 1, EVENTS[:2], head=b"\0head\xff", writer="node-1")
            await log.append(address, "stream", 3, EVENTS[2:], head=b"another", writer="node-2/7")
            assert await log.read(address, "stream") == LoggedStream(
                head=b"\0head\xff", first=1, events=EVENTS, last=5, oldest=1, writer="node-2/7", ended=False
            )

    async def test_a_read_starts_after_the_number_that_it_names(self) -> None:
        async with self.log() as log:
            address = await self.wrote(log, 1, numbered(1, 10))
            for after in range(13):
                logged = await self.found(log, address, after=after)
                assert logged.events == tuple(numbered(after + 1, 10))
                assert (logged.first, logged.last, logged.oldest) == (min(after, 10) + 1, 10, 1)

    async def test_there_is_nothing_where_nothing_was_appended(self) -> None:
        async with self.log() as log:
            address = await self.wrote(log, 1, [b"one"])
            assert await log.read(address, "other") is None
            assert await log.read(Address.new("session"), "stream") is None

    async def test_a_stream_may_begin_at_any_number(self) -> None:
        async with self.log() as log:
            for first in (57, 2**40):
                address = await self.wrote(log, first, [b"one", b"two"])
                logged = await self.found(log, address)
                assert (logged.first, logged.last, logged.oldest) == (first, first + 1, first)
                await self.wrote(log, first + 2, [b"three"], address=address)
                assert (await self.found(log, address, after=first)).events == (b"two", b"three")

    async def test_an_append_without_events_begins_a_stream(self) -> None:
        async with self.log() as log:
            for first in (1, 57):
                address = await self.wrote(log, first, [])
                assert await log.read(address, "stream") == LoggedStream(
                    head=b"head", first=first, events=(), last=first - 1, oldest=first, writer="node-1", ended=False
                )
                await self.wrote(log, first, [b"one"], address=address)
                assert (await self.found(log, address)).events == (b"one",)

    async def test_a_stream_ends_with_its_last_events_or_after_them(self) -> None:
        async with self.log() as log:
            at_once = await self.wrote(log, 1, [b"one", b"two"], ends=True)
            later = await self.wrote(log, 1, [b"one", b"two"])
            assert not (await self.found(log, later)).ended
            await self.wrote(log, 3, [], address=later, ends=True)
            empty = await self.wrote(log, 1, [], ends=True)
            for address in (at_once, later):
                logged = await self.found(log, address)
                assert (logged.events, logged.last, logged.ended) == ((b"one", b"two"), 2, True)
            assert (await self.found(log, empty)).ended

    async def test_nothing_follows_the_end(self) -> None:
        async with self.log() as log:
            address = await self.wrote(log, 1, [b"one"], ends=True)
            for events, ends in (([b"two"], False), ([b"two"], True), ([], True), ([], False)):
                for writer in ("node-1", "node-2"):
                    if writer == "node-1" and not events:
                        continue  # a repeat
                    with pytest.raises(StreamTaken) as caught:
                        await self.wrote(log, 2, events, address=address, writer=writer, ends=ends)
                    assert (caught.value.first, caught.value.last, caught.value.ended) == (2, 1, True)
            assert (await self.found(log, address)).events == (b"one",)

    async def test_an_append_that_does_not_follow_is_refused_and_writes_nothing(self) -> None:
        async with self.log() as log:
            address = await self.wrote(log, 1, numbered(1, 3))
            before = await log.read(address, "stream")
            for first, writer in ((3, "node-2"), (1, "node-2"), (5, "node-2"), (5, "node-1"), (9, "node-1")):
                with pytest.raises(StreamTaken) as caught:
                    await self.wrote(log, first, [b"other"], address=address, writer=writer)
                assert (caught.value.address, caught.value.stream) == (address, "stream")
                assert (caught.value.first, caught.value.last, caught.value.ended) == (first, 3, False)
            assert await log.read(address, "stream") == before

    async def test_the_one_who_comes_second_learns_that_it_is_not_the_writer(self) -> None:
        async with self.log() as log:
            address = await self.wrote(log, 1, [b"one"], writer="old")
            await self.wrote(log, 2, [b"two"], address=address, writer="new")
            with pytest.raises(StreamTaken):
                await self.wrote(log, 2, [b"two"], address=address, writer="old")
            with pytest.raises(StreamTaken):
                await self.wrote(log, 1, [b"one"], address=address, writer="old")
            assert (await self.found(log, address)).writer == "new"

    async def test_a_repeat_is_acknowledged_and_changes_nothing(self) -> None:
        async with self.log() as log:
            address = await self.wrote(log, 1, numbered(1, 3))
            await self.wrote(log, 4, numbered(4, 5), address=address)
            before = await log.read(address, "stream")
            for first, events in ((4, numbered(4, 5)), (1, numbered(1, 3)), (2, numbered(2, 5)), (5, [b"event 5"])):
                await self.wrote(log, first, events, address=address)
            await self.wrote(log, 4, [b"other", b"bytes"], address=address)
            assert await log.read(address, "stream") == before
            await self.wrote(log, 6, [b"event 6"], address=address, ends=True)
            before = await log.read(address, "stream")
            await self.wrote(log, 6, [b"event 6"], address=address, ends=True)
            await self.wrote(log, 4, numbered(4, 5), address=address)
            assert await log.read(address, "stream") == before

    async def test_a_repeat_may_bring_what_came_since(self) -> None:
        async with self.log() as log:
            address = await self.wrote(log, 1, numbered(1, 3))
            await self.wrote(log, 2, numbered(2, 6), address=address)
            assert (await self.found(log, address)).events == tuple(numbered(1, 6))
            await self.wrote(log, 5, numbered(5, 6), address=address, ends=True)
            logged = await self.found(log, address)
            assert (logged.events, logged.ended) == (tuple(numbered(1, 6)), True)
            with pytest.raises(StreamTaken):
                await self.wrote(log, 5, numbered(5, 7), address=address)

    async def test_of_writers_that_race_each_number_has_one(self) -> None:
        async with self.log() as log:
            address = Address.new("session")
            for number in range(1, 11):
                outcomes = await asyncio.gather(
                    *(
                        self.wrote(log, number, [b"%d by %d" % (number, n)], address=address, writer=f"node-{n}")
                        for n in range(6)
                    ),
                    return_exceptions=True,
                )
                taken = [outcome for outcome in outcomes if isinstance(outcome, StreamTaken)]
                assert (len(taken), outcomes.count(address)) == (5, 1), outcomes
                logged = await self.found(log, address)
                winner = outcomes.index(address)
                assert (logged.writer, logged.last) == (f"node-{winner}", number)
                assert logged.events[-1] == b"%d by %d" % (number, winner)

    @needs_a_second_store
    async def test_of_writers_at_two_nodes_each_number_has_one(self) -> None:
        async with self.log() as log, self.second_log() as other:
            address = Address.new("session")
            for number in range(1, 31):
                outcomes = await asyncio.gather(
                    self.wrote(log, number, [b"here"], address=address, writer="here"),
                    self.wrote(other, number, [b"there"], address=address, writer="there"),
                    return_exceptions=True,
                )
                assert sorted(isinstance(outcome, StreamTaken) for outcome in outcomes) == [False, True], outcomes
                winner = b"there" if isinstance(outcomes[0], StreamTaken) else b"here"
                for reader in (log, other):
                    logged = await self.found(reader, address)
                    assert (logged.writer, logged.events[-1], logged.last) == (winner.decode(), winner, number)

    @needs_a_second_store
    async def test_an_append_at_one_node_is_read_at_the_other_at_once_and_goes_on_there(self) -> None:
        async with self.log() as log, self.second_log() as other:
            address = await self.wrote(log, 1, [b"event 1"], writer="here")
            for number in range(2, 20, 2):
                assert (await self.found(other, address)).last == number - 1
                await self.wrote(other, number, [b"event %d" % number], address=address, writer="there")
                assert (await self.found(log, address)).last == number
                await self.wrote(log, number + 1, [b"event %d" % (number + 1)], address=address, writer="here")
            assert (await self.found(other, address)).events == tuple(numbered(1, 19))

    async def test_one_giant_event_is_kept_and_the_stream_goes_on(self) -> None:
        async with self.log() as log:
            giant = os.urandom(1024) * (self.largest_event // 1024)
            address = await self.wrote(log, 1, [b"event 1", giant])
            logged = await self.found(log, address)
            # It alone is more than a stream may hold, so that what came before it has made room.
            assert (logged.oldest, logged.last, logged.events) == (2, 2, (giant,))
            await self.wrote(log, 1, [b"event 1", giant], address=address)
            await self.wrote(log, 3, [b"event 3"], address=address, writer="node-2")
            logged = await self.found(log, address)
            assert (logged.oldest, logged.last, logged.events) == (3, 3, (b"event 3",))

    async def test_more_than_the_log_can_hold_at_all_is_refused_for_good(self) -> None:
        async with self.log(max_total_bytes=2**20) as log:
            address = await self.wrote(log, 1, [b"one"])
            for events in ([bytes(2**20 + 1)], [bytes(2**18)] * 5):
                with pytest.raises(EventsTooLarge) as caught:
                    await self.wrote(log, 2, events, address=address)
                assert caught.value.size >= 2**20 + 1 > caught.value.most
            await self.wrote(log, 2, [b"two"], address=address)
            assert (await self.found(log, address)).events == (b"one", b"two")

    async def test_every_name_is_a_stream_of_its_own(self) -> None:
        async with self.log() as log:
            addresses = [Address(kind, id) for kind in ("session", "s" * 32) for id in IDS]
            streams = [(address, stream) for address in addresses for stream in STREAMS[:4]]
            streams += [(addresses[2], stream) for stream in STREAMS[4:]]
            for address, stream in streams:
                events = [f"{address} {stream}".encode()]
                await self.wrote(log, 1, events, address=address, stream=stream, writer="w" * 128)
            for address, stream in streams:
                logged = await self.found(log, address, stream)
                assert (logged.events, logged.writer) == ((f"{address} {stream}".encode(),), "w" * 128)

    async def test_what_no_log_takes_is_a_value_error_and_writes_nothing(self) -> None:
        async with self.log() as log:
            address = Address.new("session")

            async def append(
                stream: str = "stream", first: int = 1, writer: str = "node-1", head: bytes = b"head"
            ) -> None:
                with pytest.raises(ValueError, match=r"stream|first|writer|head"):
                    await log.append(address, stream, first, [b"one"], head=head, writer=writer)

            for stream in NO_STREAMS:
                await append(stream=stream)
                with pytest.raises(ValueError, match="stream"):
                    await log.read(address, stream)
                with pytest.raises(ValueError, match="stream"):
                    await log.drop([(address, stream)])
            for writer in NO_WRITERS:
                await append(writer=writer)
            for first in (0, -1, 2**53 + 1, 2**64):
                await append(first=first)
            await append(head=bytes(HEAD_LIMIT + 1))
            for after in (-1, 2**53 + 1, 2**64):
                with pytest.raises(ValueError, match="after"):
                    await log.read(address, "stream", after=after)
            assert await log.read(address, "stream") is None
            await log.append(address, "stream", 1, [], head=bytes(HEAD_LIMIT), writer="node-1")
            await log.append(address, "stream", 1, [b"one"], head=b"", writer="node-1")
            assert (await self.found(log, address)).head == bytes(HEAD_LIMIT)
