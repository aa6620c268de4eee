"""`RecordWriter`: one actor's record, as its only writer sees it; and `Storage`, the store as a node uses it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar

from ..stores import Address, Record, RecordExists, RecordNotFound, SessionStore, StaleEpoch, StoreUnavailable
from .clock import Clock, within
from .counters import Counters

__all__ = ["RecordWriter", "Storage"]

T = TypeVar("T")

_TRIES = 3
"""Of a write whose outcome is unknown: it is idempotent, so repeating it settles what happened."""
_QUICK = 0.1
"""A definite refusal within this part of the store's timeout is worth one more try."""
_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Storage:
    """A node's store with what every call to it needs: the deadline, the owner's name, the clocks."""

    store: SessionStore
    owner: str
    timeout: float
    clock: Clock
    wall: Callable[[], float]
    """Seconds since the Unix epoch, to read `Record.expires` by."""
    random: Random
    counters: Counters

    async def bounded(self, call: Coroutine[Any, Any, T]) -> T:
        """Await one call of the store.

        Raises:
            StoreUnavailable: It did, or it took longer than `timeout` (then the outcome is unknown).
        """
        try:
            return await within(self.clock, self.timeout, call)
        except TimeoutError as error:
            raise StoreUnavailable(
                f"the store did not answer within {self.timeout:g} s", outcome_unknown=True
            ) from error

    async def settled(self, write: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """Do an idempotent write, repeated while its outcome is unknown; True with the result if it ever was.

        Raises:
            StoreUnavailable: Not done, or not known to be after bounded tries in bounded time (`outcome_unknown`).
            _InDoubt: An answer that a first try could have caused itself.
        """
        clock = self.clock
        started = clock.monotonic()
        doubt: StoreUnavailable | None = None
        tries = 0
        while True:
            tries += 1
            try:
                return await self.bounded(write()), doubt is not None
            except StoreUnavailable as error:
                spent = clock.monotonic() - started
                if error.outcome_unknown:
                    doubt = error
                if doubt is None and tries == 1 and spent <= self.timeout * _QUICK:
                    pass
                elif doubt is not None and tries < _TRIES and spent < self.timeout * (_TRIES - 1):
                    if tries > 1:
                        await clock.sleep(_PAUSE * (1 + self.random.random()))
                else:
                    raise (doubt or error) from None
                self.counters.save_repeats += 1
            except (StaleEpoch, RecordExists) as error:
                if doubt is None:
                    raise
                raise _InDoubt(error, doubt) from None

    async def delete(self, address: Address, epoch: int | None = None) -> bool:
        """Delete a record, fenced by `epoch` if it is given; whether there was one.

        Raises:
            StaleEpoch: The record has another epoch.
            StoreUnavailable: Not deleted, or not known to be.
        """
        try:
            found, repeated = await self.settled(lambda: self.store.delete(address, epoch=epoch))
        except _InDoubt as doubt:
            raise doubt.answer from None
        return found or repeated


class _InDoubt(Exception):
    """`answer` followed a try whose outcome is unknown: it may have been that try which changed the record."""

    def __init__(self, answer: StaleEpoch | RecordExists, doubt: StoreUnavailable) -> None:
        super().__init__(str(answer))
        self.answer = answer
        self.doubt = doubt


class RecordWriter:
    """Writes one actor's record under its epoch (one-writer), one write after the other."""

    __slots__ = (
        "_base",
        "_failure",
        "_snapshot",
        "_storage",
        "address",
        "epoch",
        "renewed",
        "tenant",
        "ttl",
        "version",
    )

    def __init__(self, storage: Storage, address: Address, tenant: str, ttl: float) -> None:
        self._storage = storage
        self._base: Record | None = None
        self._snapshot: bytes = b""
        self._failure: Exception | None = None
        self.address = address
        self.tenant = tenant
        self.ttl = ttl
        self.epoch = 0
        self.version = 0
        """Of the last save; 0 while there is no record."""
        self.renewed = 0.0
        """When the record's expiry was last written, by the registry's clock."""

    @property
    def record(self) -> Record | None:
        """The record as last claimed or saved here; its times are those of the claim or creation."""
        base = self._base
        if base is None or base.version == self.version:
            return base
        return replace(base, version=self.version, snapshot=self._snapshot)

    async def claim(self) -> Record:
        """Become the record's writer.

        Raises:
            RecordNotFound: No record.
            StoreUnavailable: Not claimed; or claimed without our knowing, which harms nobody but another owner.
        """
        storage = self._storage
        record = await storage.bounded(storage.store.claim(self.address, owner=storage.owner))
        self._base = record
        self._snapshot = record.snapshot
        self.tenant = record.tenant
        self.epoch = record.epoch
        self.version = record.version
        # A claim does not renew the expiry: what is left of it tells when it was last written.
        spent = self.ttl - (record.expires - storage.wall())
        self.renewed = storage.clock.monotonic() - min(max(spent, 0.0), self.ttl)
        return record

    async def save(self, snapshot: bytes) -> None:
        """Make `snapshot` the record's, creating the record if there is none. Cancellation leaves the outcome unknown.

        Raises:
            StaleEpoch: Another owner has claimed the record since; not saved.
            RecordNotFound: The record was deleted or has expired; not saved.
            RecordExists: A record that is not ours is at the address of a new actor; not saved.
            StoreUnavailable: Not saved, or not known to be; in that case this writer must not be used again.
        After a failure that ends the ownership, or puts it in doubt, every later save raises the same again.
        """
        if self._failure is not None:
            raise self._failure
        storage = self._storage
        version = self.version + 1
        try:
            if version == 1:
                await self._create(snapshot)
            else:
                await self._replace(snapshot, version)
        except BaseException as error:
            storage.counters.save_failures += 1
            storage.counters.stale_saves += isinstance(error, StaleEpoch)
            if not (isinstance(error, StoreUnavailable) and not error.outcome_unknown):
                self._failure = error if isinstance(error, Exception) else _cut_short(self.address)
            raise
        storage.counters.saves += 1
        self._snapshot = snapshot
        self.version = version
        self.renewed = storage.clock.monotonic()

    async def touch(self) -> None:
        """Move the record's expiry a whole lifetime ahead.

        Raises:
            StaleEpoch, RecordNotFound: The record is no longer ours.
            StoreUnavailable: Not done, or not known to be.
        """
        storage = self._storage
        await storage.bounded(storage.store.touch(self.address, epoch=self.epoch, ttl=self.ttl))
        self.renewed = storage.clock.monotonic()

    async def delete(self) -> bool:
        """Delete the record under our epoch; False if there was none. Raises as `Storage.delete`."""
        if self.version == 0:
            return False
        return await self._storage.delete(self.address, self.epoch)

    async def _create(self, snapshot: bytes) -> None:
        storage = self._storage
        try:
            self._base, _ = await storage.settled(
                lambda: storage.store.create(
                    self.address, tenant=self.tenant, owner=storage.owner, snapshot=snapshot, ttl=self.ttl
                )
            )
        except _InDoubt as doubt:
            # Nobody else knows a new address, so the record is most likely what our first try wrote.
            record = await self._read_back(doubt)
            if (record.epoch, record.version, record.owner, record.snapshot) != (1, 1, storage.owner, snapshot):
                raise doubt.answer from None
            self._base = record
        self._snapshot = snapshot
        self.epoch = 1

    async def _replace(self, snapshot: bytes, version: int) -> None:
        storage = self._storage
        try:
            await storage.settled(
                lambda: storage.store.save(
                    self.address, epoch=self.epoch, version=version, snapshot=snapshot, ttl=self.ttl
                )
            )
        except _InDoubt as doubt:
            record = await self._read_back(doubt)
            if record.epoch == self.epoch and record.version >= version:
                return
            # Version numbers only grow, and each is written once. Below ours: ours was never written, and is fenced
            # now. Ours with another snapshot: the other owner wrote it. Ours with an equal snapshot proves nothing,
            # two owners can count to the same number.
            if record.version < version or (record.version == version and record.snapshot != snapshot):
                raise doubt.answer from None
            raise doubt.doubt from doubt.answer

    async def _read_back(self, doubt: _InDoubt) -> Record:
        storage = self._storage
        try:
            record = await storage.bounded(storage.store.load(self.address))
        except StoreUnavailable:
            raise doubt.doubt from doubt.answer
        if record is None:
            raise RecordNotFound(self.address)
        return record


def _cut_short(address: Address) -> StoreUnavailable:
    return StoreUnavailable(
        f"a save of {address} was cancelled; whether it took effect is unknown", outcome_unknown=True
    )
