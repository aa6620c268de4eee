"""The demo server, as a client sees it. What each kind of client makes of it is tested in tests/clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp.client import Client
from mcp_types import CreateMessageResult, ElicitResult, TextContent
from understudy.runtime import Runtime
from understudy.runtime.commands.http_servers import run_hypercorn
from understudy.runtime.commands.serve import bind
from understudy.runtime.demo import server


@pytest.fixture
async def url() -> AsyncIterator[str]:
    sock, stop = bind("127.0.0.1", 0), asyncio.Event()
    port = sock.getsockname()[1]
    async with Runtime(server, store="memory://", node_id="node-1") as runtime, asyncio.TaskGroup() as tasks:
        tasks.create_task(run_hypercorn(runtime.app, sock, None, stop))
        yield f"http://127.0.0.1:{port}/mcp"
        stop.set()


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


async def handle(client: Client, mode: str) -> dict[str, str]:
    """What a call needs beside its arguments to reach a session."""
    if mode == "legacy":
        return {}
    await client.list_tools()
    opened = await client.call_tool("open_session")
    assert opened.structured_content is not None
    return {"session": opened.structured_content["session"]}


async def test_results_come_as_text_and_as_structured_content(url: str, mode: Any) -> None:
    async with Client(url, mode=mode) as client:
        session = await handle(client, mode)
        for tool, arguments, value in (
            ("increment", session, 1),
            ("remember", {"fact": "x", **session}, "noted"),
            ("recall", session, ["x"]),
            ("echo", {"text": "a\u2028b"}, "a\u2028b"),
            ("countdown", {"steps": 1, "seconds": 0}, "lift-off"),
        ):
            result = await client.call_tool(tool, arguments)
            assert result.structured_content == {"result": value}
            assert [part.text for part in result.content if isinstance(part, TextContent)] == [
                str(part) for part in (value if isinstance(value, list) else [value])
            ]


async def test_whoami_tells_node_tenant_and_session(url: str, mode: Any) -> None:
    async with Client(url, mode=mode) as client:
        session = await handle(client, mode)
        result = await client.call_tool("whoami", session)
        assert result.structured_content is not None
        assert result.structured_content["node"] == "node-1"
        assert result.structured_content["tenant"] == "anonymous"
        assert result.structured_content["session"] == session.get("session", result.structured_content["session"])


async def test_tools_that_only_read_say_so(url: str) -> None:
    async with Client(url, mode="legacy") as client:
        tools = (await client.list_tools()).tools
    read_only = {tool.name for tool in tools if tool.annotations and tool.annotations.read_only_hint}
    assert read_only == {"count", "recall", "whoami", "echo"}


async def test_a_name_is_asked_for_and_kept_only_if_given(url: str, mode: Any) -> None:
    actions = iter(["decline", "accept"])

    async def answer(context: Any, params: Any) -> ElicitResult:
        action: Any = next(actions)
        return ElicitResult(action=action, content={"name": "Ada"} if action == "accept" else None)

    async with Client(url, mode=mode, elicitation_callback=answer) as client:
        session = await handle(client, mode)
        declined = await client.call_tool("ask_name", session)
        accepted = await client.call_tool("ask_name", session)
    assert declined.structured_content == {"result": "As you wish, stranger."}
    assert accepted.structured_content == {"result": "Hello, Ada."}


async def test_the_text_to_summarize_reaches_the_clients_model(url: str, mode: Any) -> None:
    prompts: list[str] = []

    async def answer(context: Any, params: Any) -> CreateMessageResult:
        prompts.append(params.messages[0].content.text)
        return CreateMessageResult(role="assistant", content=TextContent(text="It ends well."), model="none")

    async with Client(url, mode=mode, sampling_callback=answer) as client:
        result = await client.call_tool("summarize", {"text": "A long story."})
    assert result.structured_content == {"result": "It ends well."}
    assert "A long story." in prompts[0]


async def test_a_countdown_without_end_is_refused(url: str) -> None:
    async with Client(url, mode="legacy") as client:
        for arguments in ({"steps": 0, "seconds": 1}, {"steps": 10**6, "seconds": 1}, {"steps": 1, "seconds": 10**6}):
            assert (await client.call_tool("countdown", arguments)).is_error


async def test_it_has_a_resource_and_a_prompt(url: str, mode: Any) -> None:
    async with Client(url, mode=mode) as client:
        (resource,) = (await client.list_resources()).resources
        (content,) = (await client.read_resource(resource.uri)).contents
        (prompt,) = (await client.list_prompts()).prompts
        (message,) = (await client.get_prompt(prompt.name, {"name": "Ada"})).messages
    assert "survives its process" in getattr(content, "text", "")
    assert "My name is Ada." in getattr(message.content, "text", "")
