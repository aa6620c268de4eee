"""no-silent-loss: whatever a handler returns or raises, its client hears something that JSON can carry."""

from __future__ import annotations

import json
from typing import Any

import pytest
from edge.client import Client, ModernClient, connected, hosting
from edge.server import ODDITIES, make_server
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, JSONRPCResponse, TextContent
from pydantic import TypeAdapter

_RESPONSE = TypeAdapter(JSONRPCResponse)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


STRUCTURED: dict[str, tuple[Any, Any]] = {
    "NaN": (float("nan"), None),
    "infinity": (float("inf"), None),
    "a lone surrogate": ("a\ud800b", "a\ufffdb"),
    "surrogates in the wrong order": ("\udc00\ud800", "\ufffd\ufffd"),
    "a pair of surrogates": ("\ud83d\ude00\ud800", "\U0001f600\ufffd"),
    "NUL": ("\x00", "\x00"),
    "both NaN and a surrogate": ([float("nan"), "\ud800"], [None, "\ufffd"]),
    "a huge number": (10**300, 10**300),
}
HOPELESS: dict[str, Any] = {
    "a lone surrogate in a key": {"\udfff": 1},
    "too deep": nested(400),
    "far too deep": nested(100_000),
    "too deep with a surrogate": ["\ud800", nested(400)],
}


def odd_server() -> Server[Any]:
    async def call_tool(context: Any, params: Any) -> CallToolResult:
        if params.name == "raise":
            raise RuntimeError("\ud800" * 3)
        if params.name == "raise with data":
            raise MCPError(code=-32001, message="odd \ud800", data=nested(100_000))
        value = STRUCTURED[params.name][0] if params.name in STRUCTURED else HOPELESS[params.name]
        return CallToolResult(content=[TextContent(type="text", text="odd")], structured_content={"value": value})

    return Server("odd", on_call_tool=call_tool)


@pytest.mark.parametrize("name", STRUCTURED)
async def test_what_json_cannot_carry_is_replaced(name: str) -> None:
    async with hosting(odd_server()) as client, connected(client.runtime.app, ModernClient) as modern:
        await client.open()
        for one in (client, modern):
            call = await one.begin_tool(name).answered()
            assert call.result["structuredContent"] == {"value": STRUCTURED[name][1]}
            _RESPONSE.validate_json(call.body)  # as the SDK's client does


@pytest.mark.parametrize("name", HOPELESS)
async def test_a_result_that_json_cannot_carry_is_an_error(name: str) -> None:
    async with hosting(odd_server()) as client, connected(client.runtime.app, ModernClient) as modern:
        await client.open()
        for one in (client, modern):
            call = await one.begin_tool(name, id="x").answered()
            assert call.reply["id"] == "x"
            assert call.failure["code"] in (0, -32603)
        assert (await client.ask("ping")).status == 200


async def test_a_result_is_told_at_every_depth() -> None:
    async with hosting(odd_server()) as client:
        await client.open()
        outcomes: list[str] = []
        for depth in range(235, 265):
            HOPELESS["at the edge"] = nested(depth)
            call = await client.begin_tool("at the edge").answered()
            outcomes.append("result" if "result" in call.reply else call.failure["message"])
        assert outcomes[0] == "result"
        assert any("cannot be sent as JSON" in outcome for outcome in outcomes), "where the response is one too deep"
        assert outcomes[-1] == "Maximum serialization depth exceeded", "where the kernel finds it too deep"


async def test_an_error_that_json_cannot_carry_is_told_nevertheless() -> None:
    async with hosting(odd_server()) as client, connected(client.runtime.app, ModernClient) as modern:
        await client.open()
        for one in (client, modern):
            call = await one.begin_tool("raise with data").answered()
            assert call.failure["code"] == -32001
            assert call.failure["message"] == "odd \ufffd"
            call = await one.begin_tool("raise").answered()
            assert call.failure["message"] in ("\ufffd" * 3, "Internal server error")


@pytest.mark.parametrize("what", ODDITIES)
async def test_what_an_mcpservers_tool_returns_or_raises_is_told(what: str) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        for tool in ("say", "fail_oddly"):
            call = await client.begin_tool(tool, {"what": what}).answered()
            assert call.status == 200
            (content,) = call.result["content"]
            assert content["text"]
            assert call.result["isError"] == (tool == "fail_oddly" or what in ("bytes", "deep"))
            _RESPONSE.validate_json(call.body)


@pytest.mark.parametrize("what", ["nan", "inf", "-inf"])
async def test_a_number_that_json_does_not_know_is_null(what: str) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        call = await client.begin_tool("number", {"what": what}).answered()
        assert call.result["structuredContent"] == {"result": None}


@pytest.mark.parametrize("client_kind", [Client, ModernClient])
async def test_a_result_of_many_bytes_arrives_whole(client_kind: type[Client]) -> None:
    async with hosting(make_server()) as handshake, connected(handshake.runtime.app, client_kind) as client:
        if client_kind is Client:
            await client.open()
        text = "x" * 3_000_000
        call = await client.begin_tool("echo", {"value": text}).answered()
        assert call.result["content"][0]["text"] == text
        assert json.loads(call.body)
