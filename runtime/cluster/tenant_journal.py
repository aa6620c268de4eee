"""`TenantJournal`: which tenants have changed lately, so that each node of a cluster hears of all of them.

One entry in the bucket of settings, `tenants`: `[1, serial, [[serial, tenant], ...]]` in msgpack, the last `KEPT` of
them, oldest first. A node that was away reads what it has missed; one that was away for more than that takes all
tenants to have changed. Nothing depends on a message: one that tells of a write only has the node read sooner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import random
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from nats.errors import Error as NatsError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from ...actors.packing import pack, unpack
from ...stores.nats.connection import translated
from .errors import ClusterError

if TYPE_CHECKING:
    from nats.js.kv import KeyValue

__all__ = ["TENANTS", "TenantJournal"]

logger = logging.getLogger("understudy.cluster")

TENANTS: Final = "tenants"
KEPT: Final = 256
LONGEST: Final = 1024
"""Bytes of a tenant's id."""
TRIES: Final = 20
LOOK: Final = 30.0
"""Seconds after which the journal is looked at though nobody has told of a change."""
AGAIN: Final = (0.1, 0.5, 2.0)
"""Seconds after which it is looked at again that had nothing new: where it was read, it may not have been yet."""
TIMEOUT: Final = 5.0


class _Journal(NamedTuple):
    serial: int
    recent: list[tuple[int, str]]
    revision: int | None


class TenantJournal:
    """One node's place in the journal."""

    def __init__(self) -> None:
        self.changed: Callable[[str | None], None] = lambda tenant: None
        """Told of each tenant that another node has recorded; None: of any."""
        self._known: int | None = None
        self._look_now = asyncio.Event()

    async def learn(self, settings: KeyValue) -> None:
        """Begin where the journal is now. What this process remembers from before is out of date.

        Raises:
            Whatever nats-py raises.
        """
        self._known = (await _read(settings)).serial
        self.changed(None)

    async def record(self, settings: KeyValue, tenant: str) -> None:
        """Write that `tenant` has changed. This node itself is told by whoever calls.

        Raises:
            ClusterError: It could not be written, or it is not known whether it was; or `tenant` is too long.
        """
        if len(tenant.encode()) > LONGEST:
            raise ClusterError(f"the id of a tenant may have {LONGEST} bytes, and this one has {len(tenant.encode())}")
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._record(settings, tenant)
        except (NatsError, OSError, TimeoutError) as error:
            raise ClusterError(
                f"that tenant {tenant!r} has changed is known at this node, but whether the others hear of it is not: "
                f"NATS does not take it ({error!r}). Say it again when NATS answers"
            ) from error

    async def _record(self, settings: KeyValue, tenant: str) -> None:
        for _ in range(TRIES):
            journal = await _read(settings)
            serial = journal.serial + 1
            recent = [*journal.recent, (serial, tenant)][-KEPT:]
            value = pack([1, serial, recent])
            try:
                if journal.revision is None:
                    await settings.create(TENANTS, value, validate_keys=False)
                else:
                    await settings.update(TENANTS, value, last=journal.revision, validate_keys=False)
            except KeyWrongLastSequenceError:
                # Another node has written at the same moment, or this one has read where that was not known yet.
                await asyncio.sleep(0.02 + 0.08 * random())
                continue
            if self._known == journal.serial:
                self._known = serial
            return
        raise ClusterError(f"so many nodes tell of changed tenants that {tenant!r} found no place; say it again")

    def look_soon(self) -> None:
        """Something may have been written."""
        self._look_now.set()

    async def look(self, settings: KeyValue) -> bool:
        """Tell of what was written since the last look; whether there was anything. Raises nats-py's errors."""
        journal = await _read(settings)
        known, self._known = self._known, journal.serial
        if known is None or known == journal.serial:
            return False
        news = [tenant for serial, tenant in journal.recent if serial > known]
        if journal.serial < known or len(news) != journal.serial - known:
            logger.info("it is not known which tenants have changed meanwhile: all are resolved anew")
            self.changed(None)
            return True
        for tenant in dict.fromkeys(news):
            self.changed(tenant)
        return True

    async def watch_forever(self, settings: KeyValue) -> None:
        """Look whenever `look_soon` was called, and each `LOOK` seconds. Until cancelled."""
        again: list[float] = []
        while True:
            try:
                async with asyncio.timeout(again.pop(0) if again else LOOK):
                    await self._look_now.wait()
                again = list(AGAIN)
            except TimeoutError:
                pass
            self._look_now.clear()
            try:
                async with asyncio.timeout(TIMEOUT):
                    if await self.look(settings):
                        again = []
            except (NatsError, OSError, TimeoutError) as error:
                logger.info(
                    "whether tenants have changed cannot be seen now: %s", translated(error, "reading from NATS")
                )
                again = again or [1.0]


async def _read(settings: KeyValue) -> _Journal:
    try:
        found = await settings.get(TENANTS, validate_keys=False)
    except KeyNotFoundError:
        return _Journal(0, [], None)
    try:
        version, serial, entries = cast("list[Any]", unpack(found.value or b""))
        recent = [(int(number), str(tenant)) for number, tenant in entries]
        if version != 1 or type(serial) is not int:
            raise ValueError("of another version")
    except (ValueError, TypeError) as error:
        # The next change writes it anew; until then each look says that anything may have happened, once.
        logger.warning("the journal of changed tenants in NATS cannot be read: %s", error)
        return _Journal(-1, [], found.revision or 0)
    return _Journal(serial, recent, found.revision or 0)
