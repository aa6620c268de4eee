"""`Crowd`: a great many sessions that are put straight into a store, and what is there of them after a move.

They are real ones: a node serves whichever of them is called.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chaos.load import Client, Told
from understudy.actors.packing import pack, unpack
from understudy.actors.session.snapshot import SessionSnapshot
from understudy.stores import Address, Record, SessionStore, StoreUnavailable, open_store

__all__ = ["Crowd", "Found"]

AT_ONCE = 64

TTL = 86_400.0

FILLER = "x" * 1500
"""That makes each session some 2 KiB."""


@dataclass(slots=True)
class Found:
    """What is in two stores after everything was to move from one to the other. Ids of sessions, as lists."""

    there: int = 0
    left: list[str] = field(default_factory=list)
    """In the former store."""
    missing: list[str] = field(default_factory=list)
    """Not in the next one."""
    twice: list[str] = field(default_factory=list)
    """More than once in one, or in both."""
    older: list[str] = field(default_factory=list)
    """Than the last update that was acknowledged."""
    strange: list[str] = field(default_factory=list)
    """Another's state, or a newer one that nobody has asked for."""
    compared: int = 0
    """Of which the state was read."""

    def numbers(self) -> dict[str, int]:
        """For people."""
        lists = {name: len(getattr(self, name)) for name in ("left", "missing", "twice", "older", "strange")}
        return {"there": self.there, "compared": self.compared, **lists}

    @property
    def faults(self) -> list[str]:
        """Empty if all is as promised."""
        names = ("left", "missing", "twice", "older", "strange")
        return [f"{len(ids)} are {name}: {ids[:5]}" for name in names if (ids := getattr(self, name))]


class Crowd:
    """So many sessions, each with a number of its own in its state."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        """By id."""
        self.called: dict[str, Client] = {}
        """Those that were called, by id: their books say how new each must be."""

    async def fill(self, store: SessionStore, likenesses: Sequence[tuple[str, Record]], number: int) -> None:
        """Put so many into `store`, each like one of these, which are sessions of the eras that are named."""
        self._eras = [era for era, _ in likenesses]
        snapshots = [SessionSnapshot.unpack(record.snapshot) for _, record in likenesses]

        async def add(index: int) -> None:
            address = Address.new("session")
            state = pack({"who": index, "filler": FILLER})
            snapshot = replace(snapshots[index % len(snapshots)], state=state).pack()
            tenant = likenesses[index % len(snapshots)][1].tenant
            while True:
                try:
                    await store.create(address, tenant=tenant, owner="crowd", snapshot=snapshot, ttl=TTL)
                    break
                except StoreUnavailable as error:
                    # It was too much at once. The same again is acknowledged once.
                    await asyncio.sleep(error.retry_after)
                    if await store.load(address) is not None:
                        break
            self.numbers[address.id] = index

        await _each(range(number), add)

    def choose(self, number: int) -> list[Client]:
        """So many of those that were never called, spread over all of them, to be called from now on."""
        rest = [(id, index) for id, index in self.numbers.items() if id not in self.called]
        chosen = rest[:: max(1, len(rest) // number)][:number]
        clients = [Client(self._eras[index % len(self._eras)], session=id) for id, index in chosen]
        self.called |= {client.session: client for client in clients}
        return clients

    async def find(self, former: str, next: str, *, compare_each: int = 1) -> Found:
        """What is there. Each is looked at for its version; of each so-manieth, and of all that were called, the state
        is read too. Nobody may write meanwhile."""
        found = Found()
        here, there = await open_store(former), await open_store(next)
        try:
            left = Counter([id for id, _ in await _versions(here)])
            arrived = Counter[str]()
            for id, version in await _versions(there):
                arrived[id] += 1
                if id in self.numbers:
                    self._judge_version(id, version, found)
            found.left = sorted(left)
            found.there = sum(id in arrived for id in self.numbers)
            found.missing = [id for id in self.numbers if id not in arrived]
            found.twice = [id for id, times in (arrived + left).items() if times > 1]
            some = {id for id, index in self.numbers.items() if index % compare_each == 0} | set(self.called)
            await _each(some - set(found.missing), lambda one: self._compare(there, one, found))
            found.older = sorted(set(found.older))
        finally:
            await here.aclose()
            await there.aclose()
        return found

    def _judge_version(self, id: str, version: int, found: Found) -> None:
        client = self.called.get(id)
        if client is None:
            if version != 1:
                found.strange.append(id)
        elif version < 1 + len(client.acknowledged()):
            found.older.append(id)

    async def _compare(self, store: SessionStore, id: str, found: Found) -> None:
        record = await _patiently(store.load, Address("session", id))
        if record is None:
            found.missing.append(id)
            return
        state: Any = unpack(SessionSnapshot.unpack(record.snapshot).state)
        found.compared += 1
        if state.get("who") != self.numbers[id] or state.get("filler") != FILLER:
            found.strange.append(id)
        told = max(self.called[id].acknowledged(), default=0) if id in self.called else 0
        if state.get("count", 0) < told:
            found.older.append(id)


async def _versions(store: SessionStore) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    cursor: str | None = None
    while True:
        page = await _patiently(store.list, cursor=cursor, limit=1000)
        found += [(info.address.id, info.version) for info in page.records]
        cursor = page.cursor
        if cursor is None:
            return found


async def _patiently(ask: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
    for _ in range(20):
        try:
            return await ask(*args, **options)
        except StoreUnavailable as error:
            await asyncio.sleep(error.retry_after)
    raise Told("the store does not answer")


async def _each(items: Iterable[Any], work: Callable[[Any], Awaitable[None]]) -> None:
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(worker())
