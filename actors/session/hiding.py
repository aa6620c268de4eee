"""`Hiding`: how one server keeps from a call what its surface does not have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio.lowlevel
from mcp.server.mcpserver import MCPServer

from .components import Components, Filtering
from .disguise import Ask, ask_disguised
from .surface import SURFACE, Surface

if TYPE_CHECKING:
    from .hosting import HostedServer

__all__ = ["Hiding", "MCPServerHiding", "unheard"]

MOST_PAGES: Final = 100
BREATH: Final = 128
"""Resources looked for before others on the event loop have their turn."""

_URIS: Final = frozenset({"resources/subscribe", "resources/unsubscribe"})


class Hiding:
    """Of a low-level server: tools alone, and by their names alone, as the rest of it is its handlers' knowledge."""

    __slots__ = ("filtering",)

    plain = False
    """Whether the SDK's own look-ups answer `tools/call` and `tools/list`, so that nothing is left to do about them."""

    def __init__(self, filtering: Filtering) -> None:
        self.filtering = filtering

    def shows_tool(self, name: object) -> bool:
        """Whether the call that is running may see the tool, where it is not looked up in `Components`."""
        surface = SURFACE.get()
        return surface is None or surface.names_tool(name)

    def hides_uri(self, surface: Surface, uri: str) -> bool:
        """Whether there is a resource at `uri`, and none that `surface` has."""
        return False

    async def hides_reference(self, surface: Surface, reference: Mapping[str, Any]) -> bool:
        """Whether what a completion is for is there, and hidden."""
        return False

    async def ask(self, surface: Surface, ask: Ask, method: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
        """Run a request on a server that hides something. What is wrong with `params` is the SDK's to say."""
        given: Mapping[str, Any] = params if params is not None else {}
        if method == "tools/call" and not self.plain:
            name = given.get("name")
            if isinstance(name, str) and not surface.names_tool(name):
                return await ask_disguised(ask, given, "name")
        elif method == "tools/list" and not self.plain:
            return await _list_named(surface, ask, given)
        elif method in _URIS:
            uri = given.get("uri")
            if isinstance(uri, str) and self.hides_uri(surface, uri):
                return await ask_disguised(ask, given, "uri")
        elif method == "completion/complete":
            reference = given.get("ref")
            if isinstance(reference, dict) and await self.hides_reference(surface, reference):  # pyright: ignore[reportUnknownArgumentType]
                return await ask_disguised(ask, given, "ref", "name" if reference["type"] == "ref/prompt" else "uri")
        return await ask(params)


async def _list_named(surface: Surface, ask: Ask, params: Mapping[str, Any]) -> dict[str, Any]:
    """A page of those tools that are named; pages of which nothing is left are passed over."""
    for number in range(1, MOST_PAGES + 1):
        result = await ask(params)
        listed: list[Any] = result.get("tools", [])
        result = {**result, "tools": [tool for tool in listed if surface.names_tool(tool.get("name"))]}
        if result["tools"] or result.get("nextCursor") is None or number == MOST_PAGES:
            return result
        params = {**params, "cursor": result["nextCursor"]}
    raise AssertionError("the last page is returned")


class MCPServerHiding(Hiding):
    """Of an `MCPServer`: what it looks up is filtered as it is looked up."""

    __slots__ = ("_prompts", "_resources", "_templates", "plain", "tools")

    def __init__(self, server: MCPServer[Any], filtering: Filtering) -> None:
        super().__init__(filtering)
        tools: Any = server._tool_manager  # pyright: ignore[reportPrivateUsage]
        resources: Any = server._resource_manager  # pyright: ignore[reportPrivateUsage]
        prompts: Any = server._prompt_manager  # pyright: ignore[reportPrivateUsage]
        # In place of the managers' own dicts, not copies: what is added or removed later is seen.
        self.tools: Components[Any] = _adopt(tools, "_tools", filtering, tools=True)
        self._resources = _adopt(resources, "_resources", filtering)
        self._templates = _adopt(resources, "_templates", filtering)
        self._prompts = _adopt(prompts, "_prompts", filtering)
        self.filtering = self.tools.filtering
        self.filtering.active = self.filtering.active or filtering.active
        if self.filtering.active:
            for components in (self.tools, self._resources, self._templates, self._prompts):
                components.filter()
        kind = type(server)
        self.plain = kind is MCPServer and not {"list_tools", "call_tool"} & server.__dict__.keys()

    def shows_tool(self, name: object) -> bool:
        return True

    def hides_uri(self, surface: Surface, uri: str) -> bool:
        resources, templates = self._resources.seen(surface), self._templates.seen(surface)
        if uri in resources:
            return False
        hidden = self._resources.has(uri)
        if not hidden and len(templates) == len(self._templates.everything()):
            return False
        for template in self._templates.everything():
            if template.parsed_template.match(uri) is not None:
                if template.uri_template in templates:
                    return False
                hidden = True
        return hidden

    async def hides_reference(self, surface: Surface, reference: Mapping[str, Any]) -> bool:
        if reference.get("type") == "ref/prompt":
            name = reference.get("name")
            return self._prompts.has(name) and name not in self._prompts.seen(surface)
        uri = reference.get("uri")
        if not isinstance(uri, str):
            return False
        if self._templates.has(uri):
            return uri not in self._templates.seen(surface)
        return self.hides_uri(surface, uri)


async def unheard(hosted: HostedServer, surface: Surface, uris: Iterable[Any]) -> frozenset[str]:
    """Those of `uris` of whose changes whoever has `surface` must not hear. Lets others have their turn."""
    found: set[str] = set()
    for number, uri in enumerate(uris, 1):
        if isinstance(uri, str) and hosted.hiding.hides_uri(surface, uri):
            found.add(uri)
        if number % BREATH == 0:
            await anyio.lowlevel.checkpoint()
    return frozenset(found)


def _adopt(manager: Any, name: str, filtering: Filtering, *, tools: bool = False) -> Components[Any]:
    known = getattr(manager, name)
    if isinstance(known, Components):
        # Hosted before, by another runtime: both share what it is.
        return known  # pyright: ignore[reportUnknownVariableType]
    components = Components[Any](known, filtering, tools=tools)
    setattr(manager, name, components)
    return components
