"""PROTOCOL.md, "Modern leg": each POST stands alone, and is checked before anything runs."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import mcp
import pytest
from edge.client import LATEST, MODERN, Client, HTTPCall, ModernClient, connected, envelope, hosting, hosting_modern
from edge.server import Stage, make_server
from edge.sockets import carried
from edge.test_session_ids import by_bearer
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool
from understudy.runtime import Runtime
from understudy.stores import Address

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


# Mcp-Param-Session


async def test_a_handle_that_contradicts_its_header_is_refused() -> None:
    async with hosting_modern(make_server(stage := Stage())) as client:
        one, other = await client.handle(), await client.handle()
        for header in (other, None, "", "x", "=?base64?\xff?=", [one, one], [other, one], one + " ", one.swapcase()):
            call = await client.begin_tool(
                "hold", {"session": one}, id=1, headers={"mcp-param-session": header}
            ).answered()
            refused(call, HEADER_MISMATCH)
        call = await client.begin_tool("hold", {}, id=1, headers={"mcp-param-session": one}).answered()
        refused(call, HEADER_MISMATCH)
        assert stage.runs == 0
        call = client.begin_tool("close_session", {"session": one}, id=1, headers={"mcp-param-session": other})
        refused(await call.answered(), HEADER_MISMATCH)
        stage.go_on.set()
        assert await client.tool("hold", {"session": one}) == 1


async def test_a_header_that_no_tool_declares_is_no_contradiction() -> None:
    async with hosting_modern(make_server()) as client:
        call = await client.begin_tool("echo", {"value": 1}, headers={"mcp-param-session": "whatever"}).answered()
        assert call.status == 200


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
        async with asyncio.timeout(10):
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
    monkeypatch.setattr("understudy.runtime.modern.JSON_PATIENCE", 0.05)
    async with hosting_modern(make_server(stage := Stage())) as client:
        call = await client.begin_tool("hold_stateless").started()
        assert call.kind == "text/event-stream"
        assert call.header("x-accel-buffering") == "no"
        stage.go_on.set()
        assert (await call.answered()).value == "held"
        assert all(event.id is None for event in call.events), "nothing in this era is resumed"


async def test_too_many_calls_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.runtime.MAX_STATELESS_CALLS", 3)
    async with hosting_modern(make_server(stage := Stage())) as client:
        calls = [client.begin_tool("hold_stateless") for _ in range(3)]
        async with asyncio.timeout(10):
            while stage.running < 3:
                await asyncio.sleep(0)
        refusal = await client.ask("tools/list", id=1)
        refused(refusal, -32000, status=503)
        assert int(refusal.header("retry-after") or 0) >= 1
        stage.go_on.set()
        for call in calls:
            assert (await call.answered()).value == "held"
        assert (await client.ask("tools/list")).status == 200


# Handles


async def unknown(call: HTTPCall) -> dict[str, Any]:
    await call.answered()
    assert call.status == 200
    assert call.result["isError"] is True
    assert len(call.body) < 1000
    return call.result


async def test_all_that_is_no_handle_of_the_callers_gets_one_tool_error() -> None:
    async with hosting_modern(make_server(), tenants=by_bearer) as client:
        client.headers["authorization"] = "Bearer acme/ann"
        mine, closed, asleep = await client.handle(), await client.handle(), await client.handle()
        await client.begin_tool("close_session", {"session": closed}).answered()
        assert await client.runtime._registry.passivate(Address("session", asleep))
        eve, evil = client.twin(authorization="Bearer acme/eve"), client.twin(authorization="Bearer evil/ann")
        answers: list[dict[str, Any]] = []
        for tool in ("increment", "count", "hold", "close_session"):
            for one, handle in (
                (client, "never-was"),
                (client, Address.new("session").id),
                (client, closed),
                (client, "x" * 129),
                (client, "x" * 60_000),
                (client, ""),
                (client, "a b"),
                (client, "\u00e4"),
                (client, "a\x00b"),
                (eve, mine),
                (eve, asleep),
                (evil, mine),
                (evil, asleep),
            ):
                call = one.begin_tool(tool, {"session": handle}, headers={"mcp-param-session": header_of(handle)})
                answers.append(await unknown(call))
            for nothing in ({}, {"session": None}, {"session": 7}, {"session": [mine]}, {"session": {}}):
                headers = {"mcp-param-session": "7"} if nothing.get("session") == 7 else {}
                call = await client.begin_tool(tool, nothing, headers=headers).answered()
                if call.status == 200:
                    answers.append(await unknown(call))
        assert all(answer == answers[0] for answer in answers)
        assert "open_session" in answers[0]["content"][0]["text"]
        assert await client.tool("increment", {"session": mine}) == 1, "and nothing was changed"


def header_of(handle: str) -> str:
    if handle.isascii() and handle.isprintable() and handle == handle.strip():
        return handle
    return f"=?base64?{base64.b64encode(handle.encode()).decode()}?="


async def test_a_handle_is_no_session_id_of_the_other_era() -> None:
    async with hosting_modern(make_server()) as modern:
        handle = await modern.handle()
        client = Client(modern._connections)
        client.session, client.revision = handle, LATEST
        for call in (
            client.begin("ping"),
            client.begin_tool("increment"),
            client.start("GET"),
            client.start("DELETE"),
            client.start(body=b'{"jsonrpc":"2.0","method":"notifications/initialized"}'),
        ):
            assert (await call.answered()).status == 404
        assert await modern.tool("increment", {"session": handle}) == 1


async def test_a_handle_has_at_least_128_bits_and_says_how_long_it_lives() -> None:
    async with hosting_modern(make_server(), session_ttl=7200) as client:
        handles = {await client.handle() for _ in range(10)}
        assert len(handles) == 10
        assert all(len(handle) >= 22 and handle.isascii() for handle in handles)
        opened = (await client.begin_tool("open_session").answered()).result
        assert opened["structuredContent"]["expires_in_seconds"] == 7200
        assert "2 hours" in opened["content"][0]["text"]


async def test_a_tool_without_a_session_needs_no_handle() -> None:
    async with hosting_modern(make_server()) as client:
        assert (await client.begin_tool("echo", {"value": "hi"}).answered()).result["content"][0]["text"] == "hi"
        assert client.runtime.stats()["sessions_activations"] == 0


async def test_two_calls_of_one_handle_may_have_one_id() -> None:
    """In this era an id belongs to its POST: two clients that share a handle know nothing of each other's."""
    async with hosting_modern(make_server(stage := Stage())) as client:
        session = {"session": await client.handle()}
        running = client.begin_tool("hold", session, id=1)
        await stage.began.wait()
        assert (await client.begin_tool("count", session, id=1).answered()).value == 0
        waiting = client.begin_tool("increment", session, id=1)
        stage.go_on.set()
        assert (await running.answered()).value == 1
        assert (await waiting.answered()).value == 1


