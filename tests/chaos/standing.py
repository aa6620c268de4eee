"""`Standing`: a client listens on its session's standalone stream while its tools tell it of numbered updates."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from chaos.cluster import ChaosNode
from chaos.http import Broken, NotConnected
from chaos.http import Connection as Plain
from chaos.load import HANDSHAKE, Client, Fate, Spray, read
from chaos.sse import EventStream, Refusal, ServerSentEvent
from chaos.troupe import Troupe

__all__ = ["Standing", "StandingScript", "listen"]

PATIENCE = 60.0
"""Seconds for one run."""
QUIET = 15.0
"""Seconds in which the client must have heard of the last number, or that it is to read again."""
AGAIN_AFTER = 0.02
CALLS = 40
NEEDED = 4
KEPT = "chaos://kept"
"""What the client is subscribed to."""
NUMBER = "chaos://number/"

_BLOWS = {
    "drop": 40,
    "kill-edge": 10,
    "kill-owner": 10,
    "kill-both": 4,
    "hang-edge": 5,
    "cut-edge": 5,
    "cut-owner": 4,
    "drain-owner": 10,
    "sleep": 10,
}


@dataclass(frozen=True, slots=True)
class StandingScript:
    """Drawn from a seed."""

    seed: int
    owner: int
    edge: int
    pause: float
    between: float
    counts: tuple[int, ...]
    """Numbers of each call."""
    blows: tuple[tuple[float, str, float, float, int], ...]
    """Seconds from the beginning, kind, seconds away, seconds that it lasts, node to come back at."""

    @classmethod
    def of(cls, seed: int) -> StandingScript:
        """The same for the same seed."""
        random = Random(f"standing {seed}")
        counts = tuple(random.randint(1, 30) for _ in range(CALLS))
        between = random.choice((0.0, 0.005, 0.02))
        last = 0.4 + between * CALLS * 2
        kinds, weights = list(_BLOWS), list(_BLOWS.values())
        blows = tuple(
            (
                at,
                random.choices(kinds, weights)[0],
                random.choice((0.0, 0.0, random.uniform(0, 0.3))),
                random.uniform(0.1, 1.0),
                random.randrange(5),
            )
            for at in sorted(random.uniform(0, last) for _ in range(random.randint(1, 6)))
        )
        pause = random.choice((0.0, 0.0, 0.001))
        return cls(seed, random.randrange(5), random.randrange(5), pause, between, counts, blows)

    def __str__(self) -> str:
        blows = "; ".join(
            f"{at:.2f} s: {kind}, away {away:.2f} s, lasts {lasts:.2f} s, then at {node}"
            for at, kind, away, lasts, node in self.blows
        )
        return (
            f"seed {self.seed}: session at {self.owner}, read at {self.edge}, "
            f"{self.pause} s between numbers, {self.between} s between calls; {blows}"
        )


@dataclass(slots=True)
class _Told:
    """One call, and the numbers that it sent."""

    first: int
    count: int
    began: float
    certain: bool = False
    """It was acknowledged, so all of them were sent."""


@dataclass(slots=True)
class _Heard:
    """What the client has got, in order, with the time of each."""

    numbers: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    lists: list[float] = field(default_factory=list[float])
    """When it was told that a list has changed."""
    kept: list[float] = field(default_factory=list[float])
    """When it was told that what it is subscribed to has changed."""

    def reread_after(self, at: float) -> bool:
        """It was told to read everything again at that time or later."""
        return any(when >= at for when in self.kept) and any(when >= at for when in self.lists)


class Standing:
    """Plays one script. `faults` is empty in the end if the client has missed nothing without being told."""

    def __init__(self, troupe: Troupe, script: StandingScript) -> None:
        self.script = script
        self.heard = _Heard()
        self.faults: list[str] = []
        self.log: list[str] = []
        self.missed = 0
        """Numbers that were sent and did not arrive, of which the client was told to read again."""
        self.resumed = 0
        self._troupe = troupe
        self._spray = Spray(troupe.cluster.ports)
        self._client = Client(HANDSHAKE)
        self._nodes: list[ChaosNode] = []
        self._told: list[_Told] = []
        self._began = time.monotonic()
        self._last_id: str | None = None
        self._seen: set[str] = set()
        self._stream: EventStream | None = None
        self._edge: ChaosNode
        self._owner: ChaosNode
        self._back_at = 0
        self._away = 0.0

    async def play(self) -> None:
        """Never raises, but for cancellation."""
        try:
            async with asyncio.timeout(PATIENCE):
                self._nodes = await self._troupe.at_least(NEEDED)
                self._began = time.monotonic()
                await self._open()
                async with asyncio.TaskGroup() as tasks:
                    reading = tasks.create_task(self._read())
                    striking = tasks.create_task(self._strike_all())
                    await self._tell_all()
                    await striking
                    await self._until_quiet()
                    reading.cancel()
                self._judge()
        except TimeoutError:
            self.faults.append(f"not over after {PATIENCE:g} s")
        except ExceptionGroup as errors:
            self.faults += [f"{type(error).__name__}: {error}" for error in errors.exceptions]
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error}")
        finally:
            if self._stream is not None:
                self._stream.abort()
            self._spray.close()

    def _node(self, index: int) -> ChaosNode:
        return self._nodes[index % len(self._nodes)]

    def _say(self, what: str) -> None:
        self.log.append(f"{time.monotonic() - self._began:.3f} {what}")

    # Telling

    async def _open(self) -> None:
        self._owner, self._edge = self._node(self.script.owner), self._node(self.script.edge)
        connection = Plain("127.0.0.1", self._owner.port)
        try:
            await self._client.open(connection)
            headers, _ = self._client.request("whoami", {})
            message = {"jsonrpc": "2.0", "id": "s", "method": "resources/subscribe", "params": {"uri": KEPT}}
            answer = await connection.request("POST", "/mcp", headers, json.dumps(message).encode())
            assert "result" in answer.message, answer
        finally:
            connection.close()
        self._stream = await self._listen_at(self._edge)
        assert self._stream is not None
        self._say(f"session at {self._owner.name}, read at {self._edge.name}")

    async def _tell_all(self) -> None:
        first = 1
        for count in self.script.counts:
            self._spray.choose_from([node.name for node in self._troupe.well] or list(self._troupe.cluster.ports))
            told = _Told(first, count, time.monotonic())
            self._told.append(told)
            call = await self._spray.call(self._client, "tell", first=first, count=count, pause=self.script.pause)
            if call.fate is Fate.ACKNOWLEDGED:
                told.certain = True
            elif call.fate in (Fate.UNANSWERED, Fate.WRONG):
                self.faults.append(f"tell: {call}")
            else:
                self._say(f"call from {first}: {call.fate.value} {call.said}")
            first += count
            await asyncio.sleep(self.script.between)

    async def _until_quiet(self) -> None:
        """The client knows of the last number, or is told to read again, or something is wrong."""
        certain = [told for told in self._told if told.certain]
        if not certain:
            return
        last = certain[-1]
        until = time.monotonic() + QUIET
        while time.monotonic() < until:
            numbers = self.heard.numbers
            if (numbers and numbers[-1][0] >= last.first + last.count - 1) or self.heard.reread_after(last.began):
                # What comes twice would come now.
                await asyncio.sleep(0.1)
                return
            await asyncio.sleep(0.02)

    # Listening

    async def _listen_at(self, node: ChaosNode) -> EventStream | None:
        headers = self._client.stream_headers()
        if self._last_id is not None:
            headers += f"last-event-id: {self._last_id}\r\n"
        try:
            stream = await EventStream.open(node.port, "GET", headers)
        except (NotConnected, Broken) as error:
            self._say(f"{node.name} does not answer: {error}")
        except TimeoutError:
            self._say(f"{node.name} said nothing in time")
        except Refusal as refusal:
            self._say(f"{node.name} refused {self._last_id}: {refusal}")
            if refusal.status not in (429, 503):
                raise
        else:
            if self._last_id is not None:
                self.resumed += 1
            self._say(f"listens at {node.name} after {self._last_id}")
            self._edge = node
            return stream
        return None

    async def _read(self) -> None:
        while True:
            try:
                event = await self._stream.next() if self._stream is not None else None
            except Broken as error:
                self._say(f"broken: {error}")
                event = None
            if event is not None:
                self._take(event)
                continue
            if self._stream is not None:
                self._stream.abort()
                self._stream = None
            await asyncio.sleep(self._away)
            self._away = 0.0
            well = self._troupe.well
            if well:
                self._stream = await self._listen_at(well[self._back_at % len(well)])
            if self._stream is None:
                self._back_at += 1
                await asyncio.sleep(AGAIN_AFTER)

    def _take(self, event: ServerSentEvent) -> None:
        if event.id is not None:
            self._last_id = event.id
        if event.kind != "message" or not event.data:
            return
        if event.id is None:
            self.faults.append(f"an event of a stream that can be resumed has no id: {event.data[:200]!r}")
        elif event.id in self._seen:
            self.faults.append(f"event {event.id} came twice: {event.data[:200]!r}")
        self._seen.add(event.id or "")
        message = json.loads(event.data)
        now = time.monotonic()
        match message.get("method"), message.get("params"):
            case "notifications/resources/updated", {"uri": str(uri)}:
                if uri == KEPT:
                    self.heard.kept.append(now)
                    self._say("told to read again what it is subscribed to")
                else:
                    self.heard.numbers.append((int(uri.removeprefix(NUMBER)), now))
            case "notifications/resources/list_changed", _:
                self.heard.lists.append(now)
            case (("notifications/tools/list_changed" | "notifications/prompts/list_changed"), _):
                pass
            case _:
                self.faults.append(f"nobody sent {message}")

    # What befalls it

    async def _strike_all(self) -> None:
        for at, kind, away, lasts, node in self.script.blows:
            await asyncio.sleep(max(0.0, self._began + at - time.monotonic()))
            if len(self._troupe.well) < 3 and kind not in ("drop", "sleep"):
                continue
            self._say(f"after number {self.heard.numbers[-1][0] if self.heard.numbers else 0}: {kind}")
            await self._strike(kind, away, lasts, node)

    async def _strike(self, kind: str, away: float, lasts: float, node: int) -> None:
        troupe = self._troupe
        self._back_at, self._away = node, away
        match kind:
            case "drop" | "sleep":
                self._away = lasts if kind == "sleep" else away
                self._hang_up()
            case "kill-edge":
                await troupe.kill(self._edge)
            case "kill-owner":
                await troupe.kill(await self._present_owner())
            case "kill-both":
                await asyncio.gather(troupe.kill(self._edge), troupe.kill(await self._present_owner()))
            case "hang-edge":
                await troupe.hang(self._edge, lasts)
                self._hang_up()
            case "cut-edge":
                await troupe.cut(self._edge, lasts, silently=bool(node % 2))
            case "cut-owner":
                await troupe.cut(await self._present_owner(), lasts, silently=bool(node % 2))
            case "drain-owner":
                await troupe.drain(await self._present_owner())
            case _:
                raise AssertionError(kind)

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.abort()

    async def _present_owner(self) -> ChaosNode:
        connection = Plain("127.0.0.1", self._troupe.well[0].port)
        try:
            answer = await connection.request("POST", "/mcp", *self._client.request("whoami", {}))
        except (NotConnected, Broken):
            return self._owner
        finally:
            connection.close()
        fate, value, _ = read(answer)
        if fate is Fate.ACKNOWLEDGED:
            self._owner = self._troupe.cluster.node(value["node"])
        return self._owner

    # What must hold

    def _judge(self) -> None:
        heard = [number for number, _ in self.heard.numbers]
        got = set(heard)
        if len(got) != len(heard):
            self.faults.append(f"came twice: {sorted(number for number, times in Counter(heard).items() if times > 1)}")
        # A tool whose node was taken for dead may go on for a while, beside those of the next owner.
        late = {
            number
            for told in self._told
            if not told.certain and self.heard.reread_after(told.began)
            for number in range(told.first, told.first + told.count)
        }
        for one, next_one in pairwise(number for number in heard if number not in late):
            if next_one < one:
                self.faults.append(f"number {next_one} came after {one}")
        for told in self._told:
            missing = [number for number in range(told.first, told.first + told.count) if number not in got]
            if not missing:
                continue
            reread = self.heard.reread_after(told.began)
            if told.certain and not reread:
                self.faults.append(f"numbers {missing} were sent, did not arrive, and nobody told the client")
            elif told.certain:
                self.missed += len(missing)
            elif not reread and missing != list(range(missing[0], told.first + told.count)):
                self.faults.append(f"of a call that broke off, {missing} did not arrive, and later ones did")


async def listen(troupe: Troupe, script: StandingScript) -> Standing:
    """One run."""
    standing = Standing(troupe, script)
    await standing.play()
    return standing
