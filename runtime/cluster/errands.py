"""`Errands`: does what a journey asks of the directory, the store and the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ...actors.clock import Clock
from ...stores import Address, RecordInfo, SessionStore, StoreError
from .counts import Counts
from .directory import Directory, DirectoryUnavailable, EntryChanged
from .journey import Journey
from .ownership import Ownership
from .steps import Event, Found, Load, Loaded, LookUp, Pause, Step, Taken, TakenAway, Unreachable, Write

__all__ = ["Errands"]

LOOK_UP_TIMEOUT: Final = 2.0


class Errands:
    """The steps that are the same for the edge's requests and for those that were forwarded here."""

    def __init__(
        self, ownership: Ownership, directory: Directory, *, store: SessionStore, clock: Clock, counts: Counts
    ) -> None:
        self._ownership = ownership
        self._directory = directory
        self._store = store
        self._clock = clock
        self._counts = counts
        self.strike: Callable[[str], Awaitable[None]]
        """`Membership.strike`."""

    async def run(self, journey: Journey, step: Step) -> Step | None:
        """Do `step` of `journey`, which is a `LookUp`, `Load`, `Write` or `Pause`; the step that follows from it.

        Cancelled, a write may have been made: the entry then says no more than what the next journey finds out.
        """
        if isinstance(step, Pause):
            await self._clock.sleep(step.seconds)
            return journey.resume(self._clock.monotonic())
        event = await self._outcome(journey.address, step)
        return journey.advance(event, self._clock.monotonic())

    async def _outcome(self, address: Address, step: Step) -> Event:
        match step:
            case LookUp():
                try:
                    return Found(await self._directory.look_up(address))
                except DirectoryUnavailable:
                    return Unreachable()
            case Load():
                return await self._load(address)
            case Write(entry, striking):
                try:
                    if striking:
                        await self.strike(striking)
                    revision = await self._directory.write(address, entry)
                except EntryChanged:
                    self._counts.claims_lost += 1
                    return TakenAway()
                except DirectoryUnavailable:
                    return Unreachable()
                self._counts.claims_won += 1
                return Taken(revision)
            case _:
                raise AssertionError(f"{step} is not for here")

    async def _load(self, address: Address) -> Event:
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT):
                record: RecordInfo | None = await self._store.load(address)
        except (StoreError, TimeoutError):
            return Unreachable()
        if record is None:
            return Loaded(None)
        peer = self._ownership.peers.get(record.owner)
        return Loaded(peer.incarnation if peer is not None else "", record.epoch)
