"""Clients that count over HTTP without a pause, and keep the books of what they were told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import httpx
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from support.patience import PATIENCE

HANDSHAKE = "2025-11-25"
MODERN = "2026-07-28"
_ACCEPT = {"accept": "application/json, text/event-stream"}
_CLIENT = {"name": "load", "version": "1"}
_PAUSE = 0.02
"""Seconds between two tries to reach a server that is away."""


class Told(Exception):
    """The answer is an error; the message is what it says."""


class Client:
    """One session of one era. `acknowledged` counts the answers, `unanswered` the calls whose outcome is not known."""

    def __init__(self, http: httpx.AsyncClient, era: str) -> None:
        self.era = era
        self.session = ""
        self.acknowledged: list[int] = []
        self.unanswered = 0
        self.refused: list[str] = []
        self._http = http
        self._ids = count(1)
        self.lost: list[str] = []
        """Calls that got no answer, after the server had taken them."""

    async def open(self) -> None:
        if self.era == MODERN:
            self.session = (await self.call("open_session"))["session"]
            return
        params = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": _CLIENT}
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        response = await self._http.post("", json=message, headers=_ACCEPT)
        assert response.status_code == 200, response.text
        self.session = response.headers["mcp-session-id"]

    @property
    def headers(self) -> dict[str, str]:
        if self.era == MODERN:
            return {**_ACCEPT, "mcp-protocol-version": MODERN}
        return {**_ACCEPT, "mcp-protocol-version": HANDSHAKE, "mcp-session-id": self.session}

    async def call(self, tool: str, /, **arguments: Any) -> Any:
        """Call a tool; its value.

        Raises:
            Told: The answer is an error.
            httpx.TransportError: There is no answer.
        """
        if self.era == MODERN and self.session:
            arguments["session"] = self.session
        result = await self.request("tools/call", name=tool, arguments=arguments)
        if result.get("isError"):
            raise Told(result["content"][0]["text"])
        structured = result["structuredContent"]
        return structured.get("result", structured)

    async def request(self, method: str, **params: Any) -> dict[str, Any]:
        headers = self.headers
        if self.era == MODERN:
            headers |= {"mcp-method": method} | ({"mcp-name": params["name"]} if "name" in params else {})
            if handle := params.get("arguments", {}).get("session"):
                headers["mcp-param-session"] = handle
            params["_meta"] = {
                PROTOCOL_VERSION_META_KEY: MODERN,
                CLIENT_INFO_META_KEY: _CLIENT,
                CLIENT_CAPABILITIES_META_KEY: {},
            }
        message = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        response = await self._http.post("", json=message, headers=headers)
        answer = _last_message(response)
        if "error" in answer:
            raise Told(f"{response.status_code} {answer['error']}")
        return answer["result"]

    async def increment(self) -> bool:
        """One increment, whatever becomes of it; whether the server was there."""
        try:
            self.acknowledged.append(await self.call("increment"))
        except httpx.ConnectError:
            return False
        except httpx.TransportError as error:
            self.unanswered += 1
            self.lost.append(repr(error))
            return False
        except Told as error:
            self.refused.append(str(error))
            if "unknown" in str(error):
                self.unanswered += 1
        return True

    async def go_on(self, stop: asyncio.Event) -> None:
        """Increment until `stop`; what is not answered is not repeated."""
        while not stop.is_set():
            if not await self.increment():
                await asyncio.sleep(_PAUSE)

    def check(self, final: int) -> None:
        """Every acknowledged increment is there, once; of the others at most those whose outcome is not known."""
        told = len(self.acknowledged)
        assert told <= final <= told + self.unanswered, (told, final, self.unanswered, self.refused)
        assert self.acknowledged == sorted(set(self.acknowledged)), "an acknowledged count came twice, or went back"
        assert not self.acknowledged or self.acknowledged[-1] <= final


def _last_message(response: httpx.Response) -> dict[str, Any]:
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ") and len(line) > 7]
        if not events:
            raise httpx.ReadError("the stream ended without an answer")
        return json.loads(events[-1])
    return response.json()


@asynccontextmanager
async def clients(url: str, *, handshake: int, modern: int) -> AsyncIterator[list[Client]]:
    """So many open sessions, each with a connection of its own."""
    async with AsyncExitStack() as stack:
        eras = [HANDSHAKE] * handshake + [MODERN] * modern
        made = [Client(await stack.enter_async_context(httpx.AsyncClient(base_url=url)), era) for era in eras]
        for client in made:
            await client.open()
        yield made


async def more(sessions: list[Client], number: int) -> None:
    """Return when each session has had `number` more increments acknowledged."""
    goals = [len(session.acknowledged) + number for session in sessions]
    async with asyncio.timeout(PATIENCE):
        for session, goal in zip(sessions, goals, strict=True):
            while len(session.acknowledged) < goal:
                await asyncio.sleep(0.01)
