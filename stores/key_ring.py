"""`KeyRing`: which keys seal and open what is stored, for each tenant its own."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from .errors import StoreCorrupt, StoreUnavailable
from .key_lines import MOST, KeyRingError, MasterKey, keys_from_environment, keys_from_file

__all__ = ["KeyRing", "TenantKey", "TenantKeyDestroyed", "TenantKeys"]

logger = logging.getLogger(__name__)

TenantKeys = Callable[[str], Awaitable[Sequence[MasterKey]]]
"""Gives a tenant's own keys, the one that seals first; none at all if they have been destroyed."""

LOOK_EVERY: Final = 10.0
"""Seconds between two looks at where the master keys come from."""

LOOK_AGAIN: Final = 1.0
"""Seconds between two looks because somebody asked for a key that is not there."""

MOST_TENANTS: Final = 4096
"""Tenants whose keys are kept at hand; beyond it those asked for longest ago go."""


class TenantKeyDestroyed(StoreCorrupt):
    """A tenant has no key any more: what it has stored cannot be read, and nothing is written for it."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"tenant {tenant[:64]!r} has no encryption key: nothing of it can be read or written any more")
        self.tenant = tenant


class TenantKey(NamedTuple):
    """A key of one tenant, ready to seal and open."""

    id: str
    root: bytes
    seals: bool
    """Whether it is the one that seals now, and not only opens."""


class _Tenant:
    """What is known of one tenant's keys. `asked` is when its own ones were asked for, if somebody gives them."""

    __slots__ = ("_info", "asked", "keys", "lock", "roots")

    def __init__(self, tenant: str | None) -> None:
        # None is no tenant, and "" is one.
        self._info = b"understudy tenant" + (b"\0" if tenant is None else b"\1" + tenant.encode())
        self.keys: tuple[MasterKey, ...] = ()
        self.asked: float | None = None
        self.roots: dict[str, TenantKey] = {}
        self.lock = asyncio.Lock()

    def derived(self, key: MasterKey) -> TenantKey:
        """The tenant's key: HKDF without a salt, for one block of SHA-256."""
        found = self.roots.get(key.id)
        if found is None:
            extracted = hmac.digest(bytes(32), key.secret, "sha256")
            root = hmac.digest(extracted, self._info + b"\x01", "sha256")
            found = self.roots[key.id] = TenantKey(key.id, root, key is self.keys[0])
        return found


