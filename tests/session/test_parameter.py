"""`session: Session` among a tool's parameters: what clients see of it, and how it is filled."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import AcceptedElicitation, Elicit, ElicitationResult, Resolve
from mcp.types import ToolAnnotations
from pydantic import BaseModel
from session.visitor import RPCError, hosted
from understudy.runtime import HostingError, Runtime, Session

HANDLE_SCHEMA = {
    "type": "string",
    "title": "Session",
    "description": "The session handle returned by open_session. The same handle keeps working on the same state.",
    "x-mcp-header": "Session",
}


class Name(BaseModel):
    name: str


async def ask_for_name() -> Elicit[Name]:
    return Elicit("Who?", Name)


async def counted(session: Session) -> int:
    """A resolver that takes the session itself."""
    session.state["count"] = session.state.get("count", 0) + 1
    return session.state["count"]


def library() -> MCPServer:
    server = MCPServer("library")

    @server.tool()
    async def alone(session: Session) -> str:
        return session.id

    @server.tool()
    async def among(title: str, session: Session, pages: int = 3) -> str:
        """Some of each."""
        session.state[title] = pages
        return f"{title}: {pages} in {len(session.state)}"

    @server.tool()
    def sync_tool(title: str, session: Session) -> str:
        session.state["title"] = title
        return session.state["title"]

    @server.tool()
    async def under_another_name(conversation: Session) -> str:
        return conversation.id

    @server.tool()
    async def twice(one: Session, other: Session) -> bool:
        return one is other

    @server.tool()
    async def with_context(session: Session, ctx: Context) -> list[str]:
        return [session.id, str(ctx.request_id)]

    @server.tool()
    async def with_question(session: Session, answer: Annotated[ElicitationResult[Name], Resolve(ask_for_name)]) -> str:
        assert isinstance(answer, AcceptedElicitation)
        session.state["name"] = answer.data.name
        return f"{answer.data.name} in {session.id}"

    @server.tool()
    async def by_resolver(count: Annotated[int, Resolve(counted)]) -> int:
        return count

    @server.tool()
    async def without(title: str) -> str:
        return title

    return server


@pytest.fixture
async def host():
    async with hosted(library()) as host:
        yield host


WITH = ["alone", "among", "sync_tool", "under_another_name", "twice", "with_context", "with_question", "by_resolver"]


async def test_in_the_handshake_era_no_tool_shows_it(host):
    tools = await (await host.visit()).tools()
    assert set(tools) == {*WITH, "without"}
    for tool in tools.values():
        assert "session" not in tool["inputSchema"].get("properties", {})
    assert set(tools["among"]["inputSchema"]["properties"]) == {"title", "pages"}
    assert tools["among"]["inputSchema"]["required"] == ["title"]


async def test_in_the_modern_era_it_is_one_more_argument_that_travels_as_a_header(host):
    tools = await (await host.visit("modern")).tools()
    assert set(tools) == {*WITH, "without", "open_session", "close_session"}
    for name in WITH:
        schema = tools[name]["inputSchema"]
        assert schema["properties"]["session"] == HANDLE_SCHEMA
        assert "session" in schema["required"]
    assert tools["among"]["inputSchema"]["required"] == ["title", "session"]
    assert set(tools["among"]["inputSchema"]["properties"]) == {"title", "pages", "session"}
    assert "session" not in tools["without"]["inputSchema"]["properties"]
    assert tools["close_session"]["inputSchema"]["properties"] == {"session": HANDLE_SCHEMA}


async def test_the_rest_of_a_tool_is_listed_alike_in_both_eras(host):
    handshake, modern = await (await host.visit()).tools(), await (await host.visit("modern")).tools()
    for name, tool in handshake.items():
        listed = {key: value for key, value in modern[name].items() if key != "inputSchema"}
        assert listed == {key: value for key, value in tool.items() if key != "inputSchema"}


async def test_it_is_filled_however_it_is_declared(host, era):
    visitor = await host.visit(era)
    assert await visitor.ask("alone") == visitor.session
    assert await visitor.ask("among", title="Emma") == "Emma: 3 in 1"
    assert await visitor.ask("among", title="Persuasion", pages=9) == "Persuasion: 9 in 2"
    assert await visitor.ask("sync_tool", title="Emma") == "Emma"
    assert await visitor.ask("under_another_name") == visitor.session
    assert await visitor.ask("twice") is True
    assert (await visitor.ask("with_context"))[0] == visitor.session
    assert await visitor.ask("by_resolver") == 1
    assert await visitor.ask("by_resolver") == 2
    assert await visitor.call("without", title="Emma", stateless=True).value() == "Emma"


async def test_a_handshake_client_cannot_fill_it_itself(host):
    one, other = await host.visit(), await host.visit()
    assert await one.ask("alone", session=other.session) == one.session


async def test_beside_a_question_of_a_resolver(host):
    visitor = await host.visit()
    call = visitor.call("with_question")
    question = await call.message()
    await visitor.answer(question["id"], {"action": "accept", "content": {"name": "Ada"}})
    assert await call.value() == f"Ada in {visitor.session}"


async def test_beside_a_question_of_a_resolver_in_the_modern_era(host):
    visitor = await host.visit("modern")
    asked = await visitor.call("with_question").result()
    assert asked["resultType"] == "input_required"
    (key,) = asked["inputRequests"]
    params = {
        "name": "with_question",
        "arguments": {"session": visitor.session},
        "inputResponses": {key: {"action": "accept", "content": {"name": "Ada"}}},
        "requestState": asked["requestState"],
    }
    assert await visitor.begin("tools/call", params).value() == f"Ada in {visitor.session}"


# Handles


async def test_open_session_says_how_long_the_session_lives(host):
    visitor = await host.visit("modern")
    result = await visitor.call("open_session", stateless=True).result()
    assert result["structuredContent"]["expires_in_seconds"] == 86_400
    assert result["structuredContent"]["session"] in result["content"][0]["text"]
    assert "1 day after its last use" in result["content"][0]["text"]


async def test_a_handle_cannot_be_guessed(host):
    handles = {(await host.visit("modern")).session for _ in range(100)}
    assert len(handles) == 100
    assert min(map(len, handles)) >= 22
    columns = zip(*handles, strict=True)
    assert all(len(set(column)) > 5 for column in columns), "each place of the handle is random"


UNKNOWN = "Unknown session. Call open_session and pass the handle it returns as the argument 'session'."


@pytest.mark.parametrize("tool", ["alone", "by_resolver", "close_session"])
@pytest.mark.parametrize(
    "handle", [None, "", "nonsense", "A" * 22, "A" * 43, 7, ["x"], "ü", "../../etc"], ids=lambda handle: str(handle)
)
async def test_a_handle_that_names_no_session_gets_one_answer(host, tool, handle):
    visitor = await host.visit("modern")
    arguments: dict[str, Any] = {} if handle is None else {"session": handle}
    call = visitor.begin("tools/call", {"name": tool, "arguments": arguments}, bare=not isinstance(handle, str))
    try:
        result = await call.result()
    except RPCError as error:
        assert error.code == -32020, "the header cannot carry it"  # noqa: PT017
        assert handle in (7, "ü", "")
        return
    assert result["isError"]
    assert result["content"] == [{"type": "text", "text": UNKNOWN}]


async def test_a_closed_session_is_unknown(host):
    visitor = await host.visit("modern")
    assert await visitor.ask("close_session") == "The session is closed."
    assert await visitor.failure("alone") == UNKNOWN
    assert await visitor.failure("close_session") == UNKNOWN


async def test_a_handle_that_contradicts_its_header_is_refused_before_anything_runs(host):
    one, other = await host.visit("modern"), await host.visit("modern")
    params = {"name": "among", "arguments": {"title": "Emma", "session": one.session}}
    call = one.begin("tools/call", params, param_session=other.session)
    with pytest.raises(RPCError, match="Mcp-Param-Session"):
        await call.result()
    assert call.status == 400
    assert await one.ask("among", title="Persuasion") == "Persuasion: 3 in 1"


# What cannot be


def clash() -> MCPServer:
    server = MCPServer("clash")

    @server.tool()
    async def login(session: str, conversation: Session) -> str:
        return session

    return server


def test_a_tool_with_an_argument_called_session_cannot_take_one_too():
    with pytest.raises(HostingError, match=r"tool 'login' takes a Session and has an argument called .*rename"):
        Runtime(clash())


def test_a_tool_with_an_argument_called_session_may_be_hosted_if_it_takes_none():
    server = MCPServer("fine")

    @server.tool()
    async def login(session: str) -> str:
        return session

    Runtime(server)


@pytest.mark.parametrize("name", ["open_session", "close_session"])
def test_the_names_of_the_session_tools_are_reserved_where_tools_take_sessions(name):
    server = library()
    server.add_tool(lambda: "mine", name=name, description="mine")
    with pytest.raises(HostingError, match=rf"has a tool called '{name}'.*rename it, or host with eras"):
        Runtime(server)
    Runtime(server, eras=("handshake",))


async def test_a_tool_of_that_name_is_the_servers_own_where_no_tool_takes_a_session():
    server = MCPServer("plain")
    server.add_tool(lambda: "mine", name="open_session", description="mine")
    async with hosted(server) as host:
        visitor = await host.visit()
        assert await visitor.ask("open_session") == "mine"


async def test_in_a_factory_made_server_the_reserved_name_is_an_error_of_the_modern_era_alone(caplog):
    def make(tenant: Any) -> MCPServer:
        server = library()
        server.add_tool(lambda: "mine", name="open_session", description="mine")
        return server

    async with hosted(make) as host:
        assert await (await host.visit()).ask("open_session") == "mine"
        with pytest.raises(RPCError, match="Internal server error"):
            await host.visit("modern")
    assert "has a tool called 'open_session'" in caplog.text


# Tools that come and go


async def test_a_tool_added_after_hosting_takes_its_session(era):
    server = library()
    async with hosted(server) as host:
        visitor = await host.visit(era)

        @server.tool(annotations=ToolAnnotations(read_only_hint=True))
        async def late(session: Session) -> str:
            return session.id

        tools = await visitor.tools()
        assert ("session" in tools["late"]["inputSchema"].get("properties", {})) == (era == "modern")
        assert await visitor.ask("late") == visitor.session

        server.remove_tool("late")
        assert "Unknown tool: late" in await visitor.failure("late")


async def test_a_tool_that_replaces_another_shows_its_own_schema():
    server = library()
    async with hosted(server) as host:
        visitor = await host.visit("modern")
        await visitor.tools()
        server.remove_tool("among")

        @server.tool(name="among")
        async def other(author: str, session: Session) -> str:
            return author

        assert set((await visitor.tools())["among"]["inputSchema"]["properties"]) == {"author", "session"}
        assert await visitor.ask("among", author="Austen") == "Austen"


async def test_a_first_tool_with_a_session_makes_the_modern_era_offer_sessions():
    server = MCPServer("late")
    async with hosted(server) as host:
        visitor = await host.visit()

        @server.tool()
        async def late(session: Session) -> str:
            return session.id

        assert set(await visitor.tools()) == {"late"}
        modern = await host.visit("modern")
        assert await modern.ask("late") == modern.session


async def test_a_tool_added_later_that_clashes_harms_no_other(era, caplog):
    server = library()
    async with hosted(server) as host:
        visitor = await host.visit(era)

        @server.tool()
        async def login(session: str, conversation: Session) -> str:
            return conversation.id

        assert "login" in await visitor.tools()
        assert await visitor.ask("alone") == visitor.session
        if era == "modern":
            assert "no session here" in await visitor.failure("login")
        else:
            assert await visitor.ask("login", session="mine") == visitor.session
        server.remove_tool("login")
        assert caplog.text.count("tool 'login' takes a Session and has an argument called 'session'") == 1


async def test_one_server_may_be_hosted_twice(era):
    server = library()
    for _ in range(2):
        async with hosted(server) as host:
            visitor = await host.visit(era)
            assert await visitor.ask("among", title="Emma") == "Emma: 3 in 1"


async def test_what_a_tool_says_of_its_failure_passes_through_the_parameter(era):
    server = MCPServer("failing")

    @server.tool()
    async def fail(session: Session) -> str:
        raise ToolError("as announced")

    async with hosted(server) as host:
        visitor = await host.visit(era)
        assert await visitor.failure("fail") == "Error executing tool fail: as announced"
