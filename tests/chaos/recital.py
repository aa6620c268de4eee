"""`Recital`: one tool sends numbers, one client reads them, and a script says what befalls both."""

from __future__ import annotations

import asyncio
import json
import time
from random import Random

from chaos.books import Books, Connection
from chaos.cluster import ChaosNode
from chaos.http import Broken, NotConnected
from chaos.http import Connection as Plain
from chaos.load import HANDSHAKE, Client, Fate, Spray
from chaos.script import TOTAL, Blow, Script
from chaos.sse import EventStream, Refusal, ServerSentEvent
from chaos.troupe import Troupe
from understudy.actors.session.wire import SERVER_BUSY

__all__ = ["Recital", "play"]

PATIENCE = 60.0
"""Seconds for one run."""
AGAIN_AFTER = 0.02
"""Seconds until a client asks again that was told to come back later."""
NEEDED = 4
"""Nodes that are well when a run begins; two may be struck at once."""


class Silence(Exception):
    """The client was told nothing for too long."""


class Recital:
    """Plays one script. `faults` is empty in the end if everything that is promised was kept."""

    def __init__(self, troupe: Troupe, script: Script) -> None:
        self.script = script
        self.books = Books()
        self.faults: list[str] = []
        self.died = False
        """The node on which the tool ran may have died."""
        self.refused = False
        """The client was told that what it has cannot be gone on with, because the log was out of reach."""
        self.log: list[str] = []
        """What happened, in order."""
        self._troupe = troupe
        self._spray = Spray(troupe.cluster.ports)
        self._client = Client(HANDSHAKE)
        self._nodes: list[ChaosNode] = []
        self._blows = list(script.blows)
        self._began = time.monotonic()
        self._stream: EventStream
        self._connection: Connection
        self._edge: ChaosNode
        self._owner: ChaosNode

    @property
    def outcome(self) -> str:
        """In a word."""
        message = self.books.outcome
        if self.refused:
            return "refused"
        return "none" if message is None else "result" if "result" in message else "error"

    async def play(self) -> None:
        """Never raises, but for cancellation."""
        try:
            async with asyncio.timeout(PATIENCE):
                self._nodes = await self._troupe.at_least(NEEDED)
                self._began = time.monotonic()
                await self._begin()
                await self._read_to_the_end()
                if not self.refused:
                    self._judge()
                if not self._log_was_away:
                    await self._come_back_for_all()
                await self._go_on()
        except TimeoutError:
            self.faults.append(f"not over after {PATIENCE:g} s, with number {self.books.said} and {self.outcome}")
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error}")
        finally:
            if hasattr(self, "_stream"):
                self._stream.abort()
            self._spray.close()
        self.faults += self.books.faults

    @property
    def _log_was_away(self) -> bool:
        """The node that wrote the stream could not reach the log for a while. It went on without."""
        return self.script.store == "nats" and self._troupe.was_cut_since(self._owner.name, self._began)

    def _node(self, index: int) -> ChaosNode:
        return self._nodes[index % len(self._nodes)]

    def _say(self, what: str) -> None:
        self.log.append(f"{time.monotonic() - self._began:.3f} {what}")

    # The call

    async def _begin(self) -> None:
        script = self.script
        self._owner, self._edge = self._node(script.owner), self._node(script.edge)
        connection = Plain("127.0.0.1", self._owner.port)
        try:
            await self._client.open(connection)
        finally:
            connection.close()
        arguments = {
            "total": TOTAL,
            "burst": script.burst,
            "pause": script.pause,
            "large_every": script.large_every,
            "large": script.large,
        }
        headers, body = self._client.request(script.tool, arguments)
        message = json.loads(body)
        message["params"]["_meta"] = {"progressToken": "numbers"}
        self._stream = await EventStream.open(self._edge.port, "POST", headers, json.dumps(message).encode())
        self._connection = self.books.connection(node=self._edge.name)
        self._say(f"called at {self._owner.name}, read at {self._edge.name}")

    async def _read_to_the_end(self) -> None:
        while self.books.outcome is None and not self.refused:
            event = await self._next(self._stream)
            if event is None:
                await self._resume()
                continue
            self._take(self._connection, event)
            while self._blows and not self.refused and self.books.stream and self.books.said >= self._blows[0].at:
                await self._strike(self._blows.pop(0))
        # Nothing may follow.
        while not self.refused and (event := await self._next(self._stream)) is not None:
            self._connection.take(event)

    def _take(self, connection: Connection, event: ServerSentEvent) -> None:
        books = self.books
        if self.script.tool == "recite_again" and event.id is not None and books.stream and not books.latest:
            stream = event.id.rpartition("-")[0]
            if stream != books.stream:
                # It may run twice, and nobody had seen anything of the first time.
                self._say(f"runs again, as stream {stream}")
                books.stream = stream
                books.ids.clear()
        connection.take(event)

    async def _next(self, stream: EventStream) -> ServerSentEvent | None:
        """The next event; None when the client has to come back for it."""
        try:
            return await stream.next()
        except Broken as error:
            self._say(f"broken: {error}")
            return None

    async def _open(self, node: ChaosNode, last_id: str) -> EventStream | None:
        """Come back at `node`; None if it is not there, or cannot just now."""
        headers = self._client.stream_headers() + f"last-event-id: {last_id}\r\n"
        try:
            return await EventStream.open(node.port, "GET", headers)
        except (NotConnected, Broken) as error:
            self._say(f"{node.name} does not answer: {type(error).__name__} {error}")
        except TimeoutError:
            self._say(f"{node.name} said nothing in time")
        except Refusal as refusal:
            self._say(f"{node.name} refused {last_id}: {refusal}")
            if refusal.status == 400 and self._log_was_away:
                self.refused = True
            elif refusal.status not in (429, 503):
                raise
        return None

    async def _resume(self, at: int = 0, *, away: float = 0.0) -> None:
        """Come back at a node that is well: `at`, or another if that is not there."""
        self._stream.abort()
        await asyncio.sleep(away)
        while not self.refused:
            well = self._troupe.well
            if well:
                node = well[at % len(well)]
                last_id, after = self.books.last_id, self.books.latest
                stream = await self._open(node, last_id)
                if stream is not None:
                    self._say(f"resumed at {node.name} after {last_id}")
                    self._follow(stream, node, self.books.connection(after, node=node.name))
                    return
            at += 1
            await asyncio.sleep(AGAIN_AFTER)

    def _follow(self, stream: EventStream, node: ChaosNode, connection: Connection) -> None:
        self._stream, self._edge, self._connection = stream, node, connection

    # What befalls it

    async def _strike(self, blow: Blow) -> None:
        troupe = self._troupe
        self._say(f"number {self.books.said}: {blow}")
        if len(troupe.well) < 3 and blow.kind not in ("drop", "stall", "twice"):
            self._say("spared: too few nodes are well")
            return
        match blow.kind:
            case "drop":
                await self._resume(blow.nodes[0], away=blow.away)
            case "stall":
                await asyncio.sleep(blow.away)
            case "twice":
                await self._resume_twice(blow)
            case "kill-edge":
                await troupe.kill(self._edge)
                await self._resume(blow.nodes[0], away=blow.away)
            case "kill-owner":
                await troupe.kill(self._owner)
            case "kill-both":
                await asyncio.gather(troupe.kill(self._edge), troupe.kill(self._owner))
                await self._resume(blow.nodes[0], away=blow.away)
            case "hang-edge":
                await troupe.hang(self._edge, blow.lasts)
                await self._resume(blow.nodes[0], away=blow.away)
            case "hang-owner":
                hung = self._edge is self._owner
                await troupe.hang(self._owner, blow.lasts)
                if hung:
                    await self._resume(blow.nodes[0], away=blow.away)
            case "cut-edge" | "cut-owner":
                node = self._edge if blow.kind == "cut-edge" else self._owner
                await troupe.cut(node, blow.lasts, silently=blow.silently)
                self.books.log_may_lack = self._log_was_away
                if blow.away:
                    await self._resume(blow.nodes[0], away=blow.away)
            case "drain-owner" | "drain-edge":
                await troupe.drain(self._owner if blow.kind == "drain-owner" else self._edge)
                if not blow.silently:
                    await self._resume(blow.nodes[0], away=blow.away)
            case _:
                raise AssertionError(blow.kind)

    async def _resume_twice(self, blow: Blow) -> None:
        """Come back at two nodes at once; go on with the one that lasts."""
        self._stream.abort()
        await asyncio.sleep(blow.away)
        well = self._troupe.well
        nodes = [well[index % len(well)] for index in blow.nodes]
        last_id, after = self.books.last_id, self.books.latest
        opened = await asyncio.gather(*(self._open(node, last_id) for node in nodes))
        ways = [
            (stream, node, self.books.connection(after, again=True, node=f"{node.name}, one of two"))
            for stream, node in zip(opened, nodes, strict=True)
            if stream is not None
        ]
        self._say(f"came back twice, at {' and '.join(node.name for _, node, _ in ways)}, after {last_id}")
        if not ways:
            await self._resume(blow.nodes[0])
            return
        if len(ways) == 2 and not await self._one_gives_way(ways[0], ways[1]):
            # It is over.
            ways.pop()[0].abort()
        while len(ways) > 1:
            ways.pop(0 if ways[0][0].over else 1)[0].abort()
        self._follow(*ways[0])

    async def _one_gives_way(self, *ways: tuple[EventStream, ChaosNode, Connection]) -> bool:
        """Read both until one of them ends without the outcome; False if there is the outcome before that."""

        async def read(stream: EventStream, connection: Connection) -> bool:
            while not connection.ended:
                event = await self._next(stream)
                if event is None:
                    stream.over = True
                    return True
                self._take(connection, event)
            return False

        async with asyncio.TaskGroup() as tasks:
            readers = [tasks.create_task(read(stream, connection)) for stream, _, connection in ways]
            done, _ = await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
            for reader in readers:
                reader.cancel()
        return any(reader.result() for reader in done)

    # What must hold

    def _judge(self) -> None:
        self.died = self._troupe.died_since(self._owner.name, self._began)
        message = self.books.outcome
        assert message is not None
        error = message.get("error")
        if error is None:
            value = message["result"].get("structuredContent", {}).get("result")
            if value != TOTAL or message["result"].get("isError"):
                self.faults.append(f"the result is {message}")
            if self.books.said != TOTAL:
                self.faults.append(f"there is a result, and {self.books.said} is the last number")
        elif self._log_was_away and error.get("code") == SERVER_BUSY and self.books.said == TOTAL:
            self._say("its store was away when it was done, so that nothing was changed")
        elif (error.get("data") or {}).get("outcome") != "unknown":
            self.faults.append(f"an error that does not say that the outcome is unknown: {error}")
        elif not self.died:
            self.faults.append(f"the outcome is unknown, though its node was always there: {error}")
        self._say(f"{self.outcome} after number {self.books.said}")

    async def _come_back_for_all(self) -> None:
        """Each id that the client got leads to the same events, at any node."""
        random = Random(self.script.seed)
        ids = list(dict.fromkeys(self.books.ids))
        for id in {ids[0], ids[-1], random.choice(ids)}:
            stream = None
            while stream is None:
                node = random.choice(self._troupe.well)
                stream = await self._open(node, id)
            connection = self.books.connection(int(id.rpartition("-")[2]), again=True, node=f"{node.name}, afterwards")
            latest = self.books.latest
            try:
                while (event := await self._next(stream)) is not None:
                    connection.take(event)
            finally:
                stream.abort()
            if connection.after != latest:
                self.faults.append(f"{id} leads to event {connection.after} at {node.name}, and {latest} is the last")
            if self.books.latest != latest:
                self.faults.append(f"{id} leads to {self.books.latest} at {node.name}, and it had ended at {latest}")

    async def _go_on(self) -> None:
        """The session lives, and knows of the call if that is done."""
        well = [node.name for node in self._troupe.well]
        self._spray.choose_from(well)
        await self._spray.until_told(self._client, "mark", name="on")
        call = await self._spray.call(self._client, "increment", node=well[-1])
        if call.fate is not Fate.ACKNOWLEDGED or call.value != 1:
            self.faults.append(f"the session does not go on: {call}")


async def play(troupe: Troupe, script: Script) -> Recital:
    """One run."""
    recital = Recital(troupe, script)
    await recital.play()
    return recital
