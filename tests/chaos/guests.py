"""`Guest`: a client with a tenant, a principal and a key of its own, in one of the eras."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from chaos.http import Connection
from chaos.load import HANDSHAKE, MODERN
from chaos.tenants_server import mark_of
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from understudy.runtime import ApiKey, TenantContext, new_api_key
from understudy.runtime.credentials.api_key_lines import key_line

__all__ = ["Guest", "make_guests"]

PRINCIPALS = ("ann", "bob")
KEYS = 2
"""Of each principal."""
_CLIENT = {"name": "chaos", "version": "1"}
_ACCEPT = "accept: application/json, text/event-stream\r\n"
_JSON = "content-type: application/json\r\n"


@dataclass(slots=True)
class Guest:
    """One session of one principal, and what it was told."""

    tenant: str
    principal: str
    era: str
    keys: tuple[str, ...]
    """Any of them will do."""
    session: str = ""
    kept: int = 0
    """`keep` was acknowledged so often."""
    doubtful: int = 0
    """... and may have run so often besides."""
    latest: int = 0
    """The greatest count that was acknowledged."""
    _ids: count[int] = field(default_factory=lambda: count(1))

    @property
    def mark(self) -> str:
        return mark_of(self.tenant)

    def lines(self, session: str | None) -> str:
        """The headers of any request. `session`: whose it says it is; None: of none."""
        key = self.keys[next(self._ids) % len(self.keys)]
        lines = f"authorization: Bearer {key}\r\nmcp-protocol-version: {self.era}\r\n"
        return f"{lines}mcp-session-id: {session}\r\n" if session and self.era == HANDSHAKE else lines

    def post(
        self, method: str, params: Mapping[str, Any], *, session: str | None, id: int | str | None = None
    ) -> tuple[str, bytes]:
        """Header lines and body of a request."""
        params = dict(params)
        headers = self.lines(session) + _ACCEPT + _JSON
        if self.era == MODERN:
            headers += f"mcp-method: {method}\r\n"
            name = params.get("uri" if method == "resources/read" else "name")
            headers += f"mcp-name: {name}\r\n" if name is not None else ""
            if session is not None and method == "tools/call":
                params["arguments"] = {**params["arguments"], "session": session}
                headers += f"mcp-param-session: {session}\r\n"
            params["_meta"] = {
                PROTOCOL_VERSION_META_KEY: MODERN,
                CLIENT_INFO_META_KEY: _CLIENT,
                CLIENT_CAPABILITIES_META_KEY: {},
            }
        message = {"jsonrpc": "2.0", "id": next(self._ids) if id is None else id, "method": method, "params": params}
        return headers, json.dumps(message).encode()

    def tool(
        self, name: str, arguments: Mapping[str, Any], *, session: str | None, id: int | None = None
    ) -> tuple[str, bytes]:
        """Header lines and body of a tool call."""
        return self.post("tools/call", {"name": name, "arguments": dict(arguments)}, session=session, id=id)

    def listening(self) -> str:
        """Header lines of the GET that listens."""
        return self.lines(self.session) + "accept: text/event-stream\r\n"

    async def open(self, connection: Connection) -> None:
        """Open the session.

        Raises:
            NotConnected, Broken: No answer.
            AssertionError: It was refused.
        """
        connection.asks(self.mark, "the opening")
        if self.era == MODERN:
            answer = await connection.request("POST", "/mcp", *self.tool("open_session", {}, session=None))
            assert answer.status == 200, answer
            self.session = answer.message["result"]["structuredContent"]["session"]
            return
        params = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": _CLIENT}
        answer = await connection.request("POST", "/mcp", *self.post("initialize", params, session=None))
        assert answer.status == 200, answer
        assert self.mark in answer.message["result"]["instructions"], answer
        self.session = answer.headers["mcp-session-id"]


def make_guests(tenants: int, sessions: int, key_file: Path, secret_file: Path) -> list[Guest]:
    """So many sessions to be opened, of all tenants, principals and eras in turn; their keys and secrets are in the
    files then.
    """
    lines: list[str] = []
    keys: dict[tuple[str, str], tuple[str, ...]] = {}
    for number in range(tenants):
        for principal in PRINCIPALS:
            party = (f"tenant-{number}", principal)
            keys[party] = tuple(new_api_key() for _ in range(KEYS))
            lines += [key_line(ApiKey.of(key, TenantContext(*party))) for key in keys[party]]
    key_file.write_text("\n".join(lines) + "\n")
    secret_file.write_text("".join(_secrets_of(f"tenant-{number}") for number in range(tenants)))
    secret_file.chmod(0o600)
    guests: list[Guest] = []
    for number in range(sessions):
        tenant, turn = number % tenants, number // tenants
        principal = PRINCIPALS[turn % 2]
        era = (HANDSHAKE, MODERN)[turn // 2 % 2]
        guests.append(Guest(f"tenant-{tenant}", principal, era, keys[f"tenant-{tenant}", principal]))
    return guests


def _secrets_of(tenant: str) -> str:
    return f'[tenants."{tenant}"]\nTOKEN = "token of {mark_of(tenant)}"\n'
