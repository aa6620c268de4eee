"""A seeded source of requests that are nearly right, and of some that are not right at all."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from edge.client import ACCEPT, LATEST, MODERN, envelope, initialize_params
from edge.oddities import HEADERS, METHODS, ODD_BYTES, ODD_TEXT, ODD_VALUES, PATHS

Lines = list[tuple[bytes, bytes]]


@dataclass
class Fuzzed:
    """One request. `leaves`: the client hangs up before the answer."""

    method: str
    path: str
    headers: Lines
    parts: list[bytes]
    leaves: bool = False


@dataclass
class Fuzzer:
    """Same seed, same requests, as long as the ids that it is given are the same."""

    random: Random
    sessions: list[str] = field(default_factory=list[str])
    handles: list[str] = field(default_factory=list[str])
    events: list[str] = field(default_factory=list[str])

    def request(self) -> Fuzzed:
        random = self.random
        modern = random.random() < 0.4
        message, headers = self._modern() if modern else self._handshake()
        method, path = "POST", "/mcp"
        if random.random() < 0.25:
            message = deepcopy(message)
            self._mutate_value(message)
        body = self._dumped(message)
        if random.random() < 0.25:
            body = self._mutate_bytes(body)
        if random.random() < 0.25:
            headers = self._mutate_headers(headers)
        if random.random() < 0.08:
            method = random.choice(METHODS)
        if random.random() < 0.04:
            path = random.choice(PATHS)
        parts = [body]
        if random.random() < 0.1:
            cut = random.randrange(len(body) + 1)
            parts = [body[:cut], b"", body[cut:]]
        return Fuzzed(method, path, headers, parts, leaves=random.random() < 0.03)

    # Valid requests

    def _handshake(self) -> tuple[Any, Lines]:
        random = self.random
        headers = self._common()
        session = random.choice(self.sessions) if self.sessions and random.random() < 0.95 else "unknown"
        version = random.choice(["2025-03-26", "2025-06-18", LATEST, LATEST, LATEST])
        method, params = random.choice(
            [
                ("initialize", initialize_params(version)),
                ("ping", None),
                ("ping", {}),
                ("tools/list", {}),
                ("tools/list", {"cursor": "x"}),
                self._tool(None),
                self._tool(None),
                self._tool(None),
                ("resources/list", {}),
                ("resources/read", {"uri": "stage://data"}),
                ("resources/subscribe", {"uri": f"stage://{random.randrange(20)}"}),
                ("resources/unsubscribe", {"uri": f"stage://{random.randrange(20)}"}),
                ("prompts/list", {}),
                ("logging/setLevel", {"level": "debug"}),
                (
                    "completion/complete",
                    {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"name": "a", "value": "b"}},
                ),
                ("notifications/initialized", None),
                ("notifications/cancelled", {"requestId": random.randrange(40)}),
                ("notifications/progress", {"progressToken": f"1-{random.randrange(9)}", "progress": 1}),
                ("", {"action": "accept", "content": {"name": "n"}}),
            ]
        )
        if method != "initialize" or random.random() < 0.1:
            headers.append((b"mcp-session-id", session.encode()))
            headers.append((b"mcp-protocol-version", version.encode()))
        if random.random() < 0.05:
            headers.append((b"last-event-id", random.choice(self.events or ["x-1"]).encode()))
        return self._message(method, params), headers

    def _modern(self) -> tuple[Any, Lines]:
        random = self.random
        handle = random.choice(self.handles) if self.handles and random.random() < 0.9 else "unknown"
        method, params = random.choice(
            [
                ("server/discover", {}),
                ("tools/list", {}),
                self._tool(handle),
                self._tool(handle),
                self._tool(handle),
                ("tools/call", {"name": "open_session", "arguments": {}}),
                ("tools/call", {"name": "close_session", "arguments": {"session": handle}}),
                ("resources/read", {"uri": "stage://data"}),
                ("subscriptions/listen", {"notifications": {"toolsListChanged": True}}),
                ("notifications/whatever", {}),
                ("ping", {}),
                ("initialize", initialize_params()),
            ]
        )
        params = {**params, "_meta": envelope()}
        headers = self._common()
        headers.append((b"mcp-protocol-version", MODERN.encode()))
        headers.append((b"mcp-method", method.encode()))
        if (name := params.get("name", params.get("uri"))) is not None:
            headers.append((b"mcp-name", name.encode()))
        if isinstance(session := (params.get("arguments") or {}).get("session"), str):
            headers.append((b"mcp-param-session", session.encode()))
        return self._message(method, params), headers

    def _tool(self, handle: str | None) -> tuple[str, dict[str, Any]]:
        random = self.random
        name, arguments = random.choice(
            [
                ("increment", {}),
                ("count", {}),
                ("touch", {"uri": "stage://data"}),
                ("echo", {"value": random.choice(ODD_VALUES)}),
                ("number", {"what": random.choice(["nan", "inf", "1", "x"])}),
                ("say", {"what": random.choice(["surrogate", "nul", "huge", "bytes", "nothing"])}),
                ("report", {"before": random.randrange(4), "after": 1}),
                ("announce", {}),
                ("fail_oddly", {"what": "nul"}),
                ("missing", {}),
            ]
        )
        if handle is not None and name in ("increment", "count", "touch"):
            arguments = {**arguments, "session": handle}
        params: dict[str, Any] = {"name": name, "arguments": arguments}
        if random.random() < 0.5:
            params["_meta"] = {"progressToken": random.choice(["t", 7])}
        return "tools/call", params

    def _message(self, method: str, params: Any) -> dict[str, Any]:
        message: dict[str, Any] = {"jsonrpc": "2.0"}
        if not method.startswith("notifications/"):
            message["id"] = self.random.choice([self.random.randrange(40), f"id-{self.random.randrange(40)}"])
        if method:
            message["method"] = method
        if params is not None:
            message["params" if method else "result"] = params
        return message

    def _common(self) -> Lines:
        return [(b"host", b"localhost"), (b"accept", ACCEPT.encode()), (b"content-type", b"application/json")]

    # Mutations

    def _mutate_value(self, value: Any) -> None:
        """Change something, somewhere inside."""
        random = self.random
        while True:
            keys = list(value) if isinstance(value, dict) else list(range(len(value)))
            if not keys:
                return
            key = random.choice(keys)
            if isinstance(value[key], dict | list) and value[key] and random.random() < 0.7:
                value = value[key]
                continue
            match random.randrange(4):
                case 0:
                    del value[key]
                case 1 if isinstance(value, dict):
                    value[random.choice(["", "id", "method", "params", "x" * 300, "\x00"])] = value[key]
                case 2:
                    value[key] = [value[key]]
                case _:
                    value[key] = random.choice(ODD_VALUES)
            return

    def _dumped(self, message: Any) -> bytes:
        return json.dumps(message, ensure_ascii=self.random.random() < 0.5).encode("utf-8", "surrogatepass")

    def _mutate_bytes(self, body: bytes) -> bytes:
        random = self.random
        at, to = sorted((random.randrange(len(body) + 1), random.randrange(len(body) + 1)))
        match random.randrange(8):
            case 0:
                return body[:at]
            case 1:
                return body[:at] + random.choice(ODD_BYTES) + body[at:]
            case 2:
                return body[:at] + body[to:]
            case 3:
                return body[:to] + body[at:]
            case 4:
                return body[:at] + bytes([random.randrange(256)]) + body[at + 1 :]
            case 5:
                return random.choice(ODD_BYTES) * random.choice([1, 2, 500])
            case 6:
                return b"[" + body + b"]"
            case _:
                return b""

    def _mutate_headers(self, headers: Lines) -> Lines:
        random = self.random
        headers = list(headers)
        at = random.randrange(len(headers))
        match random.randrange(5):
            case 0:
                del headers[at]
            case 1:
                headers.append(headers[at])
            case 2:
                headers[at] = (headers[at][0], random.choice(ODD_TEXT))
            case 3:
                headers.append((random.choice(HEADERS), random.choice([*ODD_TEXT, *(value for _, value in headers)])))
            case _:
                headers += [(b"x-many-%d" % number, b"y" * 50) for number in range(200)]
        random.shuffle(headers)
        return headers
