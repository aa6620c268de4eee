"""The load: sessions of both eras, calls sprayed over the nodes, and books of what each was told."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Any, Self

from chaos.http import Answer, Broken, Connection, NotConnected
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY

__all__ = ["HANDSHAKE", "MODERN", "Call", "Client", "Fate", "Spray", "Told", "open_sessions", "percentile"]

HANDSHAKE = "2025-11-25"
MODERN = "2026-07-28"
PATIENCE = 45.0
"""Seconds after which a call counts as one without an answer."""
_CLIENT = {"name": "chaos", "version": "1"}
_ACCEPT = "accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n"


class Fate(Enum):
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    """A definite refusal: nothing was changed."""
    UNKNOWN = "unknown"
    """The answer says so."""
    BROKEN = "broken"
    """The connection to the node broke."""
    UNANSWERED = "unanswered"
    """No answer in time. Never allowed."""
    WRONG = "wrong"
    """An answer that nobody should get here. Never allowed."""


class Told(Exception):
    """An answer other than a result."""


class Declined(Told):
    """A definite refusal, which may be tried again: nothing was changed."""


@dataclass(slots=True)
class Call:
    """One call and what came of it. Times are seconds of the monotonic clock."""

    tool: str
    node: str
    began: float
    ended: float
    fate: Fate
    value: Any = None
    said: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(slots=True)
class Client:
    """One session, and the books of its increments."""

    era: str
    session: str = ""
    calls: list[Call] = field(default_factory=list)
    _ids: count[int] = field(default_factory=lambda: count(1))

    def request(self, tool: str, arguments: Mapping[str, Any]) -> tuple[str, bytes]:
        """Header lines and body of a tool call."""
        given = dict(arguments)
        params: dict[str, Any] = {"name": tool, "arguments": given}
        if self.era == HANDSHAKE:
            headers = f"{_ACCEPT}mcp-protocol-version: {HANDSHAKE}\r\nmcp-session-id: {self.session}\r\n"
        else:
            headers = f"{_ACCEPT}mcp-protocol-version: {MODERN}\r\nmcp-method: tools/call\r\nmcp-name: {tool}\r\n"
            if self.session:
                given["session"] = self.session
                headers += f"mcp-param-session: {self.session}\r\n"
            params["_meta"] = {
                PROTOCOL_VERSION_META_KEY: MODERN,
                CLIENT_INFO_META_KEY: _CLIENT,
                CLIENT_CAPABILITIES_META_KEY: {},
            }
        message = {"jsonrpc": "2.0", "id": next(self._ids), "method": "tools/call", "params": params}
        return headers, json.dumps(message).encode()

    async def open(self, connection: Connection) -> None:
        """Open the session.

        Raises:
            NotConnected, Broken: No answer.
            Declined, Told: It was refused.
        """
        if self.era == MODERN:
            fate, value, said = read(await connection.request("POST", "/mcp", *self.request("open_session", {})))
            if fate is not Fate.ACKNOWLEDGED:
                raise (Declined if fate is Fate.REFUSED else Told)(f"{fate.value}: {said}")
            self.session = value["session"]
            return
        params = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": _CLIENT}
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        answer = await connection.request("POST", "/mcp", _ACCEPT, json.dumps(message).encode())
        if answer.status != 200:
            raise (Declined if answer.status == 503 else Told)(f"{answer.status} {answer.body[:200]!r}")
        self.session = answer.headers["mcp-session-id"]

    def stream_headers(self) -> str:
        """Of the GET that listens to what the server sends by itself."""
        return f"accept: text/event-stream\r\nmcp-protocol-version: {HANDSHAKE}\r\nmcp-session-id: {self.session}\r\n"

    # The books

    @property
    def increments(self) -> list[Call]:
        return [call for call in self.calls if call.tool.endswith("increment")]

    def acknowledged(self) -> list[int]:
        return [call.value for call in self.increments if call.fate is Fate.ACKNOWLEDGED]

    def faults(self, final: int) -> list[str]:
        """What is wrong, given the count in the end; empty if all that was acknowledged is there, exactly once."""
        told = self.acknowledged()
        doubtful = sum(call.fate in (Fate.UNKNOWN, Fate.BROKEN) for call in self.increments)
        found = [f"{call.fate.value}: {call.tool} by {call.node} after {call.seconds:.1f} s: {call.said}"
                 for call in self.calls if call.fate in (Fate.UNANSWERED, Fate.WRONG)]  # fmt: skip
        if len(set(told)) != len(told):
            twice = [value for value, times in Counter(told).items() if times > 1]
            found.append(f"acknowledged twice: {twice[:5]}")
        if not len(told) <= final <= len(told) + doubtful:
            found.append(f"{len(told)} acknowledged, {doubtful} in doubt, and the count is {final}")
        if told and max(told) > final:
            found.append(f"{max(told)} was acknowledged and the count is {final}")
        latest = 0
        ends = sorted((c for c in self.increments if c.fate is Fate.ACKNOWLEDGED), key=lambda c: c.ended)
        seen = iter(ends)
        next_end = next(seen, None)
        for call in sorted(ends, key=lambda c: c.began):
            while next_end is not None and next_end.ended < call.began:
                latest = max(latest, next_end.value)
                next_end = next(seen, None)
            if call.value <= latest:
                found.append(f"{call.value} came after {latest} had been acknowledged")
        return [f"{self.era} session {self.session[:8]}: {fault}" for fault in found]

    def stale_reads(self, older_than: float = 0.0) -> int:
        """Reads that told less than what had been acknowledged so many seconds before they were asked."""
        ends = [(call.ended, call.value) for call in self.increments if call.fate is Fate.ACKNOWLEDGED]
        reads = [call for call in self.calls if call.tool == "count" and call.fate is Fate.ACKNOWLEDGED]
        return sum(
            any(ended < read.began - older_than and value > read.value for ended, value in ends) for read in reads
        )


def read(answer: Answer) -> tuple[Fate, Any, str]:
    """What an answer to a tool call means: its fate, its value, and its words."""
    try:
        message = answer.message
    except ValueError:
        return Fate.WRONG, None, f"{answer.status} and no JSON: {answer.body[:200]!r}"
    error = message.get("error")
    if error is not None:
        said = f"{answer.status} {error}"
        if (error.get("data") or {}).get("outcome") == "unknown":
            return Fate.UNKNOWN, None, said
        return (Fate.REFUSED if error.get("code") == -32000 else Fate.WRONG), None, said
    result = message.get("result")
    if answer.status != 200 or result is None or result.get("isError"):
        return Fate.WRONG, None, f"{answer.status} {message}"
    structured = result["structuredContent"]
    return Fate.ACKNOWLEDGED, structured.get("result", structured), ""


class Spray:
    """Sends calls to the nodes in turn, whoever owns the session. Each worker has a connection to each node."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self.ports = dict(ports)
        self._choose: Callable[[], Sequence[str]] = lambda: tuple(self.ports)
        self._turn = count()
        self._idle: dict[str, list[Connection]] = {name: [] for name in ports}

    def choose_from(self, choose: Callable[[], Sequence[str]] | Sequence[str]) -> None:
        """From here on, only these nodes are asked, or those that `choose` names at the time."""
        self._choose = choose if callable(choose) else lambda: choose

    def pick(self, besides: Sequence[str] = ()) -> str:
        """The next node."""
        names = [name for name in self._choose() if name not in besides] or list(self._choose()) or list(self.ports)
        return names[next(self._turn) % len(names)]

    def borrow(self, node: str) -> Connection:
        idle = self._idle[node]
        return idle.pop() if idle else Connection("127.0.0.1", self.ports[node])

    def give_back(self, node: str, connection: Connection) -> None:
        self._idle[node].append(connection)

    def close(self) -> None:
        """Close the connections that are not in use."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def call(
        self, client: Client, tool: str, /, *, node: str | None = None, rather: str | None = None, **arguments: Any
    ) -> Call:
        """One call, whatever comes of it, by `node` and no other, or by `rather` if that may be asked.

        A node that takes no connection is passed by: nothing was sent to it.
        """
        began = time.monotonic()
        refused: list[str] = []
        fate, value, said, at = Fate.UNANSWERED, None, "", node or ""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    at = node or (rather if rather in self._choose() and rather not in refused else self.pick(refused))
                    connection = self.borrow(at)
                    try:
                        answer = await connection.request("POST", "/mcp", *client.request(tool, arguments))
                        fate, value, said = read(answer)
                    except NotConnected:
                        refused = [*refused, at] if len(refused) + 1 < len(self.ports) else []
                        await asyncio.sleep(0.01)
                        continue
                    except Broken as error:
                        fate, said = Fate.BROKEN, str(error)
                    finally:
                        self.give_back(at, connection)
                    break
        except TimeoutError:
            pass
        call = Call(tool, at, began, time.monotonic(), fate, value, said)
        client.calls.append(call)
        return call

    async def until_told(self, client: Client, tool: str, /, **arguments: Any) -> Any:
        """The value of a call that may be repeated.

        Raises:
            Told: It still gets none after `PATIENCE` seconds.
        """
        until = time.monotonic() + PATIENCE
        while True:
            call = await self.call(client, tool, **arguments)
            if call.fate is Fate.ACKNOWLEDGED:
                return call.value
            if call.fate is Fate.WRONG or time.monotonic() > until:
                raise Told(call.said or call.fate.value)
            await asyncio.sleep(0.05)


async def open_sessions(
    spray: Spray, number: int, *, at: str | None = None, at_once: int = 16, eras: Sequence[str] = (HANDSHAKE, MODERN)
) -> list[Client]:
    """So many sessions, of the eras in turn, at the nodes in turn or all at one.

    A refusal is tried again: the last fault may have been a moment ago.
    """
    made = [Client(eras[index % len(eras)]) for index in range(number)]
    waiting = list(made)

    async def worker() -> None:
        while waiting:
            client = waiting.pop()
            node = at or spray.pick()
            connection = spray.borrow(node)
            try:
                async with asyncio.timeout(PATIENCE):
                    while True:
                        try:
                            await client.open(connection)
                        except Declined:
                            await asyncio.sleep(0.05)
                        else:
                            break
            finally:
                spray.give_back(node, connection)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(at_once, number)):
            tasks.create_task(worker())
    return made


def percentile(values: Sequence[float], share: float) -> float:
    """0.5 is the median."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
