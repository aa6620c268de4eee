"""The short way to a tool: it answers as the SDK's own handler does, to the letter, and makes way for anybody's own."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolRequestParams, CallToolResult, TextContent
from pydantic import BaseModel, field_validator
from session.visitor import Host, Visitor, hosted, hosted_by_the_sdk
from understudy.runtime import Session


class Order(BaseModel):
    item: str
    amount: int = 1

    @field_validator("item")
    @classmethod
    def no_tea(cls, item: str) -> str:
        if item == "tea":
            raise ValueError("out of tea")
        if item == "bomb":
            raise RuntimeError("a validator that crashes")
        return item


def shop(kind: type[MCPServer] = MCPServer) -> MCPServer:
    server = kind("shop", version="1")

    @server.tool()
    async def add(a: int, b: int = 2) -> int:
        return a + b

    @server.tool()
    def sync_add(a: int, b: int = 2) -> int:
        return a + b

    @server.tool()
    async def order(order: Order) -> Order:
        return order

    @server.tool()
    async def texts(count: int) -> list[str]:
        return [f"text {number} ☕" for number in range(count)]

    @server.tool()
    async def nothing() -> None:
        return None

    @server.tool(structured_output=False)
    async def unstructured() -> dict[str, Any]:
        return {"a": [1, 2.5, None, True]}

    @server.tool()
    async def picture() -> Image:
        return Image(data=b"\x89PNG", format="png")

    @server.tool()
    async def whole_result() -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text="by hand")], is_error=True, _meta={"a": 1})

    @server.tool()
    async def refuse() -> str:
        raise ToolError("not today")

    @server.tool()
    async def refuse_resource() -> str:
        raise ResourceError("no such page")

    @server.tool()
    async def crash() -> str:
        raise RuntimeError("secret detail")

    @server.tool()
    async def protocol_error() -> str:
        raise MCPError(-32050, "try another server", {"which": "b"})

    @server.tool()
    async def wrong_output() -> int:
        return "not a number"  # type: ignore[return-value]

    @server.tool()
    async def with_context(ctx: Context) -> str:
        return str(ctx.protocol_version)

    @server.tool()
    async def nested(ctx: Context) -> list[Any]:
        return list((await server.call_tool("add", {"a": 1})).content)

    return server


CALLS: list[tuple[str, Any]] = [
    ("add", {"a": 1}),
    ("add", {"a": "1", "b": 5}),
    ("add", {"a": 1, "unknown": True}),
    ("add", {}),
    ("add", None),
    ("add", {"a": "x", "b": []}),
    ("sync_add", {"a": 1}),
    ("order", {"order": {"item": "coffee"}}),
    ("order", {"order": {"item": "tea"}}),
    ("order", {"order": {"item": "bomb"}}),
    ("order", {"order": '{"item": "cake", "amount": 3}'}),
    ("texts", {"count": 3}),
    ("texts", {"count": 0}),
    ("nothing", {}),
    ("unstructured", {}),
    ("picture", {}),
    ("whole_result", {}),
    ("refuse", {}),
    ("refuse_resource", {}),
    ("crash", {}),
    ("protocol_error", {}),
    ("wrong_output", {}),
    ("with_context", {}),
    ("nested", {}),
    ("unknown", {}),
    ("unknown", {"a": 1}),
    ("", {}),
    (7, {}),
    (None, {}),
    ("add", [1]),
]


async def answers(host: Host, era: str) -> dict[str, tuple[int, str]]:
    visitor = Visitor(host, era)
    if era == "handshake":
        await visitor.open()
    found: dict[str, tuple[int, str]] = {}
    for name, arguments in CALLS:
        params = {"name": name} | ({"arguments": arguments} if arguments is not None else {})
        call = visitor.begin("tools/call", params, id="the id")
        await call.ended.wait()
        # Of two ways to write a letter outside of ASCII, the SDK uses one in each era.
        found[f"{name} {arguments}"] = (call.status, json.dumps(json.loads(call.body)))
    return found


async def test_every_answer_is_the_sdks_to_the_letter(era):
    async with hosted_by_the_sdk(shop()) as host:
        expected = await answers(host, era)
    async with hosted(shop()) as host:
        assert await answers(host, era) == expected
    assert len(expected) == len(CALLS)
    assert sum(status == 200 for status, _ in expected.values()) > 20


async def test_what_is_said_in_the_log_is_what_the_sdk_says(era, caplog):
    said: list[list[tuple[str, str]]] = []
    for host_of in (hosted_by_the_sdk, hosted):
        caplog.clear()
        with caplog.at_level(logging.INFO, "mcp.server.mcpserver.server"):
            async with host_of(shop()) as host:
                await answers(host, era)
        said.append([(r.levelname, r.getMessage()) for r in caplog.records if r.name == "mcp.server.mcpserver.server"])
    assert said[0] == said[1]
    assert ("ERROR", "Tool 'crash' raised an unexpected exception") in said[1]


# Somebody's own in between


class Shouting(MCPServer):
    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        result = await super().call_tool(name, arguments, context)
        return CallToolResult(content=[TextContent(type="text", text=result.content[0].text.upper())])


async def test_a_server_that_overrides_call_tool_is_asked(era):
    server = Shouting("loud")

    @server.tool()
    async def say(text: str) -> str:
        return text

    @server.tool()
    async def remember(text: str, session: Session) -> str:
        session.state["text"] = text
        return text

    async with hosted(server) as host:
        visitor = await host.visit(era)
        assert await visitor.call("say", text="hello", stateless=True).value() == "HELLO"
        assert await visitor.ask("remember", text="hello") == "HELLO"


async def test_a_call_tool_set_on_the_server_itself_is_asked():
    server = shop()
    whole = server.call_tool

    async def instead(name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        return await whole("add", {"a": 40}, context)

    server.call_tool = instead  # type: ignore[method-assign]
    async with hosted(server) as host:
        assert await (await host.visit()).ask("nothing") == 42


async def test_a_handler_that_the_author_registered_is_asked():
    server = shop()

    async def handler(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text=f"handled {params.name}")])

    server._lowlevel_server.add_request_handler("tools/call", CallToolRequestParams, handler)
    async with hosted(server) as host:
        assert await (await host.visit()).ask("add") == "handled add"


async def test_middleware_sees_every_call(era):
    server = shop()
    seen: list[str] = []

    async def watch(ctx: Any, call_next: Any) -> Any:
        seen.append(f"{ctx.method} {(ctx.params or {}).get('name')}")
        return await call_next(ctx)

    server.middleware.append(watch)
    async with hosted(server) as host:
        visitor = await host.visit() if era == "handshake" else Visitor(host, era)
        assert await visitor.call("add", a=1, stateless=True).value() == 3
    assert "tools/call add" in seen


class Telling(Tool):
    """Looks at the context, which its function does not ask for."""

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:
        return await super().run({"method": context.request_context.method}, context, convert_result)


async def test_a_tool_of_the_authors_own_kind_runs_its_own_way():
    server = shop()

    async def tell(method: str) -> str:
        return method

    server._tool_manager._tools["tell"] = Telling.from_function(tell)
    async with hosted(server) as host:
        assert await (await host.visit()).ask("tell") == "tools/call"


@pytest.mark.parametrize("method", ["add_tool", "tool"])
async def test_a_tool_added_later_takes_the_short_way_too(method, monkeypatch):
    server = shop()
    async with hosted(server) as host:
        visitor = await host.visit()

        async def late(a: int) -> int:
            return a

        if method == "add_tool":
            server.add_tool(late)
        else:
            server.tool()(late)
        monkeypatch.setattr(MCPServer, "call_tool", None)
        assert await visitor.ask("late", a=3) == 3
