"""`AdoptsRecords`: a store that takes a record as another store had it, with its epoch and version."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from .record import Record

__all__ = ["AdoptsRecords"]


@runtime_checkable
class AdoptsRecords(Protocol):
    """What a store can do beside the contract, so that records can be copied into it. Not for nodes.

    Epochs go on where they were, so that whoever held one in the former store is refused here as it was there. The
    version stays because an encrypted snapshot opens only as that version.
    """

    async def adopt(self, record: Record, *, over: tuple[int, int] | None = None) -> None:
        """Write `record` as it is, times included.

        Where a live record is: only if its epoch and version are `over`; acknowledged without effect if they are those
        of `record` already (a repeat).

        Raises:
            RecordExists: There is another one. Nothing was written.
            StoreUnavailable: As `SessionStore` says.
        """
        ...
