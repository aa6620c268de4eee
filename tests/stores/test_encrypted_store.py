"""`EncryptedStore`: the contract, and what is its own."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from sqlite3 import connect as sqlite

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import settings
from support.nats import fresh_name
from understudy.runtime.telemetry.metric_names import TOTALS
from understudy.stores import (
    Address,
    EncryptedStore,
    EncryptionMissing,
    FaultyStore,
    KeyRing,
    KeyRingError,
    MasterKey,
    MemoryStore,
    SealBroken,
    SessionStore,
    SQLiteStore,
    StoreCorrupt,
    StoreUnavailable,
    StoreVersionError,
    TenantKeyDestroyed,
    seal,
)
from understudy.stores.event_log import HEAD_LIMIT, EventLog
from understudy.stores.key_lines import keys_from_file
from understudy.stores.nats import NatsStore
from understudy.stores.seal import SEAL_ROOM, Place, parse
from understudy.stores.testing import EventLogContract, ManualTime, StoreContract, store_machine

OLD = MasterKey("2026-10", bytes(range(32)))
NEW = MasterKey("2026-11", bytes(range(1, 33)))
A = Address("session", "a")
SECRET = b"the secret of acme, " * 20


def encrypted(inner: SessionStore, *keys: MasterKey, **options: bool) -> EncryptedStore:
    return EncryptedStore(inner, KeyRing(keys or (OLD,)), **options)


# The contract


class TestEncryptedMemoryKeepsTheContract(StoreContract):
    async def open_store(self, clock: ManualTime) -> SessionStore:
        return encrypted(MemoryStore(clock))


class TestEncryptedMemoryThatRemembersOneTenantKeepsTheContract(StoreContract):
    async def open_store(self, clock: ManualTime) -> SessionStore:
        return EncryptedStore(MemoryStore(clock), KeyRing([OLD]), max_known=1)


class TestEncryptedSQLiteKeepsTheContract(StoreContract):
    path: Path

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "sessions.db"

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return encrypted(await SQLiteStore.open(self.path, clock=clock))

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await self.open_store(clock)


class TestEncryptedNatsKeepsTheContract(StoreContract):
    url: str

    @pytest.fixture(autouse=True)
    def _place(self, nats_url: str) -> None:
        self.url = f"{nats_url}/{fresh_name()}"

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return encrypted(await NatsStore.from_url(self.url, clock=clock))

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await self.open_store(clock)


async def _open_in_memory(clock: ManualTime) -> SessionStore:
    return encrypted(MemoryStore(clock))


TestEncryptedStoreAgainstTheModel = store_machine(_open_in_memory, settings=settings(max_examples=25, deadline=None))


class _Events(EventLogContract):
    """The bounds of bytes count what is kept, and a sealed event of these tests takes this much more."""

    __test__ = False
    overhead = len(seal.seal(OLD.id, bytes(32), Place(A, None, "stream/stream", 1), b"", names_tenant=True))

    @asynccontextmanager
    async def log(self, **bounds: float) -> AsyncGenerator[EventLog]:
        if "max_bytes" in bounds:
            bounds["max_bytes"] += 2 * self.overhead
        async with super().log(**bounds) as log:
            yield log


class TestEncryptedMemoryEventLogKeepsTheContract(_Events):
    __test__ = True

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return encrypted(MemoryStore(clock, event_bounds=self.bounds))


class TestEncryptedSQLiteEventLogKeepsTheContract(_Events):
    __test__ = True
    path: Path

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "sessions.db"

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return encrypted(await SQLiteStore.open(self.path, clock=clock, event_bounds=self.bounds))

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await self.open_store(clock)


class TestEncryptedNatsEventLogKeepsTheContract(_Events):
    __test__ = True
    lifetime = 2.0
    sweeps = False
    url: str
    # Nothing here changes what NATS does with time, and it takes long.
    test_a_stream_that_is_too_old_is_gone_for_every_method = None  # type: ignore[assignment]
    test_each_append_renews_a_stream = None  # type: ignore[assignment]
    test_expire_sweeps_what_is_too_old_and_nothing_else = None  # type: ignore[assignment]

    @pytest.fixture(autouse=True)
    def _place(self, nats_url: str) -> None:
        self.url = f"{nats_url}/{fresh_name()}"

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return encrypted(await NatsStore.from_url(self.url, clock=clock, event_bounds=self.bounds))

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await self.open_store(clock)


# What stands in the store


async def test_nothing_of_a_snapshot_or_an_event_stands_in_the_file(tmp_path: Path) -> None:
    store = encrypted(await SQLiteStore.open(tmp_path / "sessions.db"))
    await store.create(A, tenant="acme", owner="node-1", snapshot=SECRET, ttl=60)
    await store.save(A, epoch=1, version=2, snapshot=SECRET + b"2", ttl=60)
    await store.events.append(A, "stream", 1, [SECRET, SECRET], head=SECRET, writer="node-1")
    found = b"".join(path.read_bytes() for path in tmp_path.iterdir())  # noqa: ASYNC240
    await store.aclose()
    with closing(sqlite(tmp_path / "sessions.db")) as db:
        found += b"".join(row[0] for row in db.execute("SELECT snapshot FROM records"))
    assert b"acme" in found
    assert b"secret" not in found
    for secret in (OLD.secret, SECRET[:8]):
        assert secret not in found


async def test_equal_snapshots_do_not_look_equal() -> None:
    store = encrypted(inner := MemoryStore())
    for id in "abc":
        await store.create(Address("session", id), tenant="acme", owner="n", snapshot=SECRET, ttl=60)
    await store.save(A, epoch=1, version=2, snapshot=SECRET, ttl=60)
    stored = {(await _loaded(inner, Address("session", id))).snapshot[-len(SECRET) :] for id in "abc"}
    assert len(stored) == 3


async def test_the_format_is_what_the_module_says() -> None:
    """By another implementation of HKDF. Whatever is stored today must open with every later version."""
    value = await _stored_snapshot(b"plain", tenant="acm\u00e9")
    assert value.startswith(b"\xc1us\x01\x072026-10\xff\xff")
    header, salt, nonce, body = value[:14], value[14:26], value[26:38], value[38:]
    root = HKDF(SHA256(), 32, None, b"understudy tenant\x01" + "acm\u00e9".encode()).derive(OLD.secret)
    key = HKDFExpand(SHA256(), 32, b"understudy message" + salt).derive(root)
    place = Place(A, "acm\u00e9", "snapshot", 1)
    assert place.bound() == b"\x95\xa7session\xa1a\xa5acm\xc3\xa9\xa8snapshot\xa11"
    assert AESGCM(key).decrypt(nonce, body, header + place.bound()) == b"plain"


async def test_a_value_sealed_by_the_first_version_opens() -> None:
    golden = base64.b64decode(GOLDEN)
    store = encrypted(inner := MemoryStore())
    await inner.create(A, tenant="acme", owner="n", snapshot=golden, ttl=60)
    assert (await store.claim(A, owner="m")).snapshot == b"golden snapshot"


async def test_no_two_of_many_seals_share_their_random_part() -> None:
    place = Place(A, "acme", "snapshot", 1)
    values = [seal.seal("k", bytes(32), place, b"", names_tenant=False) for _ in range(2000)]
    assert len({value[-40:-16] for value in values}) == 2000
    assert len({value[-28:-16] for value in values}) == 2000


# What was altered


async def test_a_flipped_bit_anywhere_is_refused_and_left_as_it_is() -> None:
    value = await _stored_snapshot(b"one")
    for position in range(len(value) * 8):
        flipped = bytearray(value)
        flipped[position // 8] ^= 1 << position % 8
        store = encrypted(inner := MemoryStore())
        await inner.create(A, tenant="acme", owner="n", snapshot=bytes(flipped), ttl=60)
        with pytest.raises((SealBroken, StoreVersionError)) as caught:
            await store.claim(A, owner="m")
        assert str(A) in str(caught.value)
        assert (await _loaded(inner, A)).snapshot == flipped


async def test_whatever_is_cut_short_or_too_long_is_refused() -> None:
    value = await _stored_snapshot(b"one")
    for damaged in [*(value[:length] for length in range(len(value))), value + b"\0"]:
        store = encrypted(inner := MemoryStore())
        await inner.create(A, tenant="acme", owner="n", snapshot=damaged, ttl=60)
        with pytest.raises(SealBroken):
            await store.load(A)
        assert await store.delete(A) is True


@pytest.mark.parametrize(
    ("address", "tenant", "version"),
    [
        (Address("session", "b"), "acme", 1),
        (Address("task", "a"), "acme", 1),
        (A, "other", 1),
        (A, "", 1),
        (A, "acme", 2),
    ],
)
async def test_a_snapshot_opens_nowhere_else(address: Address, tenant: str, version: int) -> None:
    value = await _stored_snapshot(b"one")
    store = encrypted(inner := MemoryStore())
    await inner.create(address, tenant=tenant, owner="n", snapshot=value, ttl=60)
    if version == 2:
        await inner.save(address, epoch=1, version=2, snapshot=value, ttl=60)
    with pytest.raises(SealBroken, match="altered or moved"):
        await store.claim(address, owner="m")


async def test_an_event_opens_nowhere_else() -> None:
    store = encrypted(inner := MemoryStore())
    other = Address("session", "b")
    await store.create(A, tenant="acme", owner="n", snapshot=b"", ttl=60)
    await store.events.append(A, "stream", 1, [b"one", b"two"], head=b"head", writer="n")
    logged = await inner.events.read(A, "stream")
    assert logged is not None
    one, two = logged.events
    await inner.events.append(A, "swapped", 1, [two, one], head=logged.head, writer="n")
    await inner.events.append(A, "later", 2, [one], head=logged.head, writer="n")
    await inner.events.append(A, "renamed", 1, [one, two], head=logged.head, writer="n")
    await inner.events.append(other, "stream", 1, [one, two], head=logged.head, writer="n")
    await inner.events.append(A, "plain", 1, [b"one"], head=logged.head, writer="n")
    for address, stream in ((A, "swapped"), (A, "later"), (A, "renamed"), (other, "stream"), (A, "plain")):
        with pytest.raises(SealBroken):
            await store.events.read(address, stream)
    # The head is right, an event stands at another's number.
    await inner.events.drop([(A, "stream")])
    await inner.events.append(A, "stream", 1, [two, one], head=logged.head, writer="n")
    with pytest.raises(SealBroken, match="event 1 of stream stream"):
        await store.events.read(A, "stream")
    await inner.events.drop([(A, "stream")])
    await inner.events.append(A, "stream", 1, [one], head=one, writer="n")
    with pytest.raises(SealBroken, match="the head of stream"):
        await store.events.read(A, "stream")


async def test_a_flipped_bit_of_an_event_is_refused() -> None:
    store = encrypted(inner := MemoryStore())
    await store.create(A, tenant="acme", owner="n", snapshot=b"", ttl=60)
    await store.events.append(A, "stream", 1, [b"one"], head=b"", writer="n")
    logged = await inner.events.read(A, "stream")
    assert logged is not None
    assert b"acme" in logged.events[0]
    for position in range(len(logged.events[0]) * 8):
        flipped = bytearray(logged.events[0])
        flipped[position // 8] ^= 1 << position % 8
        await inner.events.drop([(A, "stream")])
        await inner.events.append(A, "stream", 1, [bytes(flipped)], head=logged.head, writer="n")
        with pytest.raises((SealBroken, StoreVersionError)):
            await store.events.read(A, "stream")


async def test_a_head_of_the_largest_size_fits_whatever_the_tenant() -> None:
    tenant = "\U0001f3ad" * 1024
    store = encrypted(inner := MemoryStore(), MasterKey("k" * 32, bytes(32)))
    await store.create(A, tenant=tenant, owner="n", snapshot=b"", ttl=60)
    head = os.urandom(HEAD_LIMIT)
    await store.events.append(A, "stream", 1, [], head=head, writer="n")
    logged, stored = await store.events.read(A, "stream"), await inner.events.read(A, "stream")
    assert logged is not None
    assert stored is not None
    assert logged.head == head
    assert HEAD_LIMIT + SEAL_ROOM - 512 < len(stored.head) <= HEAD_LIMIT + SEAL_ROOM


async def test_a_plain_head_beyond_the_limit_is_refused_whatever_it_begins_with() -> None:
    store = encrypted(MemoryStore())
    for head in (bytes(HEAD_LIMIT + 1), b"\xc1us\x01" + bytes(HEAD_LIMIT + SEAL_ROOM)):
        with pytest.raises(ValueError, match="head"):
            await store.events.append(A, "stream", 1, [], head=head, writer="n")


# Migration and rotation


async def test_a_plain_record_is_refused_until_it_is_allowed_and_sealed_by_its_next_save() -> None:
    inner = MemoryStore()
    await inner.create(A, tenant="acme", owner="n", snapshot=b"plain", ttl=60)
    await inner.events.append(A, "stream", 1, [b"event"], head=b"head", writer="n")
    strict, lenient = encrypted(inner), encrypted(inner, allow_plain=True)
    with pytest.raises(SealBroken, match="not encrypted"):
        await strict.load(A)
    with pytest.raises(SealBroken, match="not encrypted"):
        await strict.events.read(A, "stream")
    record = await lenient.claim(A, owner="m")
    assert record.snapshot == b"plain"
    await lenient.events.append(A, "stream", 2, [b"sealed"], head=b"", writer="m")
    logged = await lenient.events.read(A, "stream")
    assert logged is not None
    assert (logged.head, logged.events) == (b"head", (b"event", b"sealed"))
    await lenient.save(A, epoch=record.epoch, version=2, snapshot=b"now sealed", ttl=60)
    assert (await _loaded(strict, A)).snapshot == b"now sealed"
    assert lenient.stats()["encryption_plain_total"] == 3


async def test_keys_rotate_without_a_stop() -> None:
    inner = MemoryStore()
    ring = KeyRing([OLD])
    store = EncryptedStore(inner, ring)
    await store.create(A, tenant="acme", owner="n", snapshot=b"one", ttl=60)
    await store.events.append(A, "stream", 1, [b"one"], head=b"head", writer="n")
    ring.replace([NEW, OLD])
    assert (await _loaded(store, A)).snapshot == b"one"
    assert store.stats()["encryption_opened_with_old_keys_total"] == 1
    await store.save(A, epoch=1, version=2, snapshot=b"two", ttl=60)
    await store.events.append(A, "stream", 2, [b"two"], head=b"", writer="n")
    logged = await store.events.read(A, "stream")
    assert logged is not None
    assert logged.events == (b"one", b"two")
    ring.replace([NEW])
    assert (await _loaded(store, A)).snapshot == b"two"
    with pytest.raises(SealBroken, match="'2026-10' is not in the key ring; put it back"):
        await store.events.read(A, "stream")
    ring.replace([NEW, OLD])
    assert await store.events.read(A, "stream") is not None


async def test_another_key_of_the_same_id_opens_nothing() -> None:
    store = encrypted(inner := MemoryStore())
    await store.create(A, tenant="acme", owner="n", snapshot=b"one", ttl=60)
    other = encrypted(inner, MasterKey(OLD.id, NEW.secret))
    with pytest.raises(SealBroken, match="not the one that it was sealed with"):
        await other.load(A)


async def test_a_changed_file_of_keys_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualTime()
    file = tmp_path / "keys"
    _write(file, OLD)
    ring = KeyRing(lambda: keys_from_file(file), clock=clock)
    store, other = EncryptedStore(inner := MemoryStore(), ring), encrypted(inner, NEW, OLD)
    _write(file, NEW, OLD)
    clock.advance(9.9)
    assert (await ring.to_seal("acme")).id == OLD.id
    # A node that knows the new key already has written: it is looked for at once.
    await other.create(A, tenant="acme", owner="n", snapshot=b"one", ttl=60)
    assert (await _loaded(store, A)).snapshot == b"one"
    assert ring.ids == (NEW.id, OLD.id)
    file.write_text("nonsense that nobody should see in a log")
    clock.advance(10)
    with caplog.at_level(logging.ERROR):
        assert (await ring.to_seal("acme")).id == NEW.id
    assert "stay as they were" in caplog.text
    assert "nonsense" not in caplog.text
    file.unlink()
    clock.advance(10)
    assert (await _loaded(store, A)).snapshot == b"one"


async def test_a_key_that_is_missing_does_not_make_every_read_look_for_it() -> None:
    clock, looks = ManualTime(), []

    def keys() -> list[MasterKey]:
        looks.append(clock())
        return [OLD]

    ring = KeyRing(keys, clock=clock)
    for _ in range(100):
        assert await ring.to_open("acme", "unknown") is None
        clock.advance(0.05)
    assert len(looks) <= 6


# A tenant's own key


class Vault:
    """An operator's own place for the keys of tenants."""

    def __init__(self, *tenants: str) -> None:
        self.keys = {tenant: MasterKey(f"of-{tenant}", os.urandom(32)) for tenant in tenants}
        self.asked: list[str] = []
        self.error: BaseException | None = None
        self.hangs = False

    async def __call__(self, tenant: str) -> Sequence[MasterKey]:
        self.asked.append(tenant)
        if self.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return [self.keys[tenant]] if tenant in self.keys else []


