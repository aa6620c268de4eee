"""`ManyTenants`: what the sessions of many tenants do, and what strangers try, all of it looked at."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from random import Random
from typing import Any

from chaos.cluster import ChaosCluster
from chaos.guests import Guest
from chaos.http import Answer, Broken, Connection, NotConnected
from chaos.load import HANDSHAKE, MODERN, PATIENCE, Fate, read
from chaos.sse import EventStream, Refusal
from chaos.strangers import Knock, knock_of, seen
from chaos.tenants_server import NEWS
from chaos.watch import Watch

__all__ = ["ManyTenants"]

TELL_EVERY = 5000
"""Calls."""
AGAIN_AFTER = 0.05


class ManyTenants:
    """Sessions of many tenants, and every byte that they get."""

    def __init__(self, cluster: ChaosCluster, guests: list[Guest], *, seed: int, books: bool) -> None:
        """`books`: whether there is a database."""
        self.watch = Watch()
        self.numbers: Counter[str] = Counter()
        self.faults: list[str] = []
        self.done = 0
        self._cluster = cluster
        self._books = books
        self._guests = guests
        self._random = Random(seed)
        self._turn = count()
        self._idle: dict[int, list[Connection]] = {port: [] for port in cluster.ports.values()}

    # Asking

    async def _ask(self, guest: Guest, method: str, headers: str, body: bytes, where: str) -> Answer | None:
        """The answer of some node; None: the connection broke, or there was none in time, which is a fault."""
        ports = list(self._idle)
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    port = ports[next(self._turn) % len(ports)]
                    # A connection serves whoever comes next, as a proxy's does.
                    connection = self._idle[port].pop() if self._idle[port] else self._connection(port)
                    connection.asks(guest.mark, where)
                    try:
                        answer = await connection.request(method, "/mcp", headers, body)
                    except NotConnected:
                        await asyncio.sleep(0.01)
                        continue
                    finally:
                        self._idle[port].append(connection)
                    self.watch.own[where] += answer.body.count(guest.mark.encode())
                    return answer
        except Broken:
            self.numbers["broken"] += 1
        except TimeoutError:
            self.faults.append(f"{where} of {guest.tenant} got no answer in {PATIENCE:g} s")
        return None

    def _connection(self, port: int) -> Connection:
        return Connection("127.0.0.1", port, self.watch)

    async def open_all(self) -> None:
        waiting = list(self._guests)

        async def open_some() -> None:
            while waiting:
                guest = waiting.pop()
                port = self._random.choice(list(self._idle))
                connection = self._connection(port)
                await guest.open(connection)
                self._idle[port].append(connection)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(16):
                tasks.create_task(open_some())

    def close(self) -> None:
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    # What guests do

    async def work(self, goal: int) -> None:
        """Calls, until all have been made."""
        deeds: dict[Callable[[Guest], Awaitable[None]], int] = {
            self._keep: 30, self._recall: 18, self._recite: 8, self._learn: 4, self._whoami: 5, self._stash: 7,
            self._secret: 5, self._note: 6, self._list: 6, self._brief: 4, self._probe: 12,
        }  # fmt: skip
        if self._books:
            deeds[self._book] = 7
        ways, weights = list(deeds), list(deeds.values())
        while self.done < goal:
            self.done += 1
            if self.done % TELL_EVERY == 0:
                faults = len(self.faults) + len(self.watch.faults)
                print(f"    {self.done} calls, {self.numbers['kills']} kills, {faults} faults", flush=True)
            await self._random.choices(ways, weights)[0](self._random.choice(self._guests))

    async def _tool(self, guest: Guest, name: str, session: bool = True, **arguments: Any) -> tuple[Fate, Any]:
        needed = session or guest.era == HANDSHAKE
        knock = guest.tool(name, arguments, session=guest.session if needed else None)
        answer = await self._ask(guest, "POST", *knock, name)
        if answer is None:
            return Fate.BROKEN, None
        fate, value, said = read(answer)
        self.numbers[fate.value] += 1
        if fate is Fate.WRONG:
            self.faults.append(f"{name} of {guest.tenant} ({guest.era}): {said[:400]}")
        return fate, value

    def _check(self, guest: Guest, what: str, texts: list[str]) -> None:
        for text in texts:
            if guest.mark not in text or (what not in ("learn", "stash", "book") and guest.principal not in text):
                self.faults.append(f"{what} of {guest.principal} of {guest.tenant}: {text!r}")

    async def _keep(self, guest: Guest) -> None:
        fate, value = await self._tool(guest, "keep", text=f"{guest.mark}-{self.done}")
        if fate is Fate.ACKNOWLEDGED:
            guest.kept += 1
            guest.latest = max(guest.latest, value["count"])
            self._check(guest, "keep", value["kept"])
        elif fate in (Fate.UNKNOWN, Fate.BROKEN):
            guest.doubtful += 1

    async def _recall(self, guest: Guest) -> None:
        fate, value = await self._tool(guest, "recall")
        if fate is Fate.ACKNOWLEDGED:
            self._check(guest, "recall", value["kept"])

    async def _recite(self, guest: Guest) -> None:
        await self._tool(guest, "recite")

    async def _learn(self, guest: Guest) -> None:
        fate, value = await self._tool(guest, "learn")
        if fate is Fate.ACKNOWLEDGED:
            self._check(guest, "learn", [value])

    async def _whoami(self, guest: Guest) -> None:
        fate, value = await self._tool(guest, "whoami", session=False)
        if fate is Fate.ACKNOWLEDGED:
            self._check(guest, "whoami", [value])

    async def _stash(self, guest: Guest) -> None:
        fate, value = await self._tool(guest, "stash", session=False, text=f"{guest.mark}-{self.done}")
        if fate is Fate.ACKNOWLEDGED:
            self._check(guest, "stash", value)

    async def _book(self, guest: Guest) -> None:
        fate, value = await self._tool(guest, "book", session=False, text=f"{guest.mark}-{self.done}")
        if fate is Fate.ACKNOWLEDGED:
            self._check(guest, "book", value)

    async def _secret(self, guest: Guest) -> None:
        await self._read(guest, "resources/read", {"uri": "vault://secret"})

    async def _note(self, guest: Guest) -> None:
        await self._read(guest, "resources/read", {"uri": f"vault://notes/{self.done}"})

    async def _list(self, guest: Guest) -> None:
        answer = await self._read(guest, "tools/list", {}, marked=False)
        if answer is not None and b'"keep"' not in answer.body:
            self.faults.append(f"the tools of {guest.tenant}: {answer.body[:300]!r}")

    async def _brief(self, guest: Guest) -> None:
        await self._read(guest, "prompts/get", {"name": "brief"})

    async def _read(self, guest: Guest, method: str, params: dict[str, Any], *, marked: bool = True) -> Answer | None:
        session = guest.session if guest.era == HANDSHAKE else None
        answer = await self._ask(guest, "POST", *guest.post(method, params, session=session), method)
        if answer is None:
            return None
        message = answer.message
        if (error := message.get("error")) is not None and error.get("code") == -32000:
            self.numbers["refused"] += 1
            return None
        self.numbers["acknowledged"] += 1
        if "result" not in message or (marked and guest.mark.encode() not in answer.body):
            self.faults.append(f"{method} of {guest.tenant} ({guest.era}): {answer.status} {answer.body[:300]!r}")
        return answer

    # What strangers try

    async def _probe(self, victim: Guest) -> None:
        """Ask for a session of somebody else's, and for one that never was: both must be the same."""
        era = victim.era
        others = [each for each in self._random.sample(self._guests, 12) if each.era == era]
        stranger = next(
            (each for each in others if (each.tenant, each.principal) != (victim.tenant, victim.principal)), None
        )
        if stranger is None:
            return
        kind = "call" if era == MODERN else self._random.choice(("call", "get", "delete", "read"))
        unknown = secrets.token_urlsafe(len(victim.session) * 3 // 4)[: len(victim.session)]
        foreign, never = [
            await self._knock(stranger, knock_of(stranger, kind, session)) for session in (victim.session, unknown)
        ]
        self.numbers["probes"] += 1
        if foreign is None or never is None or 503 in (foreign.status, never.status):
            # Somebody died meanwhile.
            self.numbers["probes without an answer"] += 1
        elif seen(foreign, victim.session) != seen(never, unknown):
            self.faults.append(f"{kind} by {stranger.tenant} of a session of {victim.tenant}: {foreign} not {never}")
        elif (foreign.status == 404) != (era == HANDSHAKE):
            self.faults.append(f"{kind} by {stranger.tenant} of a session of {victim.tenant}: {foreign}")

    async def _knock(self, stranger: Guest, knock: Knock) -> Answer | None:
        return await self._ask(stranger, *knock, "probe")

    # Listening

    async def listen(self, guest: Guest) -> None:
        """Hear what the tenant's tools publish, for ever, at whatever node answers."""
        where = "standing" if guest.era == HANDSHAKE else "listen"
        while True:
            port = self._random.choice(list(self._idle))
            try:
                stream = await self._listen_at(guest, port)
            except (NotConnected, Broken, TimeoutError):
                await asyncio.sleep(AGAIN_AFTER)
                continue
            except Refusal as refusal:
                if refusal.status not in (429, 503):
                    self.faults.append(f"{guest.tenant} cannot listen: {refusal}")
                    return
                await asyncio.sleep(AGAIN_AFTER)
                continue
            self.numbers["listening connections"] += 1
            try:
                while (event := await stream.next()) is not None:
                    self.watch.own[where] += event.data.count(guest.mark.encode())
            except Broken:
                pass
            finally:
                stream.abort()

    async def _listen_at(self, guest: Guest, port: int) -> EventStream:
        if guest.era == HANDSHAKE:
            return await EventStream.open(port, "GET", guest.listening(), watch=self.watch, mark=guest.mark)
        wanted = {"toolsListChanged": True, "resourceSubscriptions": [NEWS + guest.mark]}
        post = guest.post("subscriptions/listen", {"notifications": wanted}, session=None, id="listen")
        return await EventStream.open(port, "POST", *post, watch=self.watch, mark=guest.mark)

    async def subscribe(self, guest: Guest) -> None:
        if guest.era == HANDSHAKE:
            post = guest.post("resources/subscribe", {"uri": NEWS + guest.mark}, session=guest.session)
            answer = await self._ask(guest, "POST", *post, "subscribe")
            assert answer is not None
            assert "result" in answer.message, answer

    # What happens, and what must be true in the end

    async def kill_owners(self, times: int, goal: int) -> None:
        """kill -9 one node after the other, evenly over the calls; each is started again."""
        for number in range(times):
            node = self._cluster.nodes[number % len(self._cluster.nodes)]
            await self._until(goal * (number + 1) // (times + 1))
            await node.akill()
            self.numbers["kills"] += 1
            await self._until(min(self.done + 40, goal))
            await node.astart()

    async def _until(self, done: int) -> None:
        while self.done < done:
            await asyncio.sleep(0.01)

    async def reckon(self) -> None:
        """Ask each session what it has kept, now that nothing happens any more."""
        waiting = list(self._guests)

        async def ask() -> None:
            while waiting:
                guest = waiting.pop()
                fate, value = Fate.REFUSED, None
                until = time.monotonic() + PATIENCE
                while fate is not Fate.ACKNOWLEDGED and time.monotonic() < until:
                    fate, value = await self._tool(guest, "recall")
                if fate is not Fate.ACKNOWLEDGED:
                    self.faults.append(f"a session of {guest.tenant} is lost")
                    continue
                self._check(guest, "recall", value["kept"])
                if not max(guest.kept, guest.latest) <= value["count"] <= guest.kept + guest.doubtful:
                    told = f"{guest.kept} acknowledged up to {guest.latest}, {guest.doubtful} in doubt"
                    self.faults.append(f"a session of {guest.tenant}: {told}, and {value['count']} in the end")

        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(ask())
