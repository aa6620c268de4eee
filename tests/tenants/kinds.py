"""Every kind of request that can name a session, generated from the SDK's own tables of methods.

Who adds a method to the SDK finds it missing here: `unclassified` says so, and a test fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge.client import ACCEPT, CAPABILITIES, envelope
from mcp_types.methods import CLIENT_NOTIFICATIONS, CLIENT_REQUESTS, CLIENT_RESULTS
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION, MODERN_PROTOCOL_VERSIONS

__all__ = ["ANSWERS", "NOTIFICATIONS", "REQUESTS", "Kind", "Target", "every_kind", "unclassified"]

URI = "stage://data"

REQUESTS: dict[str, dict[str, Any]] = {
    "completion/complete": {
        "ref": {"type": "ref/prompt", "name": "none"},
        "argument": {"name": "a", "value": "b"},
    },
    "initialize": {
        "protocolVersion": LATEST_HANDSHAKE_VERSION,
        "capabilities": CAPABILITIES,
        "clientInfo": {"name": "by-hand", "version": "1"},
    },
    "logging/setLevel": {"level": "error"},
    "ping": {},
    "prompts/get": {"name": "none"},
    "prompts/list": {},
    "resources/list": {},
    "resources/read": {"uri": URI},
    "resources/subscribe": {"uri": "stage://other"},
    "resources/templates/list": {},
    "resources/unsubscribe": {"uri": URI},
    "server/discover": {},
    "subscriptions/listen": {"notifications": {"resourceSubscriptions": [URI]}},
    "tools/call": {"name": "increment", "arguments": {}},
    "tools/list": {},
}
"""What each method is sent with: what the owner of a session would get an answer for, and would see a change of."""

NOTIFICATIONS: dict[str, dict[str, Any]] = {
    "notifications/cancelled": {"requestId": "held"},
    "notifications/initialized": {},
    "notifications/progress": {"progressToken": 1, "progress": 1.0},
    "notifications/roots/list_changed": {},
}

ANSWERS: dict[str, dict[str, Any]] = {
    "elicitation/create": {"action": "accept", "content": {"name": "mallory"}},
    "ping": {},
    "roots/list": {"roots": []},
    "sampling/createMessage": {"role": "assistant", "content": {"type": "text", "text": "x"}, "model": "m"},
}

TOOLS: dict[str, dict[str, Any]] = {
    "increment": {},
    "note": {"key": "stolen"},
    "notes": {},
    "count": {},
    "hold": {},
    "close_session": {},
}
"""Those that take a session, with their other arguments: the two era's ways of reading, writing, waiting and ending."""


@dataclass(frozen=True)
class Target:
    """What a request names: a session, by its id, and what is the matter with it."""

    session: str
    question: str = "q-1"
    """The id of a request that the server waits to have answered."""
    stream: str = "none"
    """The name of a stream of one of its requests."""
    standing: str = "none"
    """An id that an event of its standalone stream has."""


@dataclass(frozen=True)
class Kind:
    """One kind of request. `request` gives method, headers and body for a target."""

    name: str
    method: str = "POST"
    version: str | None = LATEST_HANDSHAKE_VERSION
    message: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    by_handle: bool = False
    """It names the session in the words of the modern era, which tells of unknown ones in a tool's result."""
    ignores_session: bool = False
    """It stands alone: the session is but a header, which changes nothing of what it asks."""
    streams: bool = False
    """What comes of it does not end by itself."""

    refused: bool = False
    """It contradicts itself, whoever sends it."""
    opens: bool = False
    """It names no session."""

    @property
    def ends_session(self) -> bool:
        return self.method == "DELETE" or "close_session" in self.name

    def request(self, target: Target) -> tuple[str, dict[str, str | None], bytes]:
        fill = {
            "$session": target.session,
            "$question": target.question,
            "$stream": target.stream,
            "$standing": target.standing,
        }

        def filled(value: Any) -> Any:
            if isinstance(value, str):
                for name, given in fill.items():
                    value = value.replace(name, given)
                return value
            if isinstance(value, Mapping):
                return {key: filled(each) for key, each in value.items()}
            return [filled(each) for each in value] if isinstance(value, list) else value

        headers: dict[str, str | None] = {"accept": ACCEPT, **self.headers}
        if self.version is not None:
            headers["mcp-protocol-version"] = self.version
        if self.version not in MODERN_PROTOCOL_VERSIONS and not self.opens:
            headers["mcp-session-id"] = "$session"
        body = b"" if self.message is None else json.dumps(filled(self.message)).encode()
        return self.method, filled(headers), body


def unclassified() -> set[str]:
    """Methods that the SDK has, or has no more, and nobody has said here what to send for."""
    tables = ((CLIENT_REQUESTS, REQUESTS), (CLIENT_NOTIFICATIONS, NOTIFICATIONS), (CLIENT_RESULTS, ANSWERS))
    return {name for table, ours in tables for name in {method for method, _ in table} ^ ours.keys()}


def every_kind() -> Iterator[Kind]:
    """All of them, in both eras. Those that would end the session come last."""
    kinds = [*_handshake(), *_modern()]
    yield from sorted(kinds, key=lambda kind: kind.ends_session)


