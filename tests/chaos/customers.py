"""`Customer`: the clients of one tenant, and what each of their requests came to."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Any

from chaos.guests import Guest
from chaos.http import Answer, Broken, Connection, NotConnected
from chaos.load import HANDSHAKE, MODERN
from chaos.sse import EventStream, Refusal
from understudy.runtime import ApiKey, TenantContext, new_api_key
from understudy.runtime.credentials.api_key_lines import key_line

__all__ = ["Came", "Customer", "Outcome", "make_customers", "most_at_once", "most_in"]

INITIALIZE = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": {"name": "chaos", "version": "1"}}


class Came(Enum):
    DONE = "done"
    LIMITED = "limited"
    """Refused by a limit."""
    UNCHECKED = "unchecked"
    """Refused because nobody could say."""
    BROKEN = "broken"
    """The connection broke, or nobody was there."""
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one request. Times are seconds of the monotonic clock."""

    came: Came
    began: float
    ended: float
    value: Any = None
    said: str = ""


@dataclass(slots=True)
class Customer:
    """One tenant with one key, calling whichever node it is told to."""

    tenant: str
    plan: str
    key: str
    ports: Mapping[str, int] = field(default_factory=dict[str, int])
    """Of the nodes, by their names."""
    _idle: dict[str, list[Connection]] = field(default_factory=dict[str, list[Connection]])
    _streams: list[EventStream] = field(default_factory=list[EventStream])
    _ids: count[int] = field(default_factory=lambda: count(1))

    def _guest(self, era: str) -> Guest:
        return Guest(self.tenant, "ada", era, (self.key,))

    async def call(
        self, node: str, tool: str, arguments: Mapping[str, Any] | None = None, *, session: str | None = None
    ) -> Outcome:
        """Call a tool: of the handshake era in `session`, of the modern era without one."""
        guest = self._guest(HANDSHAKE if session else MODERN)
        return await self._ask(node, guest.tool(tool, arguments or {}, session=session, id=next(self._ids)))

    async def open(self, node: str) -> Outcome:
        """Open a session by handshake; its id is the value."""
        return await self._ask(node, self._guest(HANDSHAKE).post("initialize", INITIALIZE, session=None))

    async def end(self, node: str, session: str) -> None:
        """End a session."""
        connection = self._borrow(node)
        answer = await connection.request("DELETE", "/mcp", self._guest(HANDSHAKE).lines(session))
        assert answer.status in (200, 204), answer
        self._idle[node].append(connection)

    async def listen(self, node: str, session: str) -> Outcome:
        """Open the standing stream of a session, and keep it."""
        guest = self._guest(HANDSHAKE)
        guest.session = session
        began = time.monotonic()
        try:
            stream = await EventStream.open(self.ports[node], "GET", guest.listening())
        except Refusal as refusal:
            came = {429: Came.LIMITED, 503: Came.UNCHECKED}.get(refusal.status, Came.OTHER)
            return Outcome(came, began, time.monotonic(), None, str(refusal))
        except (NotConnected, Broken) as error:
            return Outcome(Came.BROKEN, began, time.monotonic(), None, repr(error))
        self._streams.append(stream)
        return Outcome(Came.DONE, began, time.monotonic())

    def hang_up(self) -> None:
        """Leave all streams."""
        while self._streams:
            self._streams.pop().abort()

    def close(self) -> None:
        self.hang_up()
        for connections in self._idle.values():
            for connection in connections:
                connection.close()

    def _borrow(self, node: str) -> Connection:
        idle = self._idle.setdefault(node, [])
        return idle.pop() if idle else Connection("127.0.0.1", self.ports[node])

    async def _ask(self, node: str, request: tuple[str, bytes]) -> Outcome:
        connection = self._borrow(node)
        began = time.monotonic()
        try:
            answer = await connection.request("POST", "/mcp", *request)
            came, value, said = _read(answer)
        except (NotConnected, Broken) as error:
            return Outcome(Came.BROKEN, began, time.monotonic(), None, repr(error))
        except BaseException:
            connection.close()
            raise
        self._idle[node].append(connection)
        return Outcome(came, began, time.monotonic(), value, said)


def make_customers(plans: Mapping[str, str], keys: Path) -> dict[str, Customer]:
    """A customer for each tenant, by its name; `plans` says on which plan. Their keys are in the file `keys` then."""
    customers = {tenant: Customer(tenant, plan, new_api_key()) for tenant, plan in plans.items()}
    lines = [
        key_line(ApiKey.of(each.key, TenantContext(each.tenant, "ada", plan=each.plan))) for each in customers.values()
    ]
    keys.write_text("\n".join(lines) + "\n")
    return customers


def _read(answer: Answer) -> tuple[Came, Any, str]:
    said = answer.body.decode(errors="replace")[:300]
    message: dict[str, Any] = {}
    with suppress(ValueError):
        message = answer.message
    result = message.get("result")
    if answer.status == 200 and result is not None and not result.get("isError"):
        if "mcp-session-id" in answer.headers:
            return Came.DONE, answer.headers["mcp-session-id"], ""
        structured = result.get("structuredContent") or {}
        return Came.DONE, structured.get("result", structured), ""
    if "cannot be checked" in said:
        return Came.UNCHECKED, None, said
    words = result["content"][0]["text"] if result is not None else json.dumps(message.get("error"))
    if words.startswith("Rate limit exceeded") or "Limit reached" in words:
        return Came.LIMITED, None, words
    return Came.OTHER, None, said


def most_in(seconds: float, outcomes: Sequence[Outcome]) -> int:
    """How many were done, from beginning to end, within any such time: so many at least have run within it."""
    done = sorted((each for each in outcomes if each.came is Came.DONE), key=lambda each: each.ended)
    most = 0
    for each in done:
        most = max(most, sum(1 for it in done if it.began >= each.began and it.ended <= each.began + seconds))
    return most


def most_at_once(outcomes: Sequence[Outcome]) -> int:
    """How many of those that were held ran at once, by what their tool says of its times."""
    edges: list[tuple[float, int]] = []
    for each in outcomes:
        if each.came is Came.DONE:
            edges += [(each.value["began"], 1), (each.value["ended"], -1)]
    running = most = 0
    for _, step in sorted(edges):
        running += step
        most = max(most, running)
    return most
