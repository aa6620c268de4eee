"""`Encryption`: sealing and opening with a key ring, counted. What `EncryptedStore` and its event log share."""

from __future__ import annotations

from collections import Counter

from .errors import StoreError
from .key_ring import KeyRing, TenantKey
from .seal import Place, SealBroken, aes_gcm, is_sealed, parse, seal

__all__ = ["Encryption"]


class Encryption:
    """One per encrypted store.

    Args:
        keys: What seals and opens.
        allow_plain: Let through what is stored in the clear, as it is while a store is being migrated.

    Raises:
        EncryptionMissing: `cryptography` is not installed.
    """

    def __init__(self, keys: KeyRing, *, allow_plain: bool) -> None:
        aes_gcm()
        self._keys = keys
        self._allow_plain = allow_plain
        self._counts: Counter[str] = Counter()

    async def key(self, tenant: str | None) -> TenantKey:
        """See `KeyRing.to_seal`."""
        return await self._keys.to_seal(tenant)

    def sealed(self, key: TenantKey, place: Place, plain: bytes, *, names_tenant: bool) -> bytes:
        """See `seal`."""
        self._counts["sealed"] += 1
        return seal(key.id, key.root, place, plain, names_tenant=names_tenant)

    async def opened(self, place: Place, value: bytes, *, names_tenant: bool) -> bytes:
        """The plain bytes of `value`, which was found at `place`. `names_tenant`: its header says whose it is, and not
        `place`.

        Raises:
            SealBroken, StoreVersionError, TenantKeyDestroyed: It cannot be opened.
            StoreUnavailable: The tenant's key cannot be had for the time being.
        """
        try:
            return await self._opened(place, value, names_tenant)
        except StoreError:
            self._counts["refused"] += 1
            raise

    async def _opened(self, place: Place, value: bytes, names_tenant: bool) -> bytes:
        if not is_sealed(value):
            if not self._allow_plain:
                raise SealBroken(
                    place.address,
                    place.what,
                    "it is not encrypted; if it was written before encryption was turned on, allow plain records until "
                    "all are sealed",
                )
            self._counts["plain"] += 1
            return value
        sealed = parse(value, place)
        if names_tenant:
            place = place._replace(tenant=sealed.tenant)
        key = await self._keys.to_open(place.tenant, sealed.key_id)
        if key is None:
            raise SealBroken(
                place.address, place.what, f"its key {sealed.key_id[:32]!r} is not in the key ring; put it back"
            )
        plain = sealed.opened(key.root, place)
        self._counts["opened"] += 1
        if not key.seals:
            self._counts["opened_with_old_keys"] += 1
        return plain

    def stats(self) -> dict[str, float]:
        """What was sealed, opened, opened with a key that does not seal any more, found in the clear, and refused."""
        names = ("sealed", "opened", "opened_with_old_keys", "plain", "refused")
        return {f"encryption_{name}_total": self._counts[name] for name in names}
