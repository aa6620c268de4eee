"""What a node answers to operators: see `Control`. Every answer is bounded, so that it fits into one NATS message."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import anyio
from nats.errors import Error as NatsError

from ...actors import Elsewhere
from ...actors.session import SESSION
from ...stores import Address, Record, RecordInfo
from ...stores.nats.connection import translated
from ..telemetry.metrics import Latency
from .control import ControlError, Operation
from .directory import DirectoryUnavailable, EntryChanged
from .entry import node_of

if TYPE_CHECKING:
    from .cluster import Cluster

__all__ = ["operations"]

T = TypeVar("T")

STORE_TIMEOUT: Final = 5.0
MOST_ROWS: Final = 500
MOST_FOUND: Final = 20
LONGEST_DRAIN: Final = 900.0
"""Seconds after which a drain that an operator asked for is given up; what has not moved stays."""
_STATM: Final = Path("/proc/self/statm")


def operations(cluster: Cluster) -> dict[str, Operation]:
    """By the name that a question carries in `op`. They raise `ValueError` or an `UnderstudyError` to refuse."""
    node = _Operations(cluster)
    return {
        "ping": node.ping,
        "status": node.status,
        "sessions": node.sessions,
        "records": node.records,
        "session": node.session,
        "end": node.end,
        "drain": node.drain,
        "undrain": node.undrain,
        "keys": node.keys,
        "rotate_keys": node.rotate_keys,
        "tenant_changed": node.tenant_changed,
    }


class _Operations:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._joined = time.monotonic()
        self._draining: anyio.CancelScope | None = None

    async def ping(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Whether this node lives, and as whom."""
        return {"incarnation": self._cluster.ownership.me, "pid": os.getpid()}

    async def status(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that is counted."""
        cluster = self._cluster
        numbers = cluster.runtime.stats()
        return {
            "node": cluster.node_id,
            "incarnation": cluster.ownership.me,
            "pid": os.getpid(),
            "url": cluster.options.url,
            "draining": cluster.ownership.draining,
            "left": self._left(),
            "lease": cluster.options.lease,
            "lease_left": max(0.0, cluster.ownership.lease_left(time.monotonic())),
            "not_ready": cluster.not_ready(),
            "joined": time.monotonic() - self._joined,
            "resident": _resident_bytes(),
            "stats": numbers,
            "calls": _histogram(cluster.runtime.latency),
            "failover": _histogram(cluster.failover),
        }

    async def sessions(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Sessions in memory: those in `ids`, or the first `limit`, of one `tenant` or of all."""
        registry = self._cluster.registry
        tenant = _text_or_none(question, "tenant")
        ids: Any = question.get("ids")
        if ids is None:
            addresses = [address for address in registry.addresses() if address.kind == SESSION]
        elif isinstance(ids, list) and len(cast("list[Any]", ids)) <= MOST_ROWS:
            addresses = [Address.checked(SESSION, str(id)) for id in cast("list[Any]", ids)]
        else:
            raise ValueError(f"ids must be a list of at most {MOST_ROWS}")
        rows: list[dict[str, Any]] = []
        seen = 0
        limit = _limit(question)
        for address in addresses:
            look = registry.glimpse(address)
            if look is None or tenant not in (None, look.tenant):
                continue
            seen += 1
            if len(rows) < limit:
                rows.append({"id": address.id, **look._asdict()})
        return {"sessions": rows, "total": seen}

    async def records(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """A page of the store, of one `tenant` or of all, only those whose id begins with `prefix` if there is one."""
        prefix: Any = question.get("prefix", "")
        if not isinstance(prefix, str):
            raise ValueError("prefix must be text")
        page = await _bounded(
            self._cluster.store.list(
                tenant=_text_or_none(question, "tenant"),
                cursor=_text_or_none(question, "cursor"),
                limit=_limit(question),
            )
        )
        found = [
            _row(info) for info in page.records if info.address.kind == SESSION and info.address.id.startswith(prefix)
        ]
        return {"records": found[:MOST_FOUND] if prefix else found, "cursor": page.cursor}

    async def session(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """One session: its record without the state, whose it is, and how it does if it is in memory here."""
        address = _address(question)
        record = await _bounded(self._cluster.store.load(address))
        look = self._cluster.registry.glimpse(address)
        owner = self._cluster.ownership.me if look is not None else await self._owner(address)
        return {
            "record": _row(record) if record is not None else None,
            "owner": owner,
            "live": look._asdict() if look is not None else None,
        }

    async def end(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """End a session for good: `{"ended": whether there was one}`, or `{"elsewhere": node}`: to be asked there."""
        cluster = self._cluster
        address = _address(question)
        if address in cluster.registry or cluster.ownership.holds(address):
            asleep = await self._asleep(address)
            try:
                ended = await cluster.registry.end(address)
            except Elsewhere:
                # It went while we looked; the directory tells where to.
                pass
            else:
                self._ended(address, asleep if ended else None)
                return {"ended": ended}
        owner = await self._owner(address)
        if owner:
            node = node_of(owner)
            if node != cluster.node_id:
                return {"elsewhere": node}
            raise ControlError("the session is on its way in or out of memory; try again in a moment")
        entry = await cluster.directory.look_up(address)
        asleep = await self._asleep(address)
        ended = await _bounded(cluster.store.delete(address))
        self._ended(address, asleep if ended else None)
        if entry is not None:
            # A hint that leads nowhere costs a hop.
            with suppress(EntryChanged, DirectoryUnavailable):
                await cluster.directory.remove(address, entry.revision)
        return {"ended": ended}

    async def _asleep(self, address: Address) -> Record | None:
        """What is known of a session that nobody will see leave memory, if somebody wants to know."""
        cluster = self._cluster
        if cluster.ended_asleep is None or address in cluster.registry:
            return None
        return await _bounded(cluster.store.load(address))

    def _ended(self, address: Address, asleep: Record | None) -> None:
        # Its events go with it, also where nobody has it in memory.
        self._cluster.streams.end(address)
        if asleep is not None and self._cluster.ended_asleep is not None:
            self._cluster.ended_asleep(asleep)

    async def drain(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Move all sessions to other nodes; answers when all have moved, or at once if that is under way already."""
        if self._draining is None:
            with anyio.move_on_after(LONGEST_DRAIN) as self._draining:
                try:
                    await self._cluster.drain()
                finally:
                    self._draining = None
        return {"draining": self._cluster.ownership.draining, "left": self._left()}

    async def undrain(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Take new sessions again. What has moved stays where it is."""
        if self._cluster.runtime.draining:
            raise ControlError("this node is stopping: start it again instead")
        if self._draining is not None:
            self._draining.cancel()
        self._cluster.undrain()
        return {"draining": self._cluster.ownership.draining, "left": self._left()}

    async def keys(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of `requestState`, by their fingerprints."""
        cluster = self._cluster
        ring = cluster.commons.keys
        waiting = ring.waiting_for(cluster.keys_of_others())
        return {
            "given": ring.given,
            "seals": ring.fingerprints[0] if ring.fingerprints else "",
            "opens": list(ring.fingerprints),
            "changing": ring.changing,
            "waiting_for": waiting[:MOST_ROWS],
        }

    async def rotate_keys(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Make a new key, which seals when all nodes have learned of it: `keys`, and whether it is of this asking."""
        commons = self._cluster.commons
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                begun = await commons.keys.rotate(self._cluster.settings)
        except (NatsError, OSError, TimeoutError) as error:
            raise ControlError(str(translated(error, "giving NATS a new key", writing=True))) from error
        commons.look_at_keys()
        self._cluster.membership.renew_soon()
        return {"begun": begun, **await self.keys(question)}

    async def tenant_changed(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Have all nodes resolve a tenant anew. It is so here when this answers, and written for the others."""
        tenant = _text_or_none(question, "tenant")
        if not tenant:
            raise ValueError("tenant must be the id of a tenant, as text that is not empty")
        cluster = self._cluster
        await cluster.runtime.tenant_changed(tenant)
        alive = cluster.ownership.peers.alive(time.monotonic())
        return {"tenant": tenant, "nodes": sorted({cluster.node_id, *(peer.news.node for peer in alive)})[:MOST_ROWS]}

    def _left(self) -> int:
        cluster = self._cluster
        return len({*cluster.registry.addresses(), *cluster.ownership.addresses})

    async def _owner(self, address: Address) -> str:
        """The living incarnation that the directory gives the address to; empty if none."""
        cluster = self._cluster
        entry = await cluster.directory.look_up(address)
        if entry is None or entry.asleep or cluster.ownership.is_dead(entry.incarnation, time.monotonic()):
            return ""
        return entry.incarnation


async def _bounded(answer: Awaitable[T]) -> T:
    """What the store answers.

    Raises:
        ControlError: Nothing, for too long: a question that hangs would take the place of others for ever.
    """
    try:
        async with asyncio.timeout(STORE_TIMEOUT):
            return await answer
    except TimeoutError:
        raise ControlError(f"the store did not answer within {STORE_TIMEOUT:g} s") from None


def _row(info: RecordInfo) -> dict[str, Any]:
    return {
        "id": info.address.id,
        "tenant": info.tenant,
        "epoch": info.epoch,
        "version": info.version,
        "owner": info.owner,
        "created": info.created,
        "updated": info.updated,
        "expires": info.expires,
    }


def _histogram(latency: Latency) -> dict[str, Any]:
    return {"bounds": list(latency.BOUNDS), "counts": list(latency.counts), "total": latency.total}


def _address(question: Mapping[str, Any]) -> Address:
    id: Any = question.get("id")
    if not isinstance(id, str):
        raise ValueError("id must be the id of a session, as text")
    return Address.checked(SESSION, id)


def _limit(question: Mapping[str, Any]) -> int:
    limit: Any = question.get("limit", MOST_ROWS)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MOST_ROWS:
        raise ValueError(f"limit must be a whole number from 1 to {MOST_ROWS}")
    return limit


def _text_or_none(question: Mapping[str, Any], name: str) -> str | None:
    value: Any = question.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be text")
    return value


def _resident_bytes() -> int:
    """What the process occupies in memory; where the system does not tell, the most that it ever did."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