async def test_a_destroyed_key_makes_that_tenants_data_unreadable_and_nobody_elses() -> None:
    vault, clock = Vault("acme", "other"), ManualTime()
    ring = KeyRing([OLD], tenant_keys=vault, clock=clock)
    store = EncryptedStore(inner := MemoryStore(), ring)
    b = Address("session", "b")
    for address, tenant in ((A, "acme"), (b, "other")):
        await store.create(address, tenant=tenant, owner="n", snapshot=b"one", ttl=600)
        await store.events.append(address, "stream", 1, [b"event"], head=b"", writer="n")
    stored = [await inner.load(A), await inner.events.read(A, "stream")]
    del vault.keys["acme"]
    ring.forget("acme")
    for _ in range(2):
        with pytest.raises(TenantKeyDestroyed, match="acme"):
            await store.load(A)
        with pytest.raises(TenantKeyDestroyed):
            await store.events.read(A, "stream")
        with pytest.raises(TenantKeyDestroyed):
            await store.save(A, epoch=1, version=2, snapshot=b"two", ttl=600)
        with pytest.raises(TenantKeyDestroyed):
            await store.events.append(A, "stream", 2, [b"event"], head=b"", writer="n")
        with pytest.raises(TenantKeyDestroyed):
            await store.create(Address("session", "c"), tenant="acme", owner="n", snapshot=b"", ttl=600)
        assert [await inner.load(A), await inner.events.read(A, "stream")] == stored
        assert (await _loaded(store, b)).snapshot == b"one"
        assert await store.events.read(b, "stream") is not None
        # And with a ring that has all there is to have, a new process.
        store = EncryptedStore(inner, KeyRing([OLD, NEW], tenant_keys=vault, clock=clock))
    assert await store.delete(A) is True