class KeyRing:
    """The operator's keys. The first one seals, all of them open.

    A tenant's key is HKDF-SHA256 (RFC 5869) of the master key and the tenant's id; or, with `tenant_keys`, of a key
    that is the tenant's alone and can be destroyed. With `tenant_keys`, a key ring belongs to one event loop.

    Args:
        keys: The master keys; or a quick function that gives them, which is called again every ten seconds of use, and
            when a key is missing. If it fails later on, the keys stay as they were and an error is logged.
        tenant_keys: Gives each tenant its own keys. Master keys then serve streams without a record alone.
        tenant_keys_for: Seconds for which its answers are used: as long may a destroyed key live on in this process.
        timeout: Seconds that it may take.
        clock: Monotonic seconds.

    Raises:
        KeyRingError: No key, too many, or two of one id.
    """

    def __init__(
        self,
        keys: Sequence[MasterKey] | Callable[[], Sequence[MasterKey]],
        *,
        tenant_keys: TenantKeys | None = None,
        tenant_keys_for: float = 60.0,
        timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not tenant_keys_for > 0 or not timeout > 0:
            raise KeyRingError(f"tenant_keys_for {tenant_keys_for!r} and timeout {timeout!r} must be above 0 seconds")
        self._source = keys if callable(keys) else None
        self._masters = _checked(keys() if callable(keys) else keys)
        self._tenant_keys = tenant_keys
        self._tenant_keys_for = tenant_keys_for
        self._timeout = timeout
        self._clock = clock
        self._looked = clock()
        self._tenants: OrderedDict[str | None, _Tenant] = OrderedDict()

    @classmethod
    def from_file(cls, file: str | Path, *, tenant_keys: TenantKeys | None = None) -> KeyRing:
        """The keys in `file`, one a line: an id and 32 random bytes in base64. Changes are noticed within ten seconds.

        The file is read on the event loop's thread, so keep it on a local disk.

        Raises:
            KeyRingError: It cannot be read, or holds something else.
        """
        return cls(partial(keys_from_file, Path(file)), tenant_keys=tenant_keys)

    @classmethod
    def from_environment(cls, variable: str, *, tenant_keys: TenantKeys | None = None) -> KeyRing:
        """The keys in an environment variable, written as in a file, with `,` or a new line between them.

        Raises:
            KeyRingError: It is not set, or holds something else.
        """
        return cls(keys_from_environment(variable), tenant_keys=tenant_keys)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the master keys; the first one seals."""
        return tuple(key.id for key in self._masters)

    def replace(self, keys: Sequence[MasterKey]) -> None:
        """Take these master keys from now on. What was sealed with a key that is not among them no longer opens.

        Raises:
            KeyRingError: No key, too many, or two of one id. Nothing has changed.
        """
        self._set(_checked(keys))

    def forget(self, tenant: str) -> None:
        """Ask for this tenant's own keys anew at the next use: they have been destroyed, or replaced."""
        self._tenants.pop(tenant, None)

    async def to_seal(self, tenant: str | None) -> TenantKey:
        """The key to seal with now. `tenant` None: a stream that belongs to no record.

        Raises:
            TenantKeyDestroyed: The tenant has none any more.
            StoreUnavailable: Whoever gives tenants their keys failed, or took too long. Nothing was written.
        """
        known = await self._of(tenant, None)
        return known.derived(known.keys[0])

    async def to_open(self, tenant: str | None, key_id: str) -> TenantKey | None:
        """The key of that id; None if there is none.

        Raises:
            TenantKeyDestroyed, StoreUnavailable: As `to_seal` says.
        """
        known = await self._of(tenant, key_id)
        return next((known.derived(key) for key in known.keys if key.id == key_id), None)

    async def _of(self, tenant: str | None, key_id: str | None) -> _Tenant:
        if tenant is None or self._tenant_keys is None:
            self._look(key_id)
            known = self._known(tenant)
            known.keys = self._masters
            return known
        known = self._known(tenant)
        if not self._fresh(known, key_id):
            try:
                async with asyncio.timeout(self._timeout), known.lock:
                    # Whoever had the lock before may have asked already.
                    if not self._fresh(known, key_id):
                        await self._ask(tenant, known, self._tenant_keys)
            except TimeoutError:
                raise _unavailable(tenant, f"did not come within {self._timeout:g} s") from None
        if not known.keys:
            raise TenantKeyDestroyed(tenant)
        return known

    def _known(self, tenant: str | None) -> _Tenant:
        known = self._tenants.get(tenant)
        if known is None:
            known = self._tenants[tenant] = _Tenant(tenant)
            if len(self._tenants) > MOST_TENANTS:
                self._tenants.popitem(last=False)
        else:
            self._tenants.move_to_end(tenant)
        return known

    def _fresh(self, known: _Tenant, key_id: str | None) -> bool:
        if known.asked is None:
            return False
        age = self._clock() - known.asked
        there = key_id is None or not known.keys or any(key.id == key_id for key in known.keys)
        return age < (self._tenant_keys_for if there else LOOK_AGAIN)

    async def _ask(self, tenant: str, known: _Tenant, tenant_keys: TenantKeys) -> None:
        asked = self._clock()
        try:
            keys = tuple(await tenant_keys(tenant))
            keys = _checked(keys) if keys else ()
        except TimeoutError:
            raise
        except Exception as error:
            # Its words are not repeated: they may hold what we must not show.
            raise _unavailable(tenant, f"cannot be had: {type(error).__name__}") from None
        if keys != known.keys:
            known.keys, known.roots = keys, {}
        known.asked = asked

    def _look(self, key_id: str | None) -> None:
        if self._source is None:
            return
        age = self._clock() - self._looked
        if age < LOOK_AGAIN or (age < LOOK_EVERY and (key_id is None or key_id in self.ids)):
            return
        self._looked = self._clock()
        try:
            keys = _checked(self._source())
        except KeyRingError as error:
            logger.error("the encryption keys stay as they were: %s", error)
        except Exception as error:
            logger.error("the encryption keys stay as they were: %s", type(error).__name__)
        else:
            self._set(keys)

    def _set(self, keys: tuple[MasterKey, ...]) -> None:
        if keys == self._masters:
            return
        logger.info("the encryption keys are %s now; the first seals", ", ".join(key.id for key in keys))
        self._masters = keys
        # What was derived from keys that are gone must not outlive them.
        for tenant in [None] if self._tenant_keys is not None else list(self._tenants):
            self._tenants.pop(tenant, None)


def _checked(keys: Sequence[MasterKey]) -> tuple[MasterKey, ...]:
    if not 0 < len(keys) <= MOST:
        raise KeyRingError(f"a key ring of {len(keys)} keys; it must be 1 to {MOST}")
    twice = len(keys) - len({key.id for key in keys})
    if twice:
        raise KeyRingError("two keys of a key ring have the same id; whatever was sealed with one names only the id")
    return tuple(keys)


def _unavailable(tenant: str, why: str) -> StoreUnavailable:
    return StoreUnavailable(f"the encryption key of tenant {tenant[:64]!r} {why}", outcome_unknown=False)
