"""The Python clients behind the few calls that the tests make of each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import fastmcp
import mcp
from mcp.client.subscriptions import listen
from mcp.types import CallToolResult, CreateMessageResult, ElicitResult, TextContent, ToolListChangedNotification

Library = Literal["mcp", "fastmcp"]
Era = Literal["handshake", "modern"]

NAME = "Ada"
SUMMARY = "It is short."


class Guest:
    """A connected client that answers every question: `NAME` to an elicitation, `SUMMARY` to a sampling request."""

    def __init__(self, library: Library, url: str, era: Era) -> None:
        self.era = era
        self.tool_changes = anyio.Event()
        mode = "legacy" if era == "handshake" else "auto"
        if library == "mcp":
            self.client: Any = mcp.Client(
                url,
                mode=mode,
                elicitation_callback=self._elicited,
                sampling_callback=self._sampled,
                message_handler=self._hear,
            )
        else:
            self.client = fastmcp.Client(
                url,
                mode=mode,
                elicitation_handler=self._asked_by_fastmcp,
                sampling_handler=self._sampled_by_fastmcp,
                message_handler=self._hear,
            )

    @property
    def revision(self) -> str | None:
        """The protocol revision that client and server agreed on."""
        return self.client.session.protocol_version

    async def tool_names(self) -> set[str]:
        if isinstance(self.client, fastmcp.Client):
            return {tool.name for tool in await self.client.list_tools()}
        return {tool.name for tool in (await self.client.list_tools(cache_mode="refresh")).tools}

    async def call(self, name: str, arguments: dict[str, Any] | None = None, progress: Any = None) -> CallToolResult:
        if isinstance(self.client, fastmcp.Client):
            return await self.client.call_tool_mcp(name, arguments or {}, progress_handler=progress)
        return await self.client.call_tool(name, arguments or {}, progress_callback=progress)

    async def ask(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """The plain value that a tool returns."""
        result = await self.call(name, arguments)
        assert not result.is_error, result.content
        assert result.structured_content is not None
        return result.structured_content.get("result", result.structured_content)

    async def open_state(self) -> dict[str, str]:
        """What tools with state want as arguments: nothing where the connection has a session, else a handle."""
        if self.era == "handshake":
            return {}
        return {"session": (await self.ask("open_session"))["session"]}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """`tool_changes` is set when the server says that its tools changed."""
        if self.era == "handshake":
            yield
            return
        async with listen(self.client.session, tools_list_changed=True):
            yield

    async def _hear(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self.tool_changes.set()

    async def _elicited(self, context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"name": NAME})

    async def _sampled(self, context: Any, params: Any) -> CreateMessageResult:
        return CreateMessageResult(role="assistant", content=TextContent(text=SUMMARY), model="none")

    async def _asked_by_fastmcp(self, message: str, kind: Any, params: Any, context: Any) -> dict[str, str]:
        return {"name": NAME}

    async def _sampled_by_fastmcp(self, messages: Any, params: Any, context: Any) -> str:
        return SUMMARY


@asynccontextmanager
async def visit(library: Library, era: Era, url: str) -> AsyncIterator[Guest]:
    guest = Guest(library, url, era)
    async with guest.client:
        yield guest