async def test_without_being_told_a_destroyed_key_is_noticed_in_time() -> None:
    vault, clock = Vault("acme"), ManualTime()
    store = EncryptedStore(MemoryStore(), KeyRing([OLD], tenant_keys=vault, tenant_keys_for=60, clock=clock))
    await store.create(A, tenant="acme", owner="n", snapshot=b"one", ttl=10_000)
    vault.keys.clear()
    clock.advance(59)
    await store.load(A)
    assert vault.asked == ["acme"]
    clock.advance(1)
    with pytest.raises(TenantKeyDestroyed):
        await store.load(A)


async def test_a_tenant_takes_a_new_key_while_its_old_one_still_opens() -> None:
    keys = {"acme": [OLD]}

    async def give(tenant: str) -> Sequence[MasterKey]:
        return keys[tenant]

    ring = KeyRing([MasterKey("master", bytes(32))], tenant_keys=give)
    store = EncryptedStore(MemoryStore(), ring)
    await store.create(A, tenant="acme", owner="n", snapshot=b"one", ttl=60)
    keys["acme"] = [NEW, OLD]
    ring.forget("acme")
    assert (await _loaded(store, A)).snapshot == b"one"
    await store.save(A, epoch=1, version=2, snapshot=b"two", ttl=60)
    keys["acme"] = [NEW]
    ring.forget("acme")
    assert (await _loaded(store, A)).snapshot == b"two"