def _rpc(method: str, params: Mapping[str, Any], id: object = "m") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def _handshake() -> Iterator[Kind]:
    for method, version in CLIENT_REQUESTS:
        if version in HANDSHAKE_PROTOCOL_VERSIONS:
            yield Kind(f"{method} {version}", version=version, message=_rpc(method, REQUESTS[method]))
    latest = [method for method, version in CLIENT_REQUESTS if version == LATEST_HANDSHAKE_VERSION]
    for method in latest:
        message = _rpc(method, REQUESTS[method])
        yield Kind(f"{method} without a version", version=None, message=message)
        yield Kind(
            f"{method} as a stream", message=message, headers={"accept": "text/event-stream, application/json;q=0.1"}
        )
        yield Kind(f"{method} with the id of a call in flight", message=message | {"id": "held"})
    yield Kind("a method that nobody knows", message=_rpc("x/unknown", {}))
    for tool, arguments in TOOLS.items():
        yield Kind(f"tool {tool}", message=_rpc("tools/call", {"name": tool, "arguments": arguments}))
    for method, version in CLIENT_NOTIFICATIONS:
        if version in HANDSHAKE_PROTOCOL_VERSIONS:
            message = {"jsonrpc": "2.0", "method": method, "params": NOTIFICATIONS[method]}
            yield Kind(f"{method} {version}", version=version, message=message)
    yield Kind("a notification that nobody knows", message={"jsonrpc": "2.0", "method": "notifications/x"})
    for method, version in CLIENT_RESULTS:
        answer = {"jsonrpc": "2.0", "id": "$question", "result": ANSWERS[method]}
        yield Kind(f"answer to {method} {version}", version=version, message=answer)
    error = {"jsonrpc": "2.0", "id": "$question", "error": {"code": -1, "message": "no"}}
    yield Kind("a refusal to answer", message=error)
    yield Kind("GET", "GET", streams=True)
    for what, last in (
        ("a request's stream", "$stream-1"),
        ("a request's stream from its end", "$stream-9"),
        ("the standing stream", "$standing"),
        ("a stream that never was", "none-1"),
        ("no stream at all", "?"),
    ):
        yield Kind(f"GET, resuming {what}", "GET", headers={"last-event-id": last}, streams=True)
    yield Kind("GET without a version", "GET", version=None, streams=True)
    yield Kind("DELETE", "DELETE")


def _modern() -> Iterator[Kind]:
    def headed(method: str, version: str, **more: str) -> dict[str, str]:
        return {"mcp-method": method, **more}

    for method, version in CLIENT_REQUESTS:
        if version not in MODERN_PROTOCOL_VERSIONS:
            continue
        # The session is only a header here, which leads the request to its owner.
        params = REQUESTS[method] | {"_meta": envelope(version)}
        named = params.get("uri" if method == "resources/read" else "name")
        headers = {"mcp-method": method, "mcp-param-session": "$session"} | ({"mcp-name": named} if named else {})
        if method == "tools/call":
            continue
        yield Kind(
            f"{method} {version} led by Mcp-Param-Session",
            version=version,
            message=_rpc(method, params),
            headers=headers,
            ignores_session=True,
            streams=method == "subscriptions/listen",
        )
    for version in MODERN_PROTOCOL_VERSIONS:
        for tool, arguments in TOOLS.items():
            params = {
                "name": tool,
                "arguments": {**arguments, "session": "$session"},
                "_meta": envelope(version),
            }
            headers = headed("tools/call", version, **{"mcp-name": tool})
            message = _rpc("tools/call", params)
            led = {**headers, "mcp-param-session": "$session"}
            yield Kind(f"{tool} by handle {version}", version=version, message=message, headers=led, by_handle=True)
            stream = {**led, "accept": "text/event-stream, application/json;q=0.1"}
            yield Kind(
                f"{tool} by handle as a stream {version}",
                version=version,
                message=message,
                headers=stream,
                by_handle=True,
            )
            yield Kind(
                f"{tool} by handle without its header {version}",
                version=version,
                message=message,
                headers=headers,
                refused=tool != "close_session",
            )
        yield Kind(
            f"a tool without a session led by Mcp-Param-Session {version}",
            version=version,
            message=_rpc("tools/call", {"name": "echo", "arguments": {"value": 1}, "_meta": envelope(version)}),
            headers=headed("tools/call", version, **{"mcp-name": "echo", "mcp-param-session": "$session"}),
            ignores_session=True,
        )
        for (method, of), params in ((key, NOTIFICATIONS[key[0]]) for key in CLIENT_NOTIFICATIONS):
            if of == version:
                yield Kind(
                    f"{method} {version} led by Mcp-Param-Session",
                    version=version,
                    message={"jsonrpc": "2.0", "method": method, "params": params},
                    headers={"mcp-method": method, "mcp-param-session": "$session"},
                    ignores_session=True,
                )
        for verb in ("GET", "DELETE"):
            yield Kind(
                f"{verb} {version} led by Mcp-Param-Session",
                verb,
                version=version,
                headers={"mcp-param-session": "$session"},
                ignores_session=True,
            )
