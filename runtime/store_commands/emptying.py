"""`Emptying`: what sleeps in one store into another, one session after the other, while nodes use both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ...stores import Address, Record, RecordNotFound, SessionStore, StoreUnavailable
from ...stores.moving import MovingStore
from ...stores.moving.marks import is_placeholder
from ..commands.operator_errors import OperatorError
from .copying import copy_owner
from .many import each, patiently

__all__ = ["Emptied", "Emptying", "EmptyingError"]

PAGE: Final = 1000

AT_ONCE: Final = 128
"""Sessions on their way, and in memory, at a time: a move is a row of writes, and those that wait share commits."""

ABOUT: Final = 5.0
"""Seconds by which a lifetime may differ after a move: it is moved as what is left of it."""


class EmptyingError(OperatorError):
    """A store cannot be emptied into another, or what came there is not what was taken."""


@dataclass(slots=True)
class Emptied:
    """What one walk over the former store did."""

    looked: int = 0
    moved: int = 0
    gone: int = 0
    """Had moved or ended by the time."""


class Emptying:
    """Moves every session that it finds, encrypted ones unread, as a node does that uses one. It may be stopped
    anywhere and begun anew; several at once do no harm.

    Args:
        rate: Sessions a second at most; None: as fast as it goes.
        verify: Load each before and afterwards, and compare.
        looked: Called with the walk under way, now and then.
    """

    def __init__(
        self,
        former: SessionStore,
        next: SessionStore,
        *,
        rate: float | None = None,
        verify: bool = True,
        looked: Callable[[Emptied], None] = lambda _: None,
    ) -> None:
        """
        Raises:
            StoreURLError: The two are one store, or the next takes no records of others.
        """
        self._pair = MovingStore(former, next)
        self._verify = verify
        self._pause = 0.0 if rate is None else 1.0 / rate
        self._turn = 0.0
        self._looked = looked

    async def check(self) -> int:
        """How many sessions there are to move. Nothing is moved.

        Raises:
            StoreError: A store fails, or was away for too long.
            EmptyingError: The next store holds a copy of the former: what has ended since would come back.
        """
        copier = copy_owner(self._pair.former)
        cursor: str | None = None
        while True:
            page = await patiently(self._pair.next.list, cursor=cursor, limit=PAGE)
            if any(info.owner == copier for info in page.records):
                raise EmptyingError(
                    "the target holds sessions that `understudy store copy` has copied from this source: those that "
                    "have ended since would come back. Move to an empty store, or finish as `store copy` says"
                )
            cursor = page.cursor
            if cursor is None:
                break
        count = 0
        while True:
            page = await patiently(self._pair.former.list, cursor=cursor, limit=PAGE)
            count += len(page.records)
            cursor = page.cursor
            if cursor is None:
                return count

    async def one_pass(self) -> Emptied:
        """Walk over the former store once, and move what is there.

        Raises:
            StoreError: A store fails, or was away for too long. What was moved stays moved.
            EmptyingError: A session cannot be moved, or is not there as it was.
        """
        done = Emptied()
        cursor: str | None = None
        while True:
            page = await patiently(self._pair.former.list, cursor=cursor, limit=PAGE)
            addresses = (info.address for info in page.records)
            await each(addresses, lambda address: self._bring(address, done), at_once=AT_ONCE)
            done.looked += len(page.records)
            self._looked(done)
            cursor = page.cursor
            if cursor is None:
                return done

    async def tidy(self) -> int:
        """Remove what moves that came to nothing have left in the next store; how many.

        Raises:
            StoreError: A store fails, or was away for too long.
        """
        removed = 0
        cursor: str | None = None
        while True:
            page = await patiently(self._pair.next.list, cursor=cursor, limit=PAGE)
            for info in page.records:
                if is_placeholder(info):
                    removed += await patiently(self._pair.clear_stray, info.address)
            cursor = page.cursor
            if cursor is None:
                return removed

    async def _bring(self, address: Address, done: Emptied) -> None:
        await self._wait_for_turn()
        before = await patiently(self._pair.load, address) if self._verify else None
        try:
            brought = await patiently(self._pair.bring, address)
        except RecordNotFound:
            brought = False
            await self._require_gone(address)
        except StoreUnavailable as error:
            # It may be this one alone that the target does not take.
            raise EmptyingError(f"{_shown(address)} cannot be moved now, and is not lost: {error}") from error
        done.moved += brought
        done.gone += not brought
        if before is not None:
            _compare(before, await patiently(self._pair.next.load, address))

    async def _require_gone(self, address: Address) -> None:
        """
        Raises:
            EmptyingError: It has expired here, and lives on in the former store.
        """
        left = await patiently(self._pair.former.load, address)
        if left is not None and (late := time.time() - left.expires) > ABOUT:
            raise _clocks("source", late)

    async def _wait_for_turn(self) -> None:
        if not self._pause:
            return
        now = time.monotonic()
        self._turn = max(self._turn, now - 0.1) + self._pause
        if self._turn > now:
            await asyncio.sleep(self._turn - now)


def _compare(before: Record, after: Record | None) -> None:
    """
    Raises:
        EmptyingError: They differ in what only a node could have changed, and none did.
    """
    if after is None or after.version > before.version:
        # It has ended, expired, or changed since.
        return
    same = (before.address, before.tenant, before.version, before.snapshot) == (
        after.address,
        after.tenant,
        after.version,
        after.snapshot,
    )
    if same and (late := before.expires - after.expires) > ABOUT:
        raise _clocks("target", late)
    if not same or after.epoch < before.epoch:
        raise EmptyingError(
            f"{_shown(before.address)} is not at the target as it was at the source: nothing "
            "more is moved. Look at both stores before anything else"
        )


def _shown(address: Address) -> str:
    # Whoever holds the whole id of an anonymous session holds the session.
    return f"{address.kind} {address.id[:8]}..."


def _clocks(whose: str, late: float) -> EmptyingError:
    return EmptyingError(
        f"the clock of this machine and that of the {whose} differ by {late:.0f} s or more, by which sessions would "
        "end too early: set it, or move from another machine, and start again"
    )