async def test_many_at_once_ask_for_a_tenants_key_once() -> None:
    vault = Vault("acme")
    store = EncryptedStore(MemoryStore(), KeyRing([OLD], tenant_keys=vault))
    await asyncio.gather(
        *(store.create(Address.new("session"), tenant="acme", owner="n", snapshot=b"", ttl=60) for _ in range(50))
    )
    assert vault.asked == ["acme"]


async def test_a_vault_that_fails_or_hangs_is_an_outage_and_its_words_are_not_repeated() -> None:
    vault, clock = Vault("acme"), ManualTime()
    store = EncryptedStore(
        inner := MemoryStore(), KeyRing([OLD], tenant_keys=vault, timeout=0.05, tenant_keys_for=10, clock=clock)
    )
    await store.create(A, tenant="acme", owner="n", snapshot=b"one", ttl=60)
    clock.advance(10)
    vault.error = RuntimeError("password=hunter2")
    for hangs in (False, True):
        vault.hangs = hangs
        with pytest.raises(StoreUnavailable) as caught:
            await store.save(A, epoch=1, version=2, snapshot=b"two", ttl=60)
        assert caught.value.outcome_unknown is False
        assert "hunter2" not in str(caught.value)
        assert (await _loaded(inner, A)).version == 1
        with pytest.raises(StoreUnavailable) as caught:
            await store.claim(A, owner="m")
        assert caught.value.outcome_unknown is True
    vault.error, vault.hangs = None, False
    assert (await store.claim(A, owner="m")).snapshot == b"one"


