"""`understudy store copy`: none lost, none older than acknowledged, none that has ended, wherever it was stopped."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from store_commands.conftest import KINDS, run
from understudy.runtime.store_commands.copying import Copy, CopyError, copy_owner
from understudy.runtime.store_commands.ledger import Ledger
from understudy.stores import (
    Address,
    EncryptedStore,
    KeyRing,
    MemoryStore,
    Record,
    RecordNotFound,
    SessionStore,
    StaleEpoch,
    StoreUnavailable,
    open_store,
)
from understudy.stores.testing import ManualTime


async def contents(store: SessionStore) -> dict[Address, Record]:
    """All records of a store."""
    found: dict[Address, Record] = {}
    cursor: str | None = None
    while True:
        page = await store.list(cursor=cursor, limit=1000)
        for info in page.records:
            record = await store.load(info.address)
            assert record is not None
            found[info.address] = record
        cursor = page.cursor
        if cursor is None:
            return found


def without_owner(records: dict[Address, Record]) -> dict[Address, Record]:
    return {address: replace(record, owner="") for address, record in records.items()}


class Acknowledged:
    """Writers of one store, as nodes are, and what they were acknowledged."""

    def __init__(self, store: SessionStore, random: Random, pause: Callable[[], Any]) -> None:
        self.store = store
        self.random = random
        self.pause = pause
        self.counts: dict[Address, int] = {}
        self.ended: set[Address] = set()
        self.stop = False

    async def write(self, steps: int) -> None:
        """Open, claim, count up, touch and end sessions until told to stop."""
        for _ in range(steps):
            if self.stop:
                return
            await self.pause()
            if not self.counts or self.random.random() < 0.15:
                address = Address.new("session")
                await self.store.create(address, tenant=self.random.choice("ab"), owner="n", snapshot=b"0", ttl=1000)
                self.counts[address] = 0
                continue
            address = self.random.choice(list(self.counts))
            # Two writers meet at one session at times, and fence each other.
            with suppress(StaleEpoch, RecordNotFound):
                record = await self.store.claim(address, owner="n")
                for version in range(record.version + 1, record.version + 1 + self.random.randrange(3)):
                    await self.pause()
                    count = int(record.snapshot) + version - record.version
                    await self.store.save(
                        address, epoch=record.epoch, version=version, snapshot=b"%d" % count, ttl=1000
                    )
                    if address in self.counts:
                        self.counts[address] = max(count, self.counts[address])
                if self.random.random() < 0.2:
                    await self.store.touch(address, epoch=record.epoch, ttl=self.random.randrange(500, 5000))
                if self.random.random() < 0.1 and await self.store.delete(address, epoch=record.epoch):
                    del self.counts[address]
                    self.ended.add(address)


class CutOff(Exception):
    """The copy dies here, as by kill -9."""


class Shaky(MemoryStore):
    """A store that lets others run in every call, and fails now and then, before the call or after."""

    def __init__(self, clock: ManualTime, random: Random, identity: str, *, fails: float = 0.0) -> None:
        super().__init__(clock)
        self.random = random
        self.fails = fails
        self.cut_in = 0
        """At how many calls from now the caller dies, before the call or after; 0: never."""
        self.identity = identity

    async def _shaken(self, call: Any) -> Any:
        fate = self.random.random()
        self.cut_in -= 1
        if self.cut_in == 0:
            if fate < 0.5:
                await call
            raise CutOff
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(0)
        if fate < self.fails:
            raise StoreUnavailable("away", outcome_unknown=False, retry_after=0.0)
        result = await call
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(0)
        if fate < 2 * self.fails:
            raise StoreUnavailable("answer lost", outcome_unknown=True, retry_after=0.0)
        return result

    async def adopt(self, record: Record, *, over: tuple[int, int] | None = None) -> None:
        await self._shaken(Later(super().adopt, record, over=over))

    async def load(self, address: Address) -> Record | None:
        return await self._shaken(Later(super().load, address))

    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        return await self._shaken(Later(super().delete, address, epoch=epoch))


class Later:
    """A call that is made when it is awaited, if it is."""

    def __init__(self, call: Any, *args: Any, **options: Any) -> None:
        self._made = lambda: call(*args, **options)

    def __await__(self) -> Any:
        return self._made().__await__()


async def finish(source: Any, target: Any, clock: Callable[[], float]) -> None:
    """A copy that is left to end by itself."""
    with Ledger.open() as ledger:
        copy = Copy(source, target, ledger, clock=clock)
        await copy.learn()
        while not (await copy.one_pass()).quiet:
            pass
        assert (await copy.one_pass(thorough=True)).quiet


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_happens_to_copies_the_last_one_has_all_that_was_acknowledged(seed: int) -> None:
    """Copies start, are cut off anywhere, start anew, two at once, while writers write and stores fail."""
    random = Random(seed)
    clock = ManualTime()
    source, target = Shaky(clock, random, "A"), Shaky(clock, random, "B", fails=0.05)

    async def pause() -> None:
        clock.advance(random.random() * 0.1)
        for _ in range(random.randrange(6)):
            await asyncio.sleep(0)

    nodes = Acknowledged(source, random, pause)

    async def copying() -> None:
        with Ledger.open() as ledger:
            copy = Copy(source, target, ledger, clock=clock)
            await copy.learn()
            for _ in range(5):
                await copy.one_pass(thorough=random.random() < 0.3)

    async def cut_off() -> None:
        for _ in range(6):
            target.cut_in = random.randrange(1, 80)
            with suppress(CutOff):
                await copying()

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(nodes.write(60))
        for _ in range(2):
            group.create_task(cut_off())
    target.cut_in = 0
    await finish(source, target, clock)

    target.fails = 0
    copied = await contents(target)
    assert without_owner(copied) == without_owner(await contents(source))
    assert {address: int(record.snapshot) for address, record in copied.items()} == nodes.counts
    assert not nodes.ended & copied.keys()
    assert {record.owner for record in copied.values()} <= {copy_owner(source)}
    for address, record in copied.items():
        assert (await target.claim(address, owner="next")).epoch == record.epoch + 1


async def test_what_a_node_has_claimed_at_the_target_is_never_touched_again() -> None:
    clock = ManualTime()
    source, target = Shaky(clock, Random(1), "A"), Shaky(clock, Random(2), "B")
    for number in range(20):
        await source.create(Address("session", f"{number}"), tenant="t", owner="n", snapshot=b"old", ttl=1000)
    await finish(source, target, clock)
    used = Address("session", "7")
    record = await target.claim(used, owner="new node")
    await target.save(used, epoch=record.epoch, version=2, snapshot=b"new", ttl=1000)
    # A node that was forgotten goes on with the source.
    stray = await source.claim(used, owner="n")
    await source.save(used, epoch=stray.epoch, version=2, snapshot=b"stray", ttl=2000)
    with Ledger.open() as ledger:
        copy = Copy(source, target, ledger, clock=clock)
        await copy.learn()
        with pytest.raises(CopyError, match="in use at the target"):
            await copy.count()
        for thorough in (False, True):
            with pytest.raises(CopyError, match="in use at the target"):
                await copy.one_pass(thorough=thorough)
        await source.delete(used)
        await copy.one_pass()
    found = await target.load(used)
    assert found is not None
    assert found.snapshot == b"new"


async def test_a_claim_in_the_middle_of_a_pass_stops_the_copy() -> None:
    clock = ManualTime()
    source, target = Shaky(clock, Random(1), "A"), Shaky(clock, Random(2), "B")
    address = Address("session", "x")
    await source.create(address, tenant="t", owner="n", snapshot=b"old", ttl=1000)
    await finish(source, target, clock)
    with Ledger.open() as ledger:
        copy = Copy(source, target, ledger, clock=clock)
        await copy.learn()
        await copy.count()
        await target.claim(address, owner="node")
        await source.save(address, epoch=1, version=2, snapshot=b"newer", ttl=1000)
        with pytest.raises(CopyError):
            await copy.one_pass()
    found = await target.load(address)
    assert found is not None
    assert found.snapshot == b"old"


async def test_another_source_that_is_empty_takes_nothing_from_the_target() -> None:
    """A wrong URL, or a source that was made anew: its sessions are not those that were copied."""
    clock = ManualTime()
    source, target = Shaky(clock, Random(1), "A"), Shaky(clock, Random(2), "B")
    for number in range(5):
        await source.create(Address("session", f"{number}"), tenant="t", owner="n", snapshot=b"old", ttl=1000)
    await finish(source, target, clock)
    await finish(Shaky(clock, Random(3), "C"), target, clock)
    assert len(await contents(target)) == 5


async def test_what_the_target_had_before_stays(tmp_path: Path) -> None:
    clock = ManualTime()
    source, target = Shaky(clock, Random(1), "A"), Shaky(clock, Random(2), "B")
    own = Address("session", "own")
    await target.create(own, tenant="t", owner="n", snapshot=b"own", ttl=1000)
    await finish(source, target, clock)
    assert (await contents(target)).keys() == {own}


async def test_a_pass_that_has_removed_something_is_not_the_last() -> None:
    clock = ManualTime()
    source, target = Shaky(clock, Random(1), "A"), Shaky(clock, Random(2), "B")
    address = Address("session", "x")
    await source.create(address, tenant="t", owner="n", snapshot=b"", ttl=1000)
    with Ledger.open() as ledger:
        copy = Copy(source, target, ledger, clock=clock)
        assert not (await copy.one_pass()).quiet
        assert (await copy.one_pass()).quiet
        await source.delete(address)
        removing = await copy.one_pass()
        assert removing.removed == 1
        assert not removing.quiet
        assert (await copy.one_pass()).quiet
    assert await contents(target) == {}


async def test_a_store_that_stays_away_ends_the_copy() -> None:
    clock = ManualTime()
    source, target = Shaky(clock, Random(1), "A"), Shaky(clock, Random(2), "B", fails=1.0)
    await source.create(Address("session", "x"), tenant="t", owner="n", snapshot=b"", ttl=10)
    with Ledger.open() as ledger:
        copy = Copy(source, target, ledger, clock=clock, patience=0.01)
        with pytest.raises(StoreUnavailable):
            await copy.one_pass()


IN_A_CIRCLE = [kind for kind in KINDS if kind != "dynamodb"]
ROUND = [*pairwise([*IN_A_CIRCLE, IN_A_CIRCLE[0]])]


@pytest.mark.parametrize(("from_", "to"), ROUND, ids=[f"{a} to {b}" for a, b in ROUND])
def test_sessions_are_copied_while_they_are_in_use(place: Callable[[str], str], from_: str, to: str) -> None:
    source_url, target_url = place(from_), place(to)
    for url in (source_url, target_url):
        assert run("init", url).exit_code == 0

    async def use_and_copy() -> Acknowledged:
        source: Any = await open_store(source_url)
        target: Any = await open_store(target_url)
        nodes = Acknowledged(source, Random(7), lambda: asyncio.sleep(0))
        await nodes.write(300)
        with Ledger.open() as ledger:
            copy = Copy(source, target, ledger)
            await copy.learn()

            async def passes() -> int:
                copied = 0
                for _ in range(3):
                    copied += (await copy.one_pass()).copied
                nodes.stop = True
                return copied

            async with asyncio.TaskGroup() as group:
                copying = group.create_task(passes())
                for _ in range(3):
                    group.create_task(nodes.write(100_000))
            assert copying.result() > len(nodes.counts) / 2
        await source.aclose()
        await target.aclose()
        return nodes

    nodes = asyncio.run(use_and_copy())
    moved = run("copy", source_url, target_url)
    assert moved.exit_code == 0, moved.output
    assert f"has all {len(nodes.counts)} sessions, compared byte by byte" in moved.stdout
    again = run("copy", source_url, target_url)
    assert again.exit_code == 0
    assert " 0 copied, 0 removed" in again.stderr

    async def compare() -> None:
        source, target = await open_store(source_url), await open_store(target_url)
        before, after = await contents(source), await contents(target)
        assert {address: int(record.snapshot) for address, record in after.items()} == nodes.counts
        for address, record in before.items():
            copied = after[address]
            assert (copied.epoch, copied.version, copied.tenant) == (record.epoch, record.version, record.tenant)
            assert abs(copied.expires - record.expires) < 0.001
            claimed = await target.claim(address, owner="next")
            assert claimed.epoch == record.epoch + 1
            await target.save(address, epoch=claimed.epoch, version=claimed.version + 1, snapshot=b"on", ttl=60)
        await source.aclose()
        await target.aclose()

    asyncio.run(compare())
    refused = run("copy", source_url, target_url)
    assert refused.exit_code == 1
    assert "in use at the target" in refused.stderr


def test_encrypted_sessions_open_at_the_target_with_the_same_keys(place: Callable[[str], str], tmp_path: Path) -> None:
    source_url, target_url = place("sqlite"), place("sqlite")
    file = tmp_path / "keys"
    file.write_text(f"one {base64.b64encode(bytes(32)).decode()}\n")
    address = Address("session", "a")

    async def write() -> None:
        store = EncryptedStore(await open_store(source_url), KeyRing.from_file(file))
        await store.create(address, tenant="acme", owner="n", snapshot=b"one", ttl=60)
        await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60)
        await store.aclose()

    async def read() -> Record | None:
        store = EncryptedStore(await open_store(target_url), KeyRing.from_file(file))
        record = await store.load(address)
        await store.aclose()
        return record

    asyncio.run(write())
    run("init", target_url)
    assert run("copy", source_url, target_url).exit_code == 0
    found = asyncio.run(read())
    assert found is not None
    assert (found.version, found.snapshot) == (2, b"two")


def test_one_tenant_can_be_copied_alone(place: Callable[[str], str]) -> None:
    source_url, target_url = place("sqlite"), place("sqlite")

    async def write() -> None:
        store = await open_store(source_url)
        for number in range(10):
            address = Address("session", f"{number}")
            await store.create(address, tenant="ab"[number % 2], owner="n", snapshot=b"", ttl=60)
        await store.aclose()

    asyncio.run(write())
    run("init", target_url)
    moved = run("copy", source_url, target_url, "--tenant", "a", "--no-verify")
    assert moved.exit_code == 0, moved.output
    assert "has all 5 sessions. If" in moved.stdout


def test_sessions_come_into_dynamodb_and_out_of_it(place: Callable[[str], str]) -> None:
    source_url, between_url, target_url = place("sqlite"), place("dynamodb"), place("sqlite")
    for url in (source_url, between_url, target_url):
        assert run("init", url).exit_code == 0

    async def write() -> None:
        store = await open_store(source_url)
        for number in range(5):
            address = Address("session", f"{number}")
            await store.create(address, tenant="a", owner="n", snapshot=b"one", ttl=600)
            await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=600)
        await store.aclose()

    asyncio.run(write())
    for one, other in ((source_url, between_url), (between_url, target_url)):
        moved = run("copy", one, other)
        assert moved.exit_code == 0, moved.output
        assert "has all 5 sessions, compared byte by byte" in moved.stdout
        assert " 0 copied" in run("copy", one, other).stderr


def test_a_store_is_not_copied_into_itself_or_into_nothing(place: Callable[[str], str]) -> None:
    url = place("sqlite")
    run("init", url)
    same = run("copy", url, url)
    assert same.exit_code == 1
    assert "are one store" in same.stderr
    nothing = run("copy", url, place("sqlite"))
    assert nothing.exit_code == 1
    assert "there is no store at" in nothing.stderr
    assert run("copy", url, "memory://").exit_code == 2
