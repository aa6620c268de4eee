"""What the runtime asks of a server's tools: which only read, which take a session, what their schemas are."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from mcp.server.lowlevel import Server
from mcp.server.mcpserver.tools import Tool
from mcp.server.runner import ServerRunner
from mcp.shared.dispatcher import DispatchContext

from .components import Components
from .errors import HostingError
from .handle_schema import declares_handle, with_session_argument
from .hiding import Hiding
from .parameter import fill_session_parameter
from .surface import SURFACE

__all__ = ["HostedTools", "ManagedTools"]

logger = logging.getLogger(__name__)

_MAX_PAGES: Final = 100


class HostedTools:
    """Of any server, which is asked for its list of tools once. Tools that it lists later count as unknown."""

    __slots__ = ("_handle_schemas", "_hiding", "_read_only", "_server")

    managed = False
    """Whether the tools are an `MCPServer`'s, so that their functions are in reach."""

    def __init__(self, server: Server[Any], hiding: Hiding) -> None:
        self._server = server
        self._hiding = hiding
        self._read_only: dict[str, bool] | None = None
        self._handle_schemas: dict[str, Any] | None = None

    @property
    def known(self) -> bool:
        """Whether nothing is left to `learn`."""
        return self._read_only is not None

    async def learn(self, runner: ServerRunner[Any], dispatch: DispatchContext[Any], *, meta: object) -> None:
        """Learn which tools only read, by asking the server for `tools/list`.

        A tool that appears later, or a server that cannot list, counts as one that writes.
        """
        read_only: dict[str, bool] = {}
        # What it learns is for all surfaces; what each may know of it is asked as it asks.
        token = SURFACE.set(None)
        params: dict[str, Any] = {} if meta is None else {"_meta": meta}
        try:
            for _ in range(_MAX_PAGES):
                page = await runner.on_request(dispatch, "tools/list", params)
                self.note(page.get("tools", ()))
                for tool in page.get("tools", ()):
                    annotations: dict[str, Any] = tool.get("annotations") or {}
                    read_only[tool["name"]] = bool(annotations.get("readOnlyHint"))
                if page.get("nextCursor") is None:
                    break
                params = {**params, "cursor": page["nextCursor"]}
        except Exception as error:
            name = self._server.name
            logger.info("server %r does not list its tools (%s): all of them count as writing", name, error)
        finally:
            SURFACE.reset(token)
        self._read_only = read_only

    def note(self, listed: Iterable[dict[str, Any]]) -> None:
        """Remember which of the listed tools declare the state handle themselves."""
        for tool in listed:
            schema = tool.get("inputSchema")
            if declares_handle(schema):
                if self._handle_schemas is None:
                    self._handle_schemas = {}
                self._handle_schemas[tool["name"]] = schema

    def is_read_only(self, name: object) -> bool:
        """Whether the tool is annotated `readOnlyHint`. False for one that is not known."""
        if self._read_only is None or not isinstance(name, str) or not self._read_only.get(name, False):
            return False
        return self._hiding.shows_tool(name)

    def may_repeat(self, name: object) -> bool:
        """Whether a call of the tool may run twice: annotated `readOnlyHint` or `idempotentHint`."""
        return self.is_read_only(name)

    def takes_session(self, name: object) -> bool:
        """Whether the tool declared a `Session` parameter. Also fills it for a tool added since."""
        return False

    @property
    def offer_sessions(self) -> bool:
        """Whether a tool takes a session, so that modern-era clients need a way to open one."""
        return self._handle_schemas is not None and any(map(self._hiding.shows_tool, self._handle_schemas))

    def names(self) -> list[str]:
        """The names of all tools, hidden ones too, where they are known without asking."""
        return []

    def schema(self, name: str) -> Any | None:
        """The tool's input schema as the modern era lists it, or None where it is not known without asking."""
        if not self._hiding.shows_tool(name):
            return None
        lookup = self._server.get_tool_input_schema
        if lookup is not None and (schema := lookup(name)) is not None:
            return schema
        return self._handle_schemas.get(name) if self._handle_schemas is not None else None


class ManagedTools(HostedTools):
    """Of an `MCPServer`, whose tools are in reach as they come and go. None of them declares the handle itself."""

    __slots__ = ("_clashes", "_schemas", "_tools")

    managed = True

    def __init__(self, server: Server[Any], hiding: Hiding, tools: Components[Tool]) -> None:
        super().__init__(server, hiding)
        self._tools = tools
        self._schemas: dict[str, tuple[Any, dict[str, Any]]] | None = None
        self._clashes: set[str] | None = None

    @property
    def known(self) -> bool:
        return True

    def note(self, listed: Iterable[dict[str, Any]]) -> None:
        pass

    def _get(self, name: object) -> Tool | None:
        return self._tools.get(name) if isinstance(name, str) else None

    def is_read_only(self, name: object) -> bool:
        tool = self._get(name)
        return tool is not None and tool.annotations is not None and bool(tool.annotations.read_only_hint)

    def may_repeat(self, name: object) -> bool:
        tool = self._get(name)
        hints = tool.annotations if tool is not None else None
        return hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)

    def takes_session(self, name: object) -> bool:
        tool = self._get(name)
        return tool is not None and self._fills(tool)

    def _fills(self, tool: Tool) -> bool:
        """`fill_session_parameter`; a tool added since that cannot have it must not take the others down with it."""
        try:
            return fill_session_parameter(tool)
        except HostingError as error:
            if self._clashes is None:
                self._clashes = set()
            if tool.name not in self._clashes:
                self._clashes.add(tool.name)
                logger.error("%s. Until then it works in the handshake era only", error)
            return False

    @property
    def offer_sessions(self) -> bool:
        return any(self._fills(tool) for tool in self._tools.values())

    def names(self) -> list[str]:
        return [tool.name for tool in self._tools.everything()]

    def schema(self, name: str) -> Any | None:
        tool = self._tools.get(name)
        if tool is None:
            return None
        if not self._fills(tool):
            return tool.parameters
        if self._schemas is None:
            self._schemas = {}
        kept = self._schemas.get(name)
        if kept is None or kept[0] is not tool:
            kept = self._schemas[name] = (tool, with_session_argument(tool.parameters))
        return kept[1]