async def test_an_append_to_a_stream_whose_record_cannot_be_asked_for_is_an_outage() -> None:
    faulty = FaultyStore(MemoryStore(), seed=1)
    store = EncryptedStore(faulty, KeyRing([OLD]))
    faulty.fail_next("load", "refuse")
    with pytest.raises(StoreUnavailable):
        await store.events.append(A, "stream", 1, [b"one"], head=b"", writer="n")
    assert await store.events.read(A, "stream") is None


async def test_another_node_seals_and_opens_the_events_of_a_record_that_it_never_saw() -> None:
    vault = Vault("acme")
    inner = MemoryStore()
    one, two = (EncryptedStore(inner, KeyRing([OLD], tenant_keys=vault)) for _ in range(2))
    await one.create(A, tenant="acme", owner="n", snapshot=b"", ttl=60)
    await two.events.append(A, "stream", 1, [b"one"], head=b"head", writer="m")
    stored = await inner.events.read(A, "stream")
    assert stored is not None
    assert parse(stored.events[0], Place(A, None, "stream/stream", 1)).key_id == "of-acme"
    logged = await one.events.read(A, "stream")
    assert logged is not None
    assert (logged.head, logged.events) == (b"head", (b"one",))
    await two.save(A, epoch=1, version=2, snapshot=b"two", ttl=60)
    assert (await _loaded(one, A)).snapshot == b"two"


