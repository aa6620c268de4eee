"""`Copy`: the records of one store into another, pass after pass, while the first is in use."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeVar

from ...stores import Address, RecordExists, SessionStore, StaleEpoch
from ...stores.adopting import AdoptsRecords
from ...stores.moving.marks import is_tombstone
from ...stores.record import Record, RecordInfo
from ..commands.operator_errors import OperatorError
from .ledger import Known, Ledger
from .many import PATIENCE, each, patiently

__all__ = ["Copy", "CopyError", "Pass", "Target", "copy_owner"]

T = TypeVar("T")

PAGE = 500
SAME_TIME: Final = 0.001
"""Seconds by which times may differ that two stores have of one moment."""

_ATTEMPTS = 20
"""Times that one record is copied anew because it was changed at the target by another copy."""


class CopyError(OperatorError):
    """Two stores cannot be copied, or a copy cannot go on."""


class Target(SessionStore, AdoptsRecords, Protocol):
    """A store that can be copied into."""


@dataclass(slots=True)
class Pass:
    """What one walk over the source found and did."""

    looked: int = 0
    copied: int = 0
    removed: int = 0
    vanished: int = 0
    """Gone from the source between the walk and the copying; the next pass finds out."""

    @property
    def quiet(self) -> bool:
        """Nothing had to be done: the target had all that the source had."""
        return not (self.copied or self.removed or self.vanished)


def copy_owner(source: object) -> str:
    """Whom a copy names as the owner of what it writes. A claim at the target replaces it, so that it tells what nobody
    has used there yet, and is the same for each copy of the same source."""
    identity = str(getattr(source, "identity", ""))
    return f"understudy store copy of {hashlib.sha256(identity.encode()).hexdigest()[:16]}"


class Copy:
    """Copies records as they are, encrypted ones unread, with epochs, versions and times.

    The source is only read. Each record is written by compare-and-set over what a copy of the same source wrote before,
    so a copy may be stopped anywhere and begun anew, and two of them at once do no harm. A record that a node has
    claimed at the target is left as it is, and ends the copy: what nodes have ended there it would bring back.

    When a pass is `quiet`, and nobody wrote to the source since it began, the target has each record as it was last
    acknowledged, and none that has ended.

    Args:
        tenant: Only this tenant's records.
        looked: Called with the pass under way, now and then.
        clock: Seconds since the Unix epoch.
    """

    def __init__(
        self,
        source: SessionStore,
        target: Target,
        ledger: Ledger,
        *,
        tenant: str | None = None,
        looked: Callable[[Pass], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        patience: float = PATIENCE,
    ) -> None:
        self._source = source
        self._target = target
        self._ledger = ledger
        self._tenant = tenant
        self._looked = looked
        self._clock = clock
        self._patience = patience
        self._owner = copy_owner(source)
        self._number = 0

    async def learn(self) -> None:
        """Read what the target has. Before the first pass, and to have the next one judge by what is really there.

        Raises:
            StoreError: The target fails, or was away for too long.
        """
        self._ledger.clear()
        cursor: str | None = None
        while True:
            page = await self._patiently(self._target.list, tenant=self._tenant, cursor=cursor, limit=PAGE)
            for info in page.records:
                self._ledger.put(info.address, Known.of(info, self._owner), 0)
            cursor = page.cursor
            if cursor is None:
                return

    async def count(self) -> int:
        """How many records the source has, none of which is in use at the target. Copies nothing.

        Raises:
            StoreError: The source fails, or was away for too long.
            CopyError: One is in use at the target.
        """
        count = 0
        cursor: str | None = None
        while True:
            page = await self._patiently(self._source.list, tenant=self._tenant, cursor=cursor, limit=PAGE)
            for info in page.records:
                self._require_ours(info.address, self._ledger.get(info.address))
            count += len(page.records)
            cursor = page.cursor
            if cursor is None:
                return count

    async def one_pass(self, *, thorough: bool = False) -> Pass:
        """Walk over the source once; copy what differs, and remove what has ended.

        `thorough`: load each record from both stores and compare all of it, the snapshot byte by byte; otherwise
        epochs, versions and ends are compared, with what is known of the target.

        Raises:
            StoreError: A store fails, or was away for too long. What was copied stays.
            CopyError: A record is in use at the target, or somebody else writes it there all the time.
        """
        self._number += 1
        result = Pass()
        cursor: str | None = None
        while True:
            page = await self._patiently(self._source.list, tenant=self._tenant, cursor=cursor, limit=PAGE)
            self._ledger.see((info.address for info in page.records), self._number)
            if thorough:
                await each(page.records, lambda info: self._compare(info.address, result))
            else:
                different = [info.address for info in page.records if self._differs(info)]
                await each(different, lambda address: self._copy(address, result))
            result.looked += len(page.records)
            self._looked(result)
            cursor = page.cursor
            if cursor is None:
                break
        for some in self._ledger.unseen(self._number):
            await each(some, lambda item: self._remove(*item, result))
        return result

    def _differs(self, info: RecordInfo) -> bool:
        known = self._ledger.get(info.address)
        if known is None:
            return True
        self._require_ours(info.address, known)
        same = (known.epoch, known.version) == (info.epoch, info.version)
        return not same or abs(known.expires - info.expires) > SAME_TIME

    async def _compare(self, address: Address, result: Pass) -> None:
        # In this order: what the source has afterwards can only be newer.
        found: Record | None = await self._patiently(self._target.load, address)
        record = await self._patiently(self._source.load, address)
        if record is None:
            result.vanished += 1
        elif found is None or not _same(record, found):
            await self._learn_one(address)
            await self._copy(address, result)

    async def _copy(self, address: Address, result: Pass) -> None:
        for _ in range(_ATTEMPTS):
            record = await self._patiently(self._source.load, address)
            if record is None:
                result.vanished += 1
                return
            if is_tombstone(record.snapshot):
                raise CopyError(
                    f"{address.kind} {address.id[:8]}... is on its way from the source to another store: finish that "
                    "with `understudy store move`, and copy from there"
                )
            known = self._ledger.get(address)
            self._require_ours(address, known)
            copied = replace(record, owner=self._owner)
            over = None if known is None else (known.epoch, known.version)
            try:
                await self._patiently(self._target.adopt, copied, over=over)
            except RecordExists:
                await self._learn_one(address)
                continue
            self._ledger.put(address, Known.of(copied, self._owner), self._number)
            result.copied += 1
            return
        raise CopyError(f"{address} is written at the target all the time; nothing else may copy to it now")

    async def _remove(self, address: Address, known: Known, result: Pass) -> None:
        if known.expires <= self._clock():
            self._ledger.forget(address)
            return
        if await self._patiently(self._source.load, address) is not None:
            result.vanished += 1
            return
        try:
            await self._patiently(self._target.delete, address, epoch=known.epoch)
        except StaleEpoch:
            # Claimed at the target, or written by another copy.
            await self._learn_one(address)
            result.vanished += 1
            return
        self._ledger.forget(address)
        result.removed += 1

    async def _learn_one(self, address: Address) -> None:
        found: Record | None = await self._patiently(self._target.load, address)
        if found is None:
            self._ledger.forget(address)
        else:
            self._ledger.put(address, Known.of(found, self._owner), self._number)

    @staticmethod
    def _require_ours(address: Address, known: Known | None) -> None:
        if known is not None and not known.ours:
            raise CopyError(
                f"{address.kind} {address.id[:8]}... is in use at the target already, or was copied there from "
                "elsewhere: it is left as it is, and nothing more is copied. If nodes run with the target, all is done"
            )

    async def _patiently(self, call: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
        return await patiently(call, *args, patience=self._patience, **options)


def _same(record: Record, copied: Record) -> bool:
    """All but the owner, and times as exactly as stores keep them."""
    times = ((record.created, copied.created), (record.updated, copied.updated), (record.expires, copied.expires))
    return (
        (record.tenant, record.epoch, record.version) == (copied.tenant, copied.epoch, copied.version)
        and record.snapshot == copied.snapshot
        and all(abs(one - other) <= SAME_TIME for one, other in times)
    )
