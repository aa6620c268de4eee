"""`Directory`: the cluster's map of address to owner. A hint, not a lock, behind a seam."""

from __future__ import annotations

from typing import Protocol

from ...stores import Address, UnderstudyError
from .entry import Entry

__all__ = ["Directory", "DirectoryUnavailable", "EntryChanged", "MemoryDirectory"]


class DirectoryUnavailable(UnderstudyError):
    """The directory did not answer in time, or cannot write now. A write may have happened all the same."""


class EntryChanged(UnderstudyError):
    """The entry has another revision than the writer expected; nothing was written."""

    def __init__(self, address: Address) -> None:
        super().__init__(f"the directory's entry of {address} has changed since it was read; read it again")
        self.address = address


class Directory(Protocol):
    """Where actors are. Whatever it loses, delays or repeats, nothing is written twice (one-writer)."""

    async def look_up(self, address: Address) -> Entry | None:
        """The present entry, None if there is none.

        Raises:
            DirectoryUnavailable: No answer in time.
        """
        ...

    async def write(self, address: Address, entry: Entry) -> int:
        """Replace the entry if its revision is still `entry.revision` (0: there is none yet); its new revision.

        Cancellation leaves open whether it was written.

        Raises:
            EntryChanged: It is not.
            DirectoryUnavailable: Not written, or not known to be.
        """
        ...

    async def remove(self, address: Address, revision: int) -> None:
        """Forget the entry if it still has this revision: there is no such actor any more. Raises as `write`."""
        ...


class MemoryDirectory:
    """For tests of what stands above: one object that several nodes of one process share."""

    def __init__(self) -> None:
        self._entries: dict[Address, Entry] = {}
        self._revision = 0

    async def look_up(self, address: Address) -> Entry | None:
        return self._entries.get(address)

    async def write(self, address: Address, entry: Entry) -> int:
        present = self._entries.get(address)
        if (present.revision if present is not None else 0) != entry.revision:
            raise EntryChanged(address)
        self._revision += 1
        self._entries[address] = Entry(entry.incarnation, entry.epoch, self._revision)
        return self._revision

    async def remove(self, address: Address, revision: int) -> None:
        present = self._entries.get(address)
        if present is None or present.revision != revision:
            raise EntryChanged(address)
        del self._entries[address]
