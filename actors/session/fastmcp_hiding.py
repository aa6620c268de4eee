"""How a FastMCP server hides what a surface does not have: by a transform, as its own filters do. Needs FastMCP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from fastmcp.exceptions import NotFoundError
from fastmcp.server import FastMCP
from fastmcp.server.transforms import Transform

from .components import Filtering
from .hiding import Hiding
from .requirement import Requirement, requirement_of
from .surface import SURFACE, Surface

__all__ = ["FastMCPHiding"]

C = TypeVar("C")


class FastMCPHiding(Hiding):
    """Of a FastMCP server. Requirements are those that are declared by the time it is hosted."""

    __slots__ = ("_server", "_shade")

    def __init__(self, server: FastMCP[Any], filtering: Filtering) -> None:
        super().__init__(filtering)
        self._server = server
        shade = next((known for known in server.transforms if isinstance(known, _Shade)), None)
        if shade is None:
            shade = _Shade()
            server.add_transform(shade)
        self._shade = shade

    def shows_tool(self, name: object) -> bool:
        surface = SURFACE.get()
        return surface is None or (surface.names_tool(name) and surface.meets(self._shade.tools.get(name)))

    async def hides_reference(self, surface: Surface, reference: Mapping[str, Any]) -> bool:
        if reference.get("type") == "ref/prompt":
            return await self._hides(surface, self._server.get_prompt, reference.get("name"))
        uri = reference.get("uri")
        return await self._hides(surface, self._server.get_resource_template, uri) or await self._hides(
            surface, self._server.get_resource, uri
        )

    async def _hides(self, surface: Surface, get: Callable[[str], Awaitable[object]], name: object) -> bool:
        if not isinstance(name, str):
            return False
        token = SURFACE.set(None)
        try:
            component = await get(name)
        except NotFoundError:
            return False
        finally:
            SURFACE.reset(token)
        return component is not None and not surface.meets(requirement_of(component))


class _Shade(Transform):
    def __init__(self) -> None:
        self.tools: dict[Any, Requirement] = {}
        """What tools require, by the names under which they were met. No more than there are."""

    async def list_tools(self, tools: Sequence[Any]) -> Sequence[Any]:
        return [tool for tool in tools if self._shows_tool(tool, tool.name)]

    async def get_tool(self, name: str, call_next: Any, *, version: Any = None) -> Any:
        tool = await call_next(name, version=version)
        return tool if tool is not None and self._shows_tool(tool, name) else None

    def _shows_tool(self, tool: object, name: str) -> bool:
        requirement = requirement_of(tool)
        if requirement is not None:
            self.tools[name] = requirement
        surface = SURFACE.get()
        return surface is None or (surface.names_tool(name) and surface.meets(requirement))

    async def list_resources(self, resources: Sequence[Any]) -> Sequence[Any]:
        return _shown(resources)

    async def get_resource(self, uri: str, call_next: Any, *, version: Any = None) -> Any:
        return _if_shown(await call_next(uri, version=version))

    async def list_resource_templates(self, templates: Sequence[Any]) -> Sequence[Any]:
        return _shown(templates)

    async def get_resource_template(self, uri: str, call_next: Any, *, version: Any = None) -> Any:
        return _if_shown(await call_next(uri, version=version))

    async def list_prompts(self, prompts: Sequence[Any]) -> Sequence[Any]:
        return _shown(prompts)

    async def get_prompt(self, name: str, call_next: Any, *, version: Any = None) -> Any:
        return _if_shown(await call_next(name, version=version))


def _if_shown(component: C) -> C | None:
    surface = SURFACE.get()
    return component if surface is None or surface.meets(requirement_of(component)) else None


def _shown(components: Sequence[C]) -> Sequence[C]:
    return [component for component in components if _if_shown(component) is not None]
