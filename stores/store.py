"""`SessionStore`: the seam behind which actors are remembered, and the judge of who may write."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from .address import Address
from .record import Page, Record

__all__ = ["SessionStore"]


@runtime_checkable
class SessionStore(Protocol):
    """Where records live. One object per node; every method may be called concurrently from one event loop.

    The contract, which `understudy.stores.testing` checks:

    * **one-writer**: `claim` raises the epoch by compare-and-set and returns the snapshot in the same round trip;
      `save`, `touch` and a fenced `delete` under any other epoch raise `StaleEpoch` and write nothing.
    * An acknowledged write is durable to the degree the store's documentation states, and visible to every
      later read.
    * `save` is idempotent: the same epoch and version again is acknowledged and changes nothing. So a caller
      whose acknowledgement was lost may simply repeat it.
    * An expired record is gone for every method, whether or not it has been swept.
    * Every method may raise `StoreUnavailable`; `outcome_unknown` says whether the write may have happened.
    * Cancelling a call leaves the outcome unknown and the store usable; the write may still take effect later. To
      settle the doubt repeat the save, or claim: a load may overtake it.
    * `ttl` is above 0; `tenant` and `owner` are Unicode text without NUL or lone surrogates, at most 1,024 characters.
      Anything else is a `ValueError` and writes nothing.
    * Addresses are not used again: a record created anew at the address of one that is gone starts at epoch 1, where a
      writer of the old one could not be told from a writer of the new.
    """

    @property
    def shared(self) -> bool:
        """Whether nodes in other processes, on other machines, see the same records."""
        ...

    async def create(self, address: Address, *, tenant: str, owner: str, snapshot: bytes, ttl: float) -> Record:
        """Write a new record at epoch 1, version 1, expiring `ttl` seconds from now.

        Raises:
            RecordExists: A live record is there already.
        """
        ...

    async def claim(self, address: Address, *, owner: str) -> Record:
        """Become the writer: raise the epoch by one, note `owner`, and return the record as it now stands.

        Raises:
            RecordNotFound: No live record there.
        """
        ...

    async def load(self, address: Address) -> Record | None:
        """The live record as last saved, or None. Takes no part in ownership."""
        ...

    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        """Replace the snapshot; the record expires `ttl` seconds from now.

        Accepted if the record's epoch is `epoch` and its version is `version - 1`; acknowledged without effect
        if its version is `version` already (a repeat).

        Raises:
            StaleEpoch: The record has another epoch, or a version that `version` does not follow.
            RecordNotFound: No live record there.
        """
        ...

    async def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        """Move the expiry to `ttl` seconds from now. The caller keeps it rare (a few times a lifetime).

        Raises:
            StaleEpoch: The record has another epoch.
            RecordNotFound: No live record there.
        """
        ...

    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        """Remove the record; True if one was there. With `epoch`, only under that epoch.

        Raises:
            StaleEpoch: `epoch` is given and the record has another.
        """
        ...

    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        """Live records in a stable order, of one tenant or of all. `limit` is 1 to 1000.

        A record that exists during the whole walk appears exactly once. A `cursor` is opaque text from the page
        before.

        Raises:
            ValueError: `limit` is out of range, or `cursor` is not one of this store's.
        """
        ...

    async def expire(self, *, limit: int = 1000) -> int:
        """Sweep up to `limit` expired records away; how many went. Housekeeping: they were gone for readers already."""
        ...

    async def ping(self) -> None:
        """Return if the store answers and could take a write; raise `StoreUnavailable` otherwise."""
        ...

    async def aclose(self) -> None:
        """Finish accepted writes, let go of files and connections. Idempotent; later calls raise `StoreUnavailable`."""
        ...
