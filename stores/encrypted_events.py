"""`EncryptedEventLog`: the event log of an `EncryptedStore`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from .address import Address
from .encryption import Encryption
from .event_log import EventLog, EventLogBounds, LoggedStream
from .event_rules import checked_append
from .seal import Place

__all__ = ["EncryptedEventLog"]

GIVE_WAY: Final = 256
"""Events that are opened before others get a turn: a millisecond or so of small ones."""


class EncryptedEventLog:
    """An `EventLog` around `inner` whose heads and events are sealed, each for its own number in its own stream.

    An append does not say whose stream it is: that is the tenant of the actor's record. A stream without a record is
    sealed with a key of no tenant. Each sealed value names its tenant in the clear, so that any node can open it.

    `bounds` are those of `inner`, and count what it keeps: an event takes 47 bytes and the lengths of the key's id and
    of the tenant beside its own.

    Args:
        inner: The log that keeps the streams.
        encryption: What seals and opens.
        tenant_of: The tenant of an actor's record; None if there is no record.
    """

    def __init__(
        self, inner: EventLog, encryption: Encryption, tenant_of: Callable[[Address], Awaitable[str | None]]
    ) -> None:
        self.inner = inner
        self._encryption = encryption
        self._tenant_of = tenant_of

    @property
    def bounds(self) -> EventLogBounds:
        """As `inner` says."""
        return self.inner.bounds

    async def append(
        self,
        address: Address,
        stream: str,
        first: int,
        events: Sequence[bytes],
        *,
        head: bytes,
        writer: str,
        ends: bool = False,
    ) -> None:
        """See `EventLog.append`. Raises `TenantKeyDestroyed` too, and has then written nothing."""
        checked_append(stream, first, events, head, writer, most=self.bounds.max_total_bytes)
        tenant = await self._tenant_of(address)
        key = await self._encryption.key(tenant)
        place = Place(address, tenant, f"stream/{stream}", 0)
        seal = self._encryption.sealed
        sealed_head = seal(key, place, head, names_tenant=True)
        sealed = [
            seal(key, place._replace(number=number), event, names_tenant=True)
            for number, event in enumerate(events, first)
        ]
        await self.inner.append(address, stream, first, sealed, head=sealed_head, writer=writer, ends=ends)

    async def read(self, address: Address, stream: str, *, after: int = 0) -> LoggedStream | None:
        """See `EventLog.read`.

        Raises:
            SealBroken, StoreVersionError, TenantKeyDestroyed: The head or one of the events cannot be opened.
        """
        logged = await self.inner.read(address, stream, after=after)
        if logged is None:
            return None
        place = Place(address, None, f"stream/{stream}", 0)
        head = await self._encryption.opened(place, logged.head, names_tenant=True)
        events: list[bytes] = []
        for number, event in enumerate(logged.events, logged.first):
            events.append(await self._encryption.opened(place._replace(number=number), event, names_tenant=True))
            if len(events) % GIVE_WAY == 0:
                await asyncio.sleep(0)
        return replace(logged, head=head, events=tuple(events))

    async def drop(self, streams: Sequence[tuple[Address, str]]) -> None:
        """See `EventLog.drop`."""
        await self.inner.drop(streams)

    async def drop_all(self, address: Address) -> None:
        """See `EventLog.drop_all`."""
        await self.inner.drop_all(address)

    async def expire(self, *, limit: int = 1000) -> int:
        """See `EventLog.expire`."""
        return await self.inner.expire(limit=limit)

    def stats(self) -> dict[str, float]:
        """As `inner` says."""
        return self.inner.stats()
