"""`store_machine`: a store played against a model of the contract that is one dict, by a Hypothesis state machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from unittest import TestCase

from ..address import Address
from ..errors import RecordExists, RecordNotFound, StaleEpoch, StoreError
from ..record import Record
from ..store import SessionStore
from .case import ManualTime

if TYPE_CHECKING:
    from hypothesis import settings as Settings  # noqa: N812 - a class, whatever its name

__all__ = ["OpenStore", "store_machine"]

OpenStore = Callable[[ManualTime], Awaitable[SessionStore]]
"""Opens a new, empty store that reads the given clock."""

ADDRESSES = tuple(Address(kind, id) for kind in ("session", "task") for id in ("a", "b"))
TENANTS = ("acme", "other")


def store_machine(open_store: OpenStore, *, settings: Settings | None = None) -> type[TestCase]:
    """A test case that plays random calls against a store and a model, and compares every answer.

    Give the result a name in a test module. `settings` are Hypothesis's; without any, 50 games and no deadline. The
    store must read the clock it is given, and sweep by `expire`.
    """
    from hypothesis import HealthCheck
    from hypothesis import settings as new_settings
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

    addresses = st.sampled_from(ADDRESSES)
    tenants = st.sampled_from(TENANTS)
    snapshots = st.binary(max_size=20)
    lifetimes = st.sampled_from([1.0, 10.0, 1000.0])
    owners = st.sampled_from(["node-1", "node-2"])
    one_off = st.sampled_from([0, 0, 0, 0, -1, 1])

    class StoreMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.clock = ManualTime()
            self.runner = asyncio.Runner()
            self.store = self.runner.run(_awaited(open_store(self.clock)))
            self.model = _Model(self.clock)

        def teardown(self) -> None:
            self.runner.run(self.store.aclose())
            self.runner.close()

        def answers_agree(self, name: str, *args: Any, **kwargs: Any) -> None:
            expected = _answer(lambda: getattr(self.model, name)(*args, **kwargs))
            actual = self.runner.run(_async_answer(lambda: getattr(self.store, name)(*args, **kwargs)))
            assert actual == expected, f"{name}{args}{kwargs}: the store answered {actual}, expected {expected}"

        @rule(address=addresses, tenant=tenants, owner=owners, snapshot=snapshots, ttl=lifetimes)
        def create(self, address: Address, tenant: str, owner: str, snapshot: bytes, ttl: float) -> None:
            self.answers_agree("create", address, tenant=tenant, owner=owner, snapshot=snapshot, ttl=ttl)

        @rule(address=addresses, owner=owners)
        def claim(self, address: Address, owner: str) -> None:
            self.answers_agree("claim", address, owner=owner)

        @rule(address=addresses, snapshot=snapshots, ttl=lifetimes, epoch=one_off, version=one_off)
        def save(self, address: Address, snapshot: bytes, ttl: float, epoch: int, version: int) -> None:
            epoch += self.model.epoch(address)
            version += self.model.version(address) + 1
            self.answers_agree("save", address, epoch=epoch, version=version, snapshot=snapshot, ttl=ttl)

        @rule(address=addresses, ttl=lifetimes, epoch=one_off)
        def touch(self, address: Address, ttl: float, epoch: int) -> None:
            self.answers_agree("touch", address, epoch=epoch + self.model.epoch(address), ttl=ttl)

        @rule(address=addresses, epoch=one_off, fenced=st.booleans())
        def delete(self, address: Address, epoch: int, fenced: bool) -> None:
            self.answers_agree("delete", address, epoch=epoch + self.model.epoch(address) if fenced else None)

        @rule(limit=st.integers(1, 3))
        def expire(self, limit: int) -> None:
            # Which ones go first is the store's choice, so only what is gone in the end can be compared.
            swept = [self.runner.run(self.store.expire(limit=limit))]
            while swept[-1] == limit:
                swept.append(self.runner.run(self.store.expire(limit=limit)))
            assert swept[-1] < limit
            assert sum(swept) == self.model.expire()

        @rule(seconds=st.sampled_from([0.5, 1.0, 10.0, 1000.0]))
        def time_passes(self, seconds: float) -> None:
            self.clock.advance(seconds)

        @rule(limit=st.integers(1, 3), tenant=st.sampled_from([None, *TENANTS]))
        def walk(self, limit: int, tenant: str | None) -> None:
            listed: list[Any] = []
            cursor = None
            while True:
                page = self.runner.run(self.store.list(tenant=tenant, cursor=cursor, limit=limit))
                assert len(page.records) <= limit
                listed.extend(page.records)
                cursor = page.cursor
                if cursor is None:
                    break
            expected = [record for record in self.model.live() if tenant in (None, record.tenant)]
            assert sorted(map(_facts, listed)) == sorted(map(_facts, expected))

        @invariant()
        def every_record_is_as_the_model_has_it(self) -> None:
            for address in ADDRESSES:
                self.answers_agree("load", address)

    machine = cast("type[TestCase]", getattr(StoreMachine, "TestCase"))  # noqa: B009 - Hypothesis gives it no type
    if settings is None:
        # Hypothesis's own limits of time are made for computation: a store waits for disks and networks.
        settings = new_settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
    setattr(machine, "settings", settings)  # noqa: B010
    return machine


class _Model:
    """What the docstring of `SessionStore` says, and nothing else."""

    def __init__(self, clock: ManualTime) -> None:
        self._clock = clock
        self._records: dict[Address, Record] = {}

    def live(self) -> list[Record]:
        return [record for record in self._records.values() if record.expires > self._clock()]

    def epoch(self, address: Address) -> int:
        return self._records[address].epoch if address in self._records else 1

    def version(self, address: Address) -> int:
        return self._records[address].version if address in self._records else 1

    def create(self, address: Address, *, tenant: str, owner: str, snapshot: bytes, ttl: float) -> Record:
        if self.load(address) is not None:
            raise RecordExists(address)
        now = self._clock()
        self._records[address] = Record(address, tenant, 1, 1, owner, now, now, now + ttl, snapshot)
        return self._records[address]

    def claim(self, address: Address, *, owner: str) -> Record:
        record = self._found(address)
        self._records[address] = replace(record, epoch=record.epoch + 1, owner=owner)
        return self._records[address]

    def load(self, address: Address) -> Record | None:
        record = self._records.get(address)
        return record if record is not None and record.expires > self._clock() else None

    def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        record = self._fenced(address, epoch)
        if record.version == version:
            return
        if record.version != version - 1:
            raise StaleEpoch(address, held=epoch, stored=record.epoch)
        now = self._clock()
        self._records[address] = replace(record, version=version, snapshot=snapshot, updated=now, expires=now + ttl)

    def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        self._records[address] = replace(self._fenced(address, epoch), expires=self._clock() + ttl)

    def delete(self, address: Address, *, epoch: int | None) -> bool:
        if self.load(address) is None:
            return False
        if epoch is not None:
            self._fenced(address, epoch)
        del self._records[address]
        return True

    def expire(self) -> int:
        expired = [record.address for record in self._records.values() if record.expires <= self._clock()]
        for address in expired:
            del self._records[address]
        return len(expired)

    def _found(self, address: Address) -> Record:
        record = self.load(address)
        if record is None:
            raise RecordNotFound(address)
        return record

    def _fenced(self, address: Address, epoch: int) -> Record:
        record = self._found(address)
        if record.epoch != epoch:
            raise StaleEpoch(address, held=epoch, stored=record.epoch)
        return record


def _answer(call: Callable[[], object]) -> object:
    try:
        return call()
    except StoreError as error:
        return type(error), vars(error)


async def _async_answer(call: Callable[[], Awaitable[object]]) -> object:
    try:
        return await call()
    except StoreError as error:
        return type(error), vars(error)


async def _awaited(opening: Awaitable[SessionStore]) -> SessionStore:
    return await opening


def _facts(info: Any) -> tuple[object, ...]:
    return info.address, info.tenant, info.epoch, info.version, info.owner, info.created, info.updated, info.expires
