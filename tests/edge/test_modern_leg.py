"""PROTOCOL.md, "Modern leg": each POST stands alone, and is checked before anything runs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import LATEST, MODERN, envelope, hosting_modern
from edge.server import Stage, make_server
from support.patience import PATIENCE

HEADER_MISMATCH, UNSUPPORTED = -32020, -32022


async def test_a_request_is_answered_without_a_session() -> None:
    async with hosting_modern(make_server()) as client:
        call = await client.ask("tools/list", id="a")
        assert (call.status, call.kind, call.reply["id"]) == (200, "application/json", "a")
        assert call.header("mcp-session-id") is None
        assert client.runtime.stats()["sessions_activations"] == 0


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"])
async def test_only_post_is_allowed(method: str) -> None:
    async with hosting_modern(make_server()) as client:
        call = await client.send(method, headers={"mcp-protocol-version": MODERN})
        assert (call.status, call.header("allow")) == (405, "POST")
        assert call.json["id"] is None


async def test_a_post_must_accept_both_and_be_json() -> None:
    async with hosting_modern(make_server()) as client:
        assert (await client.ask("tools/list", headers={"accept": "application/json"})).status == 406
        assert (await client.ask("tools/list", headers={"content-type": "text/plain"})).status == 415


async def test_a_body_over_the_limit_is_refused() -> None:
    async with hosting_modern(make_server(), max_body=1000) as client:
        assert (await client.begin_tool("echo", {"value": "x" * 1000}).answered()).status == 413


async def test_a_notification_is_accepted_and_a_response_is_not() -> None:
    async with hosting_modern(make_server()) as client:
        call = await client.notify("notifications/whatever")
        assert (call.status, call.body) == (202, b"")
        call = await client.respond("1", {}, headers={"mcp-protocol-version": MODERN})
        assert (call.status, call.json["error"]["code"]) == (400, -32600)
        call = await client.notify("notifications/whatever", headers={"mcp-protocol-version": "2030-01-01"})
        assert (call.status, call.json["error"]["code"]) == (400, UNSUPPORTED)


def refused(call: HTTPCall, code: int, status: int = 400) -> dict[str, Any]:
    assert call.status == status, call.body
    assert call.kind == "application/json"
    assert call.reply["id"] == 1
    assert call.failure["code"] == code
    return call.failure


async def test_a_revision_that_is_not_spoken_is_refused_with_those_that_are() -> None:
    async with hosting_modern(make_server()) as client:
        client.version = "2099-12-31"
        failure = refused(await client.ask("tools/list", id=1), UNSUPPORTED)
        assert failure["data"]["requested"] == "2099-12-31"
        assert MODERN in failure["data"]["supported"]


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp-method": "ping"},
        {"mcp-method": None},
        {"mcp-method": ""},
        {"mcp-method": "TOOLS/CALL"},
        {"mcp-name": "increment"},
        {"mcp-name": None},
        {"mcp-name": "=?base64?!!!?="},
        {"mcp-name": "=?base64?\xff?="},
        {"mcp-name": "\xff"},
        {"mcp-method": ["tools/call", "tools/call"]},
        {"mcp-name": ["hold_stateless", "hold_stateless"]},
        {"mcp-name": ["increment", "hold_stateless"]},
        {"mcp-protocol-version": [MODERN, MODERN]},
        {"mcp-protocol-version": [LATEST, MODERN]},
        {"mcp-protocol-version": [MODERN, LATEST]},
        {"mcp-protocol-version": "2099-01-01"},
    ],
)
async def test_headers_that_contradict_the_body_or_come_twice_are_refused_before_anything_runs(headers: Any) -> None:
    async with hosting_modern(make_server(stage := Stage())) as client:
        call = await client.begin_tool("hold_stateless", id=1, headers=headers).answered()
        refused(call, HEADER_MISMATCH)
        assert stage.runs == 0


async def test_a_name_may_come_encoded() -> None:
    async with hosting_modern(make_server()) as client:
        call = await client.begin_tool("echo", {"value": 1}, headers={"mcp-name": "=?base64?ZWNobw==?="}).answered()
        assert call.status == 200


@pytest.mark.parametrize(
    "meta",
    [
        None,
        7,
        [],
        {},
        {key: value for key, value in envelope().items() if "Capabilities" not in key},
        {key: value for key, value in envelope().items() if "protocolVersion" not in key},
        envelope() | {"io.modelcontextprotocol/protocolVersion": None},
        envelope() | {"io.modelcontextprotocol/protocolVersion": 7},
        envelope() | {"io.modelcontextprotocol/clientCapabilities": 7},
        envelope() | {"io.modelcontextprotocol/clientInfo": "me"},
    ],
)
async def test_a_request_without_a_proper_envelope_is_refused(meta: Any) -> None:
    async with hosting_modern(make_server(stage := Stage())) as client:
        params: dict[str, Any] = {"name": "hold_stateless", "arguments": {}, "_meta": meta}
        headers = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "hold_stateless"}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        call = await client.send(body=body, headers=headers)
        assert call.status == 400
        assert call.failure["code"] in (-32602, HEADER_MISMATCH)
        assert stage.runs == 0


# Closing the connection


@pytest.mark.parametrize("tool", ["hold_stateless", "hold", "report"])
async def test_a_client_that_leaves_cancels_its_call(tool: str) -> None:
    async with hosting_modern(make_server(stage := Stage())) as client:
        arguments: dict[str, Any] = {"report": {"before": 2, "after": 0}}.get(tool, {})
        if tool == "hold":
            arguments["session"] = await client.handle()
        call = client.begin_tool(tool, arguments, token="t")
        await stage.began.wait()
        if tool == "report":
            await call.started()
            assert call.kind == "text/event-stream"
        call.disconnect()
        await call.done()
        async with asyncio.timeout(PATIENCE):
            while stage.running:
                await asyncio.sleep(0)
        assert (stage.cancelled, stage.finished) == (1, 0)
        assert not call.complete
        assert client.runtime.stats()["stateless_calls_running"] == 0
        if tool == "hold":
            stage.go_on.set()
            assert await client.tool("hold", arguments) == 1, "what it changed is undone"


async def test_a_client_that_leaves_takes_a_waiting_call_with_it() -> None:
    async with hosting_modern(make_server(stage := Stage())) as client:
        session = {"session": await client.handle()}
        running = client.begin_tool("hold", session)
        await stage.began.wait()
        waiting = client.begin_tool("hold", session)
        await client.tool("count", session)
        waiting.disconnect()
        await waiting.done()
        stage.go_on.set()
        assert (await running.answered()).value == 1
        assert await client.tool("increment", session) == 1
        assert stage.runs == 1


async def test_a_slow_silent_call_is_still_answered_as_json() -> None:
    async with hosting_modern(make_server()) as client:
        call = await client.begin_tool("sleep", {"seconds": 0.2}).answered()
        assert (call.kind, call.value) == ("application/json", "slept")


async def test_a_call_that_is_silent_for_too_long_becomes_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.edge.modern.JSON_PATIENCE", 0.05)
    async with hosting_modern(make_server(stage := Stage())) as client:
        call = await client.begin_tool("hold_stateless").started()
        assert call.kind == "text/event-stream"
        assert call.header("x-accel-buffering") == "no"
        stage.go_on.set()
        assert (await call.answered()).value == "held"
        assert all(event.id is None for event in call.events), "nothing in this era is resumed"


async def test_too_many_calls_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.node.MAX_STATELESS_CALLS", 3)
    async with hosting_modern(make_server(stage := Stage())) as client:
        calls = [client.begin_tool("hold_stateless") for _ in range(3)]
        async with asyncio.timeout(PATIENCE):
            while stage.running < 3:
                await asyncio.sleep(0)
        refusal = await client.ask("tools/list", id=1)
        refused(refusal, -32000, status=503)
        assert int(refusal.header("retry-after") or 0) >= 1
        stage.go_on.set()
        for call in calls:
            assert (await call.answered()).value == "held"
        assert (await client.ask("tools/list")).status == 200
