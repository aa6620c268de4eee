"""`Holdings`: keeps the directory in step with what this node has in memory."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from ...actors.actor import Cell
from ...actors.clock import Clock
from ...actors.departure import Departure
from ...actors.task_owner import TaskOwner
from ...stores import Address
from .directory import Directory, DirectoryUnavailable, EntryChanged
from .entry import Entry
from .ownership import Ownership

__all__ = ["Holdings"]

logger = logging.getLogger("understudy.cluster")

LINGER: Final = 1.0
"""Seconds that a node keeps the address of an actor that sleeps: what comes back at once need not ask anybody."""
SWEEP_EVERY: Final = 0.5
WRITES_AT_ONCE: Final = 64
TRIES: Final = 3
_GONE: Final = frozenset({Departure.LOST, Departure.GONE, Departure.ENDED, Departure.UNBORN})


class Holdings:
    """The registry's `Observer`, and all writes to the directory that no request waits for.

    What cannot be written is let be: an entry that names a node which does not hold the address costs a hop.
    """

    def __init__(
        self,
        ownership: Ownership,
        directory: Directory,
        clock: Clock,
        tasks: TaskOwner,
        *,
        in_use: Callable[[Address], bool],
    ) -> None:
        """`in_use`: whether an address must stay here: its actor lives, or clients' streams of it are kept here."""
        self._ownership = ownership
        self._directory = directory
        self._clock = clock
        self._tasks = tasks
        self._in_use = in_use
        self._resting: OrderedDict[Address, float] = OrderedDict()
        self._ended: set[Address] = set()
        self._writing = 0
        self._room = asyncio.Event()
        self._room.set()
        self.moved: Callable[[Address], None] = _nothing
        """Told of each address that has gone to another node without this one's doing."""
        self.writes_failed = 0

    # `Observer`

    def activated(self, cell: Cell, *, rehydrated: bool) -> None:
        """See `Observer.activated`."""
        self._forget(cell.address)

    def departed(self, cell: Cell, departure: Departure) -> None:
        """See `Observer.departed`."""
        address = cell.address
        if departure is Departure.LOST:
            self._ownership.lost(address)
            self.moved(address)
        elif departure in _GONE:
            self._ended.add(address)
            self.rest(address, now=True)
        elif departure is Departure.HANDED_OFF and self._ownership.handing_off(address):
            pass  # until `give`
        elif departure is not Departure.LAPSED:
            self.rest(address)

    def absent(self, address: Address) -> None:
        """See `Observer.absent`."""
        self._ended.add(address)
        self.rest(address, now=True)

    # Coming

    async def announce(self, address: Address) -> None:
        """Enter a session that has just been opened here, before its client is told of it.

        Raises:
            DirectoryUnavailable: Not done. Others will find it by its record.
        """
        entry = self._ownership.opened(address)
        if entry is None:
            return
        try:
            revision = await self._directory.write(address, entry)
            if not self._ownership.published(address, revision, entry.incarnation):
                await self._directory.write(address, Entry("", entry.epoch, revision))
        finally:
            if not self._in_use(address):
                # It has left already: nobody else would say so.
                self.rest(address)

    def claimed(self, address: Address, epoch: int) -> Awaitable[bool] | None:
        """See `Gate.claimed`."""
        ownership = self._ownership
        entry = ownership.claimed(address, epoch)
        if entry is not None:
            return self._confirm(address, entry)
        # Let go of while the store was asked.
        return None if ownership.holds(address) else _no()

    async def _confirm(self, address: Address, entry: Entry) -> bool:
        """Write the epoch that the claim gave, where another had been foretold: somebody else's claim came between."""
        try:
            revision = await self._directory.write(address, entry)
        except (DirectoryUnavailable, EntryChanged):
            self.writes_failed += 1
            self._ownership.lost(address)
            return False
        return self._ownership.published(address, revision, entry.incarnation)

    # Going

    def rest(self, address: Address, *, now: bool = False) -> None:
        """The address is perhaps no longer in use here: it is let go of after a while, or now, if that is so."""
        if self._ownership.holds(address):
            self._resting[address] = float("-inf") if now else self._clock.monotonic()
            # In the order of their times: `sweep` ends at the first that is not due.
            self._resting.move_to_end(address, last=not now)
        else:
            self._forget(address)

    def _forget(self, address: Address) -> None:
        self._resting.pop(address, None)
        self._ended.discard(address)

    async def sweep_forever(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(SWEEP_EVERY)
            await self.sweep(self._clock.monotonic() - LINGER)

    async def sweep(self, horizon: float) -> None:
        """Let go of what has rested since before `horizon`."""
        while self._resting:
            address, since = next(iter(self._resting.items()))
            if since > horizon:
                return
            del self._resting[address]
            ended = address in self._ended
            self._ended.discard(address)
            if self._in_use(address) or self._ownership.handing_off(address):
                continue
            entry = self._ownership.release(address)
            if entry is None:
                continue
            while self._writing >= WRITES_AT_ONCE:
                self._room.clear()
                await self._room.wait()
            self._writing += 1
            self._tasks.spawn(self._release(address, entry, ended))

    async def _release(self, address: Address, entry: Entry, ended: bool) -> None:
        try:
            if ended:
                await self._directory.remove(address, entry.revision)
            else:
                await self._directory.write(address, entry)
        except (EntryChanged, DirectoryUnavailable) as error:
            self.writes_failed += isinstance(error, DirectoryUnavailable)
            logger.debug("%s stays in the directory: %s", address, error)
        except Exception:
            self.writes_failed += 1
            logger.exception("%s stays in the directory", address)
        finally:
            self._ownership.released(address)
            self._writing -= 1
            self._room.set()

    async def give(self, address: Address, to: str) -> None:
        """The actor has left memory in a hand-off: the address is `to`'s now (or, empty, nobody's)."""
        self._forget(address)
        entry = self._ownership.handed_off(address, to)
        if entry is None:
            return
        for attempt in range(TRIES):
            try:
                await self._directory.write(address, entry)
                return
            except EntryChanged:
                return
            except DirectoryUnavailable:
                await self._clock.sleep(0.05 * (attempt + 1))
        self.writes_failed += 1

    def forget(self) -> None:
        """Nothing is held any more: the lease is over."""
        self._resting.clear()
        self._ended.clear()

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {"resting": len(self._resting), "directory_writes_failed": self.writes_failed}


def _nothing(_: Address) -> None:
    return


async def _no() -> bool:
    return False