# Keys as an operator writes them


def test_a_file_of_keys_is_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# new\n\n  {_line(NEW)}  \n{_line(OLD)}\n")
    assert KeyRing.from_file(file).ids == (NEW.id, OLD.id)


def test_keys_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEYS", f"{_line(NEW)},{_line(OLD)}")
    assert KeyRing.from_environment("OUR_KEYS").ids == (NEW.id, OLD.id)
    with pytest.raises(KeyRingError, match="NOT_SET"):
        KeyRing.from_environment("NOT_SET")


SHORT = base64.b64encode(bytes(31)).decode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "0 keys"),
        ("# nothing", "0 keys"),
        (f"new {SHORT}", "line 1"),
        (SHORT + "AAAA", "line 1"),
        ("new not-base64!", "line 1"),
        (f"a/b {SHORT}AAAA", "line 1"),
        (f"new {base64.b64encode(bytes(32)).decode()} more", "line 1"),
        ("\n".join(["new " + base64.b64encode(bytes(32)).decode()] * 2), "line 2 .* repeats"),
        ("\n".join(f"k{n} " + base64.b64encode(bytes(32)).decode() for n in range(65)), "65 keys"),
        ("x" * 70_000, "larger"),
    ],
)
def test_what_is_no_file_of_keys_is_refused_without_a_word_of_it(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(KeyRingError, match=says) as caught:
        KeyRing.from_file(file)
    assert SHORT not in str(caught.value)
    assert "not-base64" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyRingError, match=r"nowhere.*No such file"):
        KeyRing.from_file(tmp_path / "nowhere")


