"""What a move keeps, what it refuses, and what others are told of it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from understudy.actors.errors import SnapshotError
from understudy.actors.session.snapshot import SessionSnapshot
from understudy.runtime.store_commands.copying import Copy, CopyError
from understudy.runtime.store_commands.ledger import Ledger
from understudy.runtime.telemetry.metric_names import GAUGES, TOTALS
from understudy.stores import (
    Address,
    EncryptedStore,
    KeyRing,
    MasterKey,
    MemoryStore,
    Record,
    RecordExists,
    RecordNotFound,
    StaleEpoch,
    StoreCorrupt,
    StoreUnavailable,
    StoreURLError,
    StoreVersionError,
    StreamTaken,
)
from understudy.stores.moving import FollowingStore, MovingStore, Transition, transition_of
from understudy.stores.moving.marks import MOVER, Tombstone, placeholder
from understudy.stores.testing import ManualTime


class Named(MemoryStore):
    """A store that can be told from others, and that can be away."""

    shared = True

    def __init__(self, clock: ManualTime, identity: str) -> None:
        super().__init__(clock)
        self.identity = identity
        self.away: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in object.__getattribute__(self, "__dict__").get("away", ()):

            async def away(*_: object, **__: object) -> None:
                raise StoreUnavailable("away", outcome_unknown=False)

            return away
        return super().__getattribute__(name)


class House:
    """Two stores, and nodes of each kind."""

    def __init__(self) -> None:
        self.clock = ManualTime()
        self.former = Named(self.clock, "former")
        self.next = Named(self.clock, "next")

    def follow(self) -> FollowingStore:
        return FollowingStore(self.former, self.next, clock=self.clock)

    def move(self) -> MovingStore:
        return MovingStore(self.former, self.next, clock=self.clock)

    async def open(self, store: Any = None, *, snapshot: bytes = b"one", ttl: float = 100.0) -> Address:
        address = Address.new("session")
        await (store or self.former).create(address, tenant="acme", owner="n", snapshot=snapshot, ttl=ttl)
        return address


@pytest.fixture
def house() -> House:
    return House()


async def test_a_session_moves_as_it_was_when_it_is_claimed(house: House) -> None:
    address = await house.open(ttl=100)
    house.clock.advance(30)
    before = await house.former.load(address)
    assert before is not None
    record = await house.move().claim(address, owner="node-2")
    assert await house.former.load(address) is None
    assert await house.next.load(address) == record
    # The move is a claim, and what follows is another.
    assert record == replace(before, epoch=3, owner="node-2", updated=house.clock())
    house.clock.advance(69)
    assert await house.next.load(address) is not None
    house.clock.advance(2)
    assert await house.next.load(address) is None


async def test_who_held_a_session_in_the_former_store_is_told_that_another_has_it(house: House) -> None:
    address = await house.open()
    follow = house.follow()
    held = await follow.claim(address, owner="node-1")
    await house.move().claim(address, owner="node-2")
    write = {"epoch": held.epoch, "version": held.version + 1, "snapshot": b"late", "ttl": 100.0}
    with pytest.raises(StaleEpoch):
        await follow.save(address, **write)
    with pytest.raises(StaleEpoch):
        await follow.touch(address, epoch=held.epoch, ttl=100)
    with pytest.raises(StaleEpoch):
        await follow.delete(address, epoch=held.epoch)
    again = await follow.claim(address, owner="node-1")
    assert again.epoch > held.epoch
    await follow.save(address, **{**write, "epoch": again.epoch})
    found = await house.next.load(address)
    assert found is not None
    assert found.snapshot == b"late"


async def test_who_follows_leaves_sessions_where_they_are_and_makes_new_ones_there(house: House) -> None:
    address = await house.open()
    follow = house.follow()
    await follow.claim(address, owner="n")
    other = await house.open(follow)
    assert (await house.next.list()).records == ()
    assert {info.address for info in (await house.former.list()).records} == {address, other}


async def test_who_moves_makes_new_ones_in_the_next_store(house: House) -> None:
    address = await house.open(house.move())
    assert (await house.former.list()).records == ()
    assert (await house.follow().claim(address, owner="n")).epoch == 2


@pytest.mark.parametrize("step", range(6))
async def test_a_move_that_stops_at_any_step_is_completed_by_whoever_comes_next(house: House, step: int) -> None:
    address = await house.open(snapshot=b"kept")
    first = house.move()
    calls = [(house.former, "claim"), (house.next, "adopt"), (house.former, "save"), (house.next, "save")]
    calls += [(house.former, "delete"), (house.next, "claim")]
    store, name = calls[step]
    store.away.add(name)
    if name == "delete":
        await first.claim(address, owner="n")
    else:
        with pytest.raises(StoreUnavailable):
            await first.claim(address, owner="n")
    store.away.clear()
    for pair in (house.follow(), house.move()):
        loaded = await pair.load(address)
        assert loaded is not None
        assert loaded.snapshot == b"kept"
        assert [info.address for info in (await pair.list()).records].count(address) == 1
    for pair in (house.follow(), house.move()):
        assert (await pair.claim(address, owner="n")).snapshot == b"kept"
    assert (await house.former.list()).records == ()


async def test_a_session_that_has_ended_there_is_not_brought_back_by_its_tombstone(house: House) -> None:
    address = await house.open()
    house.former.away.add("delete")
    move = house.move()
    record = await move.claim(address, owner="n")
    assert await move.delete(address, epoch=record.epoch)
    house.former.away.clear()
    for pair in (house.follow(), house.move()):
        assert await pair.load(address) is None
        with pytest.raises(RecordNotFound):
            await pair.claim(address, owner="n")
    assert (await house.former.list()).records == (await house.next.list()).records == ()


async def test_a_placeholder_that_an_overtaken_mover_leaves_late_brings_nothing_back(house: House) -> None:
    address = await house.open()
    overtaken = await house.former.claim(address, owner=MOVER)
    house.former.away.add("delete")
    move = house.move()
    record = await move.claim(address, owner="n")
    assert await move.delete(address, epoch=record.epoch)
    house.former.away.clear()
    assert await move.passage._hold_place(overtaken)
    assert (await house.former.list()).records != ()
    for pair in (house.follow(), house.move()):
        assert await pair.load(address) is None
        with pytest.raises(RecordNotFound):
            await pair.claim(address, owner="n")


@pytest.mark.parametrize("kind", ["follow", "move"])
async def test_an_operator_ends_a_session_wherever_it_is_on_its_way(house: House, kind: str) -> None:
    for away in ("adopt", "save", "claim", ""):
        address = await house.open()
        if away:
            house.next.away.add(away)
            with pytest.raises(StoreUnavailable):
                await house.move().claim(address, owner="n")
            house.next.away.clear()
        pair = house.follow() if kind == "follow" else house.move()
        assert await pair.delete(address)
        assert not await pair.delete(address)
        for other in (house.follow(), house.move()):
            with pytest.raises(RecordNotFound):
                await other.claim(address, owner="n")
    assert (await house.former.list()).records == (await house.next.list()).records == ()


async def test_of_one_address_created_by_both_kinds_one_is_refused(house: House) -> None:
    new = {"tenant": "t", "owner": "n", "snapshot": b"", "ttl": 100.0}
    here, there = Address.new("session"), Address.new("session")
    await house.follow().create(here, **new)
    await house.move().create(there, **new)
    with pytest.raises(RecordExists):
        await house.move().create(here, **new)
    with pytest.raises(RecordExists):
        await house.follow().create(there, **new)
    assert await house.next.load(here) is None
    assert await house.former.load(there) is None


async def test_an_address_may_be_used_again_after_what_is_left_of_a_move(house: House) -> None:
    new = {"tenant": "t", "owner": "n", "snapshot": b"new", "ttl": 100.0}
    for kind in ("follow", "move"):
        # A placeholder of a session that ended before it could move.
        stray = await house.open()
        house.former.away.add("save")
        with pytest.raises(StoreUnavailable):
            await house.move().claim(stray, owner="n")
        house.former.away.clear()
        await house.former.delete(stray)
        # A tombstone of one that ended after it had moved.
        ended = await house.open()
        house.former.away.add("delete")
        await house.move().claim(ended, owner="n")
        house.former.away.clear()
        await house.next.delete(ended)
        for address in (stray, ended):
            pair = house.follow() if kind == "follow" else house.move()
            await pair.create(address, **new)
            assert (await pair.claim(address, owner="n")).snapshot == b"new"


async def test_encrypted_sessions_move_as_they_are_and_open_with_the_same_keys(house: House) -> None:
    keys = KeyRing([MasterKey("k1", os.urandom(32))])
    address = await house.open(EncryptedStore(house.former, keys), snapshot=b"secret")
    sealed = await house.former.load(address)
    assert sealed is not None
    move = EncryptedStore(house.move(), keys)
    record = await move.claim(address, owner="n")
    assert record.snapshot == b"secret"
    await move.save(address, epoch=record.epoch, version=record.version + 1, snapshot=b"more", ttl=100)
    assert (await EncryptedStore(house.next, keys).claim(address, owner="n")).snapshot == b"more"
    assert transition_of(move) == transition_of(house.move())


async def test_a_copy_that_was_made_before_gives_way_to_what_the_former_store_has(house: House) -> None:
    address = await house.open(snapshot=b"old")
    copied = await house.former.load(address)
    assert copied is not None
    await house.next.adopt(copied)
    record = await house.former.claim(address, owner="n")
    await house.former.save(address, epoch=record.epoch, version=2, snapshot=b"new", ttl=100)
    assert (await house.move().claim(address, owner="n")).snapshot == b"new"


async def test_damaged_and_newer_tombstones_are_left_as_they_are(house: House) -> None:
    address = await house.open()
    record = await house.former.load(address)
    assert record is not None
    packed = Tombstone.of(record).pack()
    for snapshot, error in ((packed[:-1], StoreCorrupt), (packed[:3] + b"\x02" + packed[4:], StoreVersionError)):
        found = await house.former.claim(address, owner="n")
        await house.former.save(address, epoch=found.epoch, version=found.version + 1, snapshot=snapshot, ttl=100)
        for pair in (house.follow(), house.move()):
            with pytest.raises(error):
                await pair.claim(address, owner="n")
        left = await house.former.load(address)
        assert left is not None
        assert left.snapshot == snapshot
        # As a mover has it: it hides no other session, and can be ended.
        await house.former.claim(address, owner=MOVER)
        other = await house.open()
        assert {info.address for info in (await house.move().list()).records} == {address, other}
        await house.move().delete(other)
    await house.move().delete(address)
    assert (await house.former.list()).records == ()
    assert Tombstone.found_in(record) is None
    assert Tombstone.found_in(replace(record, snapshot=packed)) == Tombstone.of(record)
    assert placeholder(record).version == record.version - 1


def test_a_node_that_knows_nothing_of_a_move_says_what_it_has_found() -> None:
    record = Record(Address.new("session"), "t", 1, 1, "n", 0.0, 0.0, 9e9, b"one")
    with pytest.raises(SnapshotError, match="on its way to another store"):
        SessionSnapshot.unpack(Tombstone.of(record).pack())


async def test_what_is_on_its_way_is_not_copied(house: House) -> None:
    await house.open()
    house.next.away.add("save")
    with pytest.raises(StoreUnavailable):
        await house.move().claim((await house.former.list()).records[0].address, owner="n")
    third = MemoryStore(house.clock)
    with Ledger.open() as ledger, pytest.raises(CopyError, match="store move"):
        await Copy(house.former, third, ledger, clock=house.clock).one_pass()
    assert (await third.list()).records == ()


def test_a_store_is_not_moved_to_itself_nor_to_one_that_takes_no_records(house: House) -> None:
    for next in (house.former, Named(house.clock, "former")):
        with pytest.raises(StoreURLError, match="to itself"):
            MovingStore(house.former, next)

    class Plain:
        shared = True

    with pytest.raises(StoreURLError, match="takes no records"):
        FollowingStore(house.former, Plain())  # pyright: ignore[reportArgumentType]


async def test_others_are_told_where_new_sessions_are_and_whether_something_is_left(house: House) -> None:
    follow, move = house.follow(), house.move()
    assert (follow.identity, move.identity) == ("former", "next")
    address = await house.open()
    await move.look()
    assert transition_of(follow) == Transition(next="next", left=True)
    assert transition_of(move) == Transition(former="former", left=True)
    await move.claim(address, owner="n")
    await move.look()
    assert transition_of(move) == Transition(former="former", left=False)
    assert transition_of(house.former) is None
    stats = move.stats()
    assert (stats["moved_total"], stats["former_left"], stats["records"]) == (1, 0, 1)
    assert {f"store_{name}" for name in stats} <= {*GAUGES, *TOTALS}


# Event logs


async def test_a_stream_is_read_whole_wherever_its_parts_are(house: House) -> None:
    address = Address.new("session")
    follow, move = house.follow().events, house.move().events
    assert follow is not None
    assert move is not None
    await follow.append(address, "s", 1, [b"1", b"2"], head=b"h", writer="a")
    await move.append(address, "s", 3, [b"3"], head=b"h", writer="b")
    await move.append(address, "s", 4, [b"4"], head=b"h", writer="b", ends=True)
    for log in (follow, move):
        for after in range(6):
            logged = await log.read(address, "s", after=after)
            assert logged is not None
            assert logged.events == (b"1", b"2", b"3", b"4")[after:]
            assert (logged.last, logged.oldest, logged.ended, logged.writer) == (4, 1, True, "b")
            assert logged.first == min(after, 4) + 1


async def test_a_writer_whose_stream_goes_on_in_the_next_log_learns_it(house: House) -> None:
    address = Address.new("session")
    follow, move = house.follow().events, house.move().events
    assert follow is not None
    assert move is not None
    await follow.append(address, "s", 1, [b"1"], head=b"", writer="a")
    with pytest.raises(StreamTaken):
        await move.append(address, "s", 3, [b"3"], head=b"", writer="b")
    await move.append(address, "s", 2, [b"2"], head=b"", writer="b")
    with pytest.raises(StreamTaken):
        await follow.append(address, "s", 2, [b"two"], head=b"", writer="a")
    # A new owner of the first kind goes on where the stream is.
    await follow.append(address, "s", 3, [b"3"], head=b"", writer="c")
    with pytest.raises(StreamTaken):
        await move.append(address, "s", 3, [b"three"], head=b"", writer="b")
    # Both begin one at once: one of them is it.
    await move.append(address, "t", 1, [b"b"], head=b"", writer="b")
    with pytest.raises(StreamTaken):
        await follow.append(address, "t", 1, [b"a"], head=b"", writer="a")


async def test_a_stream_that_was_to_go_on_and_never_did_has_not_ended(house: House) -> None:
    address = Address.new("session")
    follow, move = house.follow().events, house.move().events
    assert follow is not None
    assert move is not None
    await follow.append(address, "s", 1, [b"1"], head=b"", writer="a")
    house.next.events.close()
    with pytest.raises(StoreUnavailable):
        await move.append(address, "s", 2, [b"2"], head=b"", writer="b")
    house.next = Named(house.clock, "next")
    move = house.move().events
    assert move is not None
    logged = await move.read(address, "s")
    assert logged is not None
    assert (logged.events, logged.ended) == ((b"1",), False)
    with pytest.raises(StreamTaken):
        await move.append(address, "s", 3, [b"3"], head=b"", writer="c")
    await move.append(address, "s", 2, [b"2"], head=b"", writer="c")
    logged = await move.read(address, "s")
    assert logged is not None
    assert (logged.events, logged.writer) == ((b"1", b"2"), "c")


async def test_where_one_store_has_no_event_log_the_other_one_is_used(house: House) -> None:
    class Without(MemoryStore):
        events = None  # pyright: ignore

    bare = Without(house.clock)
    assert MovingStore(house.former, bare).events is house.former.events
    assert FollowingStore(bare, house.next).events is house.next.events
    assert MovingStore(bare, Without(house.clock)).events is None