# Listings


async def listed(client: Client) -> dict[str, Any]:
    return {tool["name"]: tool for tool in (await client.ask("tools/list")).result["tools"]}


async def test_the_session_tools_are_listed_where_a_tool_takes_a_session_only() -> None:
    async with hosting_modern(make_server()) as client, connected(client.runtime.app) as handshake:
        tools = await listed(client)
        assert {"open_session", "close_session"} <= tools.keys()
        assert tools["increment"]["inputSchema"]["properties"]["session"]["x-mcp-header"] == "Session"
        assert tools["increment"]["inputSchema"]["required"] == ["session"]
        assert "session" not in tools["echo"]["inputSchema"]["properties"]
        await handshake.open()
        tools = await listed(handshake)
        assert not {"open_session", "close_session"} & tools.keys()
        assert "session" not in tools["increment"]["inputSchema"].get("properties", {})


async def test_a_server_without_sessions_has_no_session_tools() -> None:
    async def list_tools(context: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="plain", input_schema={"type": "object"})])

    async def call_tool(context: Any, params: Any) -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text=params.name)])

    server = Server("plain", on_list_tools=list_tools, on_call_tool=call_tool)
    async with hosting_modern(server) as client:
        assert (await listed(client)).keys() == {"plain"}
        assert (await client.begin_tool("open_session").answered()).result["content"][0]["text"] == "open_session"


# One era only


async def test_a_node_of_the_handshake_era_says_what_it_speaks() -> None:
    async with hosting_modern(make_server(), eras=("handshake",)) as client:
        for call in (
            await client.ask("tools/list"),
            await client.ask("server/discover"),
            await client.send("GET", headers={"mcp-protocol-version": MODERN}),
        ):
            assert call.status == 400
            assert call.json["error"]["code"] == UNSUPPORTED
            assert LATEST in call.json["error"]["data"]["supported"]
            assert MODERN not in call.json["error"]["data"]["supported"]
        handshake = Client(client._connections)
        await handshake.open()
        assert await handshake.tool("increment") == 1


async def test_a_node_of_the_modern_era_says_what_it_speaks() -> None:
    async with hosting(make_server(), eras=("modern",)) as client:
        for version in (None, LATEST, "2025-03-26"):
            for method in ("POST", "GET", "DELETE"):
                call = await client.send(
                    method, client.message("initialize", {}), headers={"mcp-protocol-version": version}
                )
                assert call.status == 400
                assert call.json["error"]["code"] == UNSUPPORTED
                assert call.json["error"]["data"]["supported"] == [MODERN]
        modern = ModernClient(client._connections)
        assert (await modern.ask("tools/list")).status == 200


@pytest.mark.parametrize(
    ("eras", "mode", "revision"),
    [
        (("handshake",), "auto", LATEST),
        (("handshake",), "legacy", LATEST),
        (("modern",), "auto", MODERN),
        (("handshake", "modern"), "auto", MODERN),
        (("handshake", "modern"), "legacy", LATEST),
    ],
)
async def test_the_sdks_client_finds_the_era_that_is_served(eras: Any, mode: Any, revision: str) -> None:
    async with Runtime(make_server(), eras=eras) as runtime, connected(runtime.app) as carrier:
        carrier.runtime = runtime
        async with (
            carried(carrier, "hypercorn") as port,
            mcp.Client(f"http://127.0.0.1:{port}/mcp", mode=mode) as client,
        ):
            assert client.session.protocol_version == revision
            assert "echo" in {tool.name for tool in (await client.list_tools()).tools}


async def test_a_client_of_the_past_is_told_that_only_the_present_is_served() -> None:
    async with hosting(make_server(), eras=("modern",)) as carrier, carried(carrier, "hypercorn") as port:
        with pytest.raises(ExceptionGroup) as raised:
            async with mcp.Client(f"http://127.0.0.1:{port}/mcp", mode="legacy"):
                pass
        assert raised.group_contains(MCPError, match="Unsupported protocol version")
