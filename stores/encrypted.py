"""`EncryptedStore`: any store, whose snapshots and events nobody can read or exchange without the operator's keys."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any, Final, cast

from .address import Address
from .arguments import checked_text, checked_ttl
from .encrypted_events import EncryptedEventLog
from .encryption import Encryption
from .errors import RecordNotFound, StoreUnavailable
from .event_log import EventLog, event_log_of
from .key_ring import KeyRing
from .record import Page, Record
from .seal import Place
from .store import SessionStore

__all__ = ["EncryptedStore"]

MAX_KNOWN: Final = 16_384


class EncryptedStore:
    """A `SessionStore` around `inner` that encrypts snapshots and events, with a key for each tenant.

    What stands in the clear: addresses, tenants, owners, epochs, versions, times, sizes, names and writers of streams,
    and ids of keys. A snapshot opens only as that version of that record of that tenant; see the README for what this
    protects from, and what not.

    It encrypts on the event loop's thread: about 5 us for 1 KiB, 90 us for 1 MiB.

    Args:
        inner: The store that keeps the records. `aclose` closes it.
        keys: What seals and opens.
        allow_plain: Read what is stored in the clear too, while a store is being migrated; the next save seals it. As
            long as it is on, whoever can write to the store can plant records.
        max_known: Records whose tenants are remembered, because a save does not say it; for others it is looked up, one
            load each.

    Raises:
        EncryptionMissing: `cryptography` is not installed.
    """

    def __init__(
        self, inner: SessionStore, keys: KeyRing, *, allow_plain: bool = False, max_known: int = MAX_KNOWN
    ) -> None:
        if max_known < 1:
            raise ValueError(f"max_known {max_known} must be at least 1")
        self.inner = inner
        self._encryption = Encryption(keys, allow_plain=allow_plain)
        self._max_known = max_known
        self._tenants: OrderedDict[Address, str] = OrderedDict()
        log = event_log_of(inner)
        self._events = None if log is None else EncryptedEventLog(log, self._encryption, self._tenant_of)

    @property
    def events(self) -> EventLog | None:
        """The event log of `inner`, encrypted; None if it has none."""
        return self._events

    @property
    def shared(self) -> bool:
        """As `inner` says."""
        return self.inner.shared

    @property
    def identity(self) -> object:
        """As `inner` says, if it does."""
        return getattr(self.inner, "identity", None)

    @property
    def transition(self) -> object:
        """As `inner` says, if it does."""
        return getattr(self.inner, "transition", None)

    def stats(self) -> dict[str, float]:
        """The numbers of `inner`, and `encryption_..._total`: what was sealed, opened, opened with a key that seals no
        more, found in the clear, refused."""
        inner: Any = getattr(self.inner, "stats", None)
        own = cast("dict[str, float]", inner()) if callable(inner) else {}
        return own | self._encryption.stats()

    async def create(self, address: Address, *, tenant: str, owner: str, snapshot: bytes, ttl: float) -> Record:
        """See `SessionStore.create`. Raises `TenantKeyDestroyed` too, and has then written nothing."""
        checked_text("tenant", tenant)
        sealed = await self._sealed(address, tenant, 1, snapshot)
        self._tenants.pop(address, None)
        record = await self.inner.create(address, tenant=tenant, owner=owner, snapshot=sealed, ttl=ttl)
        self._remember(address, tenant)
        return replace(record, snapshot=snapshot)

    async def claim(self, address: Address, *, owner: str) -> Record:
        """See `SessionStore.claim`.

        Raises:
            SealBroken, StoreVersionError, TenantKeyDestroyed: The snapshot cannot be opened. It is left as it is; the
                epoch has been raised all the same.
            StoreUnavailable: So it may have been where a tenant's key could not be had.
        """
        record = await self.inner.claim(address, owner=owner)
        try:
            return await self._opened(record)
        except StoreUnavailable as error:
            raise StoreUnavailable(str(error), outcome_unknown=True, retry_after=error.retry_after) from error

    async def load(self, address: Address) -> Record | None:
        """See `SessionStore.load`. Raises also what `claim` does."""
        record = await self.inner.load(address)
        return None if record is None else await self._opened(record)

    async def save(self, address: Address, *, epoch: int, version: int, snapshot: bytes, ttl: float) -> None:
        """See `SessionStore.save`. Raises `TenantKeyDestroyed` too, and has then written nothing."""
        checked_ttl(ttl)
        tenant = await self._tenant_of(address)
        if tenant is None:
            raise RecordNotFound(address)
        sealed = await self._sealed(address, tenant, version, snapshot)
        await self.inner.save(address, epoch=epoch, version=version, snapshot=sealed, ttl=ttl)

    async def touch(self, address: Address, *, epoch: int, ttl: float) -> None:
        """See `SessionStore.touch`."""
        await self.inner.touch(address, epoch=epoch, ttl=ttl)

    async def delete(self, address: Address, *, epoch: int | None = None) -> bool:
        """See `SessionStore.delete`. Needs no key: what cannot be read can be deleted."""
        deleted = await self.inner.delete(address, epoch=epoch)
        self._tenants.pop(address, None)
        return deleted

    async def list(self, *, tenant: str | None = None, cursor: str | None = None, limit: int = 100) -> Page:
        """See `SessionStore.list`."""
        return await self.inner.list(tenant=tenant, cursor=cursor, limit=limit)

    async def expire(self, *, limit: int = 1000) -> int:
        """See `SessionStore.expire`."""
        return await self.inner.expire(limit=limit)

    async def ping(self) -> None:
        """See `SessionStore.ping`."""
        await self.inner.ping()

    async def aclose(self) -> None:
        """Close `inner`."""
        await self.inner.aclose()
        self._tenants.clear()

    async def _sealed(self, address: Address, tenant: str, version: int, snapshot: bytes) -> bytes:
        key = await self._encryption.key(tenant)
        place = Place(address, tenant, "snapshot", version)
        return self._encryption.sealed(key, place, snapshot, names_tenant=False)

    async def _opened(self, record: Record) -> Record:
        self._remember(record.address, record.tenant)
        place = Place(record.address, record.tenant, "snapshot", record.version)
        return replace(record, snapshot=await self._encryption.opened(place, record.snapshot, names_tenant=False))

    async def _tenant_of(self, address: Address) -> str | None:
        """Whose record it is; None if there is none. Mostly from memory: who saves has created or claimed it here."""
        tenant = self._tenants.get(address)
        if tenant is not None:
            self._tenants.move_to_end(address)
            return tenant
        record = await self.inner.load(address)
        if record is None:
            return None
        self._remember(address, record.tenant)
        return record.tenant

    def _remember(self, address: Address, tenant: str) -> None:
        self._tenants[address] = tenant
        self._tenants.move_to_end(address)
        if len(self._tenants) > self._max_known:
            self._tenants.popitem(last=False)