def test_a_key_does_not_show_its_secret() -> None:
    assert "x00" not in repr(MasterKey("k", bytes(32)))
    with pytest.raises(KeyRingError, match="31 bytes"):
        MasterKey("k", bytes(31))
    with pytest.raises(KeyRingError, match="same id"):
        KeyRing([OLD, MasterKey(OLD.id, NEW.secret)])
    with pytest.raises(KeyRingError, match="0 keys"):
        KeyRing([])


def test_without_cryptography_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "_aes_gcm", None)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(EncryptionMissing, match=r"understudy\[encryption\]"):
        encrypted(MemoryStore())


async def test_what_cannot_be_opened_is_a_corrupt_store_and_counted() -> None:
    store = encrypted(inner := MemoryStore())
    await inner.create(A, tenant="acme", owner="n", snapshot=b"plain", ttl=60)
    with pytest.raises(StoreCorrupt):
        await store.load(A)
    stats = store.stats()
    assert (stats["encryption_refused_total"], stats["records"]) == (1, 1)
    assert {f"store_{name}" for name in stats if name.startswith("encryption")} <= set(TOTALS)


async def test_tenants_of_more_records_than_are_remembered_are_looked_up() -> None:
    store = EncryptedStore(MemoryStore(), KeyRing([OLD]), max_known=10)
    addresses = [Address.new("session") for _ in range(50)]
    for n, address in enumerate(addresses):
        await store.create(address, tenant=f"tenant-{n}", owner="n", snapshot=b"one", ttl=60)
    for address in addresses:
        await store.save(address, epoch=1, version=2, snapshot=b"two", ttl=60)
        assert (await _loaded(store, address)).snapshot == b"two"
    assert len(store._tenants) == 10


async def _loaded(store: SessionStore, address: Address):
    record = await store.load(address)
    assert record is not None
    return record


async def _stored_snapshot(plain: bytes, tenant: str = "acme") -> bytes:
    store = encrypted(inner := MemoryStore())
    await store.create(A, tenant=tenant, owner="n", snapshot=plain, ttl=60)
    return (await _loaded(inner, A)).snapshot


def _line(key: MasterKey) -> str:
    return f"{key.id} {base64.b64encode(key.secret).decode()}"


def _write(file: Path, *keys: MasterKey) -> None:
    file.write_text("\n".join(map(_line, keys)))


GOLDEN = "wXVzAQcyMDI2LTEw///QNFiJP/EerIgQsgU7Nf8bBmzglHNz0tAwf7LgiVyNLKxCN6JB808pt6Tk44UHzOf9MYZ0xm/7"
