"""State handles on the wire: how they are opened, named, kept from others, and listed."""

from __future__ import annotations

import base64
from typing import Any

from edge.call import HTTPCall
from edge.client import LATEST, Client, connected, hosting_modern, put_to_sleep
from edge.server import Stage, make_server
from edge.test_modern_leg import HEADER_MISMATCH, refused
from edge.test_session_ids import by_bearer
from mcp.server.lowlevel import Server
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool
from understudy.stores import Address

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
        await put_to_sleep(client.runtime, asleep)
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
