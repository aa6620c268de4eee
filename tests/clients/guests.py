"""The Python clients behind the few calls that the tests make of each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import fastmcp
import mcp
from mcp.client.subscriptions import listen
from mcp.types import (
    CallToolResult,
    CreateMessageResult,
    ElicitResult,
    ListRootsResult,
    LoggingMessageNotificationParams,
    ResourceUpdatedNotification,
    Root,
    TextContent,
    ToolListChangedNotification,
)
from support import BalancedCluster, ServerProcess

Library = Literal["mcp", "fastmcp"]
Era = Literal["handshake", "modern"]
House = ServerProcess | BalancedCluster
"""Where guests are received: one node, or several behind a balancer."""

NAME = "Ada"
SUMMARY = "It is short."
ROOT = "file:///srv/ada"


class Guest:
    """A connected client that answers every question: `NAME` to an elicitation, `SUMMARY` to a sampling request, `ROOT`
    to one for roots."""

    def __init__(self, library: Library, url: str, era: Era) -> None:
        self.era = era
        self.tool_changes = anyio.Event()
        self.resource_changes: dict[str, anyio.Event] = {}
        self.logged: list[str] = []
        mode = "legacy" if era == "handshake" else "auto"
        if library == "mcp":
            self.client: Any = mcp.Client(
                url,
                mode=mode,
                elicitation_callback=self._elicited,
                sampling_callback=self._sampled,
                list_roots_callback=self._rooted,
                logging_callback=self._log,
                log_level="warning" if era == "modern" else None,
                message_handler=self._hear,
            )
        else:
            self.client = fastmcp.Client(
                url,
                mode=mode,
                elicitation_handler=self._asked_by_fastmcp,
                sampling_handler=self._sampled_by_fastmcp,
                roots=[ROOT],
                log_handler=self._log,
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
    async def listening(self, *uris: str) -> AsyncIterator[None]:
        """`tool_changes` is set when the server says that its tools changed, `resource_changes` of a URI likewise."""
        self.resource_changes = {uri: anyio.Event() for uri in uris}
        if self.era == "handshake":
            for uri in uris:
                await self.client.session.subscribe_resource(uri)
            yield
            return
        async with listen(self.client.session, tools_list_changed=True, resource_subscriptions=uris):
            yield

    async def quiet(self) -> None:
        """Want no log messages below a warning. A modern client says so with each request, if it can."""
        if self.era == "handshake":
            await self.client.session.set_logging_level("warning")

    async def _hear(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self.tool_changes.set()
        elif isinstance(message, ResourceUpdatedNotification) and str(message.params.uri) in self.resource_changes:
            self.resource_changes[str(message.params.uri)].set()

    async def _log(self, params: LoggingMessageNotificationParams) -> None:
        self.logged.append(f"{params.level}: {params.data}")

    async def _rooted(self, context: Any) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri=ROOT)])

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
