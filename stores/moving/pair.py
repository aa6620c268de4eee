"""`StorePair`: what a node does alike with both stores while its cluster moves from one to the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from ..address import Address
from ..arguments import checked_limit
from ..errors import (
    RecordNotFound,
    StaleEpoch,
    StoreCorrupt,
    StoreUnavailable,
    StoreURLError,
    StoreVersionError,
)
from ..event_log import EventLog, event_log_of
from ..record import Page, Record, RecordInfo
from ..store import SessionStore
from .events import MovingEventLog
from .marks import Tombstone, is_placeholder, is_tombstone, maybe_tombstone
from .passage import NextStore, Passage, contended

__all__ = ["StorePair", "Transition", "transition_of"]

_FORMER: Final = "former-"
_NEXT: Final = "next-"


@dataclass(frozen=True, slots=True)
class Transition:
    """What other nodes must know of one whose store is on its way to another. `identity` of the pair is the store that
    new sessions are in."""

    next: str = ""
    """The identity of the store that it follows sessions to."""
    former: str = ""
    """The identity of the store that it moves sessions from."""
    left: bool = False
    """Something may be left there."""


class StorePair:
    """The two stores as one. `former` and `next` are closed with it.

    Sessions are looked for in the former store first, as they only ever go from there to the next. What somebody moves
    against that is refused while it is on its way: it may not be found, but is not lost.

    Args:
        clock: Seconds since the Unix epoch.

    Raises:
        StoreURLError: The two are one store, or the next takes no records of others.
    """

    moves: bool
    """Whether a claim here moves the session."""

    def __init__(self, former: SessionStore, next: SessionStore, *, clock: Callable[[], float] = time.time) -> None:
        if former is next or (identity_of(former) and identity_of(former) == identity_of(next)):
            raise StoreURLError("a store cannot be moved to itself: name another one to move to")
        if not hasattr(next, "adopt"):
            raise StoreURLError(f"sessions cannot be moved to a {type(next).__name__}: it takes no records of others")
        self.former = former
        self.next = cast("NextStore", next)
        self.passage = Passage(former, self.next, clock=clock)
        self.left = True
        """Whether something may be left in the former store, by the last `look`."""
        logs = event_log_of(former), event_log_of(next)
        self._events = (
            MovingEventLog(logs[0], logs[1], begins_in_next=self.moves)
            if logs[0] is not None and logs[1] is not None
            else logs[0] or logs[1]
        )

    @property
    def events(self) -> EventLog | None:
        """The event logs of both as one; that of one of them if the other has none."""
        return self._events

    @property
    def shared(self) -> bool:
        """Whether both are."""
        return self.former.shared and self.next.shared

    @property
    def identity(self) -> str | None:
        """That of the store that new sessions are in."""
        return identity_of(self.next if self.moves else self.former) or None

    @property
    def transition(self) -> Transition:
        """What other nodes must know of it."""
        if self.moves:
            return Transition(former=identity_of(self.former), left=self.left)
        return Transition(next=identity_of(self.next), left=self.left)

    async def look(self) -> None:
        """See whether anything is left in the former store.

        Raises:
            StoreUnavailable: It cannot be asked.
        """
        self.left = bool((await self.former.list(limit=1)).records)

    async def load(self, address: Address) -> Record | None:
        """See `SessionStore.load`."""
        found = await self.former.load(address)
        if found is None or is_placeholder(found):
            return _session(await self.next.load(address), found)
        tombstone = Tombstone.found_in(found)
        if tombstone is None:
            return found
        there = await self.next.load(address)
        if there is None or not is_placeholder(there):
            return there
        return tombstone.record(found) if tombstone.awaited_by(there) else None

    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        """See `SessionStore.list`. The former store's first. A session that is moved during the walk may appear in both
        halves of it, and is never missing."""
        checked_limit(limit)
        found: list[RecordInfo] = []
        if cursor is None or cursor.startswith(_FORMER):
            page = await self.former.list(
                tenant=tenant, cursor=None if cursor is None else cursor.removeprefix(_FORMER), limit=limit
            )
            found = [
                info
                for info in page.records
                if not is_placeholder(info) and (not maybe_tombstone(info) or await self._is_listed(info))
            ]
            if page.cursor is not None:
                return Page(tuple(found), _FORMER + page.cursor)
            if len(found) == limit:
                return Page(tuple(found), _NEXT)
            cursor = _NEXT
        if not cursor.startswith(_NEXT):
            raise ValueError(f"cursor {cursor[:64]!r} is not one of this store's: pass Page.cursor of the page before")
        page = await self.next.list(tenant=tenant, cursor=cursor.removeprefix(_NEXT) or None, limit=limit - len(found))
        found += [info for info in page.records if not is_placeholder(info)]
        return Page(tuple(found), None if page.cursor is None else _NEXT + page.cursor)

    async def expire(self, *, limit: int = 1000) -> int:
        """See `SessionStore.expire`."""
        swept = await self.former.expire(limit=limit)
        return swept + (await self.next.expire(limit=limit - swept) if swept < limit else 0)

    async def ping(self) -> None:
        """See `SessionStore.ping`. Both must answer."""
        await self.former.ping()
        await self.next.ping()

    async def aclose(self) -> None:
        """Close both."""
        try:
            await self.former.aclose()
        finally:
            await self.next.aclose()

    def stats(self) -> dict[str, float]:
        """The numbers of the store that new sessions are in, and what was moved."""
        store, left = (self.next, {"former_left": int(self.left)}) if self.moves else (self.former, {})
        return stats_of(store) | {
            **left,
            "moved_total": self.passage.moved,
            "moves_completed_total": self.passage.completed,
            "moves_overtaken_total": self.passage.overtaken,
        }

    async def claim_in_next(self, address: Address, owner: str) -> Record:
        """Claim what is in the next store, of an address that the former has no session of (any more)."""
        record = await self.next.claim(address, owner=owner)
        if is_placeholder(record):
            found = await self.former.load(address)
            if found is not None and not is_placeholder(found):
                # Somebody has moved it back since it was not there, and another is about to move it here again.
                raise contended(address)
            # Of a session that was gone before it could be moved.
            await self._drop_placeholder(record)
            raise RecordNotFound(address)
        if is_tombstone(record.snapshot):
            raise StoreUnavailable(
                f"{address} is on its way back to the store that it is to leave: two moves run against each other; end "
                "the `understudy store move` whose SOURCE is the --store of the nodes",
                outcome_unknown=True,
            )
        return record

    async def _delete_anywhere(self, address: Address) -> bool:
        """`delete` under whatever epoch."""
        found = await self.former.load(address)
        gone = False
        if found is None:
            there = await self.next.load(address)
            if there is None:
                return False
            if is_placeholder(there):
                await self._drop_placeholder(there)
                return False
        else:
            # In this order nothing comes back: a tombstone that is gone moves nothing, and a mover that has none yet is
            # refused. What it has put into the next store by then goes too.
            gone = await self.former.delete(address) and not is_tombstone(found.snapshot)
        try:
            gone = await self.next.delete(address) or gone
            if await self.former.load(address) is not None:
                # Somebody moves it back, and was about to put it there.
                await self.former.delete(address)
        except StoreUnavailable as error:
            raise StoreUnavailable(str(error), outcome_unknown=True, retry_after=error.retry_after) from error
        return gone

    async def _drop_placeholder(self, there: Record) -> None:
        with suppress(StaleEpoch):
            await self.next.delete(there.address, epoch=there.epoch)

    async def holds(self, address: Address) -> bool:
        """Whether the former store has a session's record. What a tombstone stands for is put into the next one."""
        found = await self.former.load(address)
        if found is None or is_placeholder(found):
            return False
        tombstone = Tombstone.found_in(found)
        if tombstone is None:
            return True
        with suppress(LookupError):
            await self.passage.complete(found, tombstone)
        return False

    async def _is_listed(self, info: RecordInfo) -> bool:
        try:
            return await self.holds(info.address)
        except (StoreCorrupt, StoreVersionError):
            # A tombstone that cannot be read is all that there is of the session.
            return True


def transition_of(store: object) -> Transition | None:
    """What must be known of `store`, or of what it is around, if it is on its way to another."""
    transition = getattr(store, "transition", None)
    return transition if isinstance(transition, Transition) else None


def identity_of(store: object) -> str:
    """What tells a store from others; empty if it does not say."""
    identity = getattr(store, "identity", None)
    return identity if isinstance(identity, str) else ""


def stats_of(store: object) -> dict[str, float]:
    """Its numbers, if it has any."""
    stats: Any = getattr(store, "stats", None)
    return dict(cast("dict[str, float]", stats())) if callable(stats) else {}


def _session(there: Record | None, place: Record | None) -> Record | None:
    """What the next store has of a session. `place`: the placeholder in the former one, if it is on its way back."""
    if there is None or is_placeholder(there):
        return None
    tombstone = Tombstone.found_in(there)
    if tombstone is None:
        return there
    return tombstone.record(there) if place is not None and tombstone.awaited_by(place) else None
