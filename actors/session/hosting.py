"""`HostedServer`: one MCP server as the session actor sees it, whatever it was written with."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, cast

from mcp.server._otel import OpenTelemetryMiddleware
from mcp.server.context import ServerMiddleware
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.lowlevel.server import lifespan as no_lifespan
from mcp.server.mcpserver import MCPServer
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ServerEvent, SubscriptionBus
from mcp_types import EmptyResult, SubscribeRequestParams, SubscriptionsListenRequestParams, UnsubscribeRequestParams

from .commons import ALONE, Commons, seal_together
from .components import Filtering
from .errors import HostingError
from .hiding import Hiding, MCPServerHiding
from .hosted_tools import HostedTools, ManagedTools
from .listening import Listening
from .parameter import fill_session_parameter
from .requirement import any_declared
from .sharing import share_equal_parts
from .telemetry import TelemetryIfInstalled
from .tenant_bus import ALL_LISTS, TenantBus
from .tenant_shared import TenantShared
from .tool_calls import shorten_tool_calls

if TYPE_CHECKING:
    from .lifespan import Lifespan
    from .tenant import TenantContext

__all__ = ["HostedServer", "has_lifespan", "is_server"]

logger = logging.getLogger(__name__)

AnyServer = Server[Any]

_telemetry = TelemetryIfInstalled(OpenTelemetryMiddleware())


def lowlevel_of(server: object) -> AnyServer | None:
    """The SDK's low-level server inside `server`; None if there is none.

    `MCPServer` keeps its own under `_lowlevel_server`, FastMCP 4 under `_mcp_server`; neither offers it otherwise.
    """
    if isinstance(server, Server):
        return cast("AnyServer", server)
    for name in ("_lowlevel_server", "_mcp_server"):
        inner = getattr(server, name, None)
        if isinstance(inner, Server):
            return cast("AnyServer", inner)
    return None


def is_server(candidate: object) -> bool:
    """Whether `candidate` is an MCP server that can be hosted (as opposed to a factory of servers)."""
    return lowlevel_of(candidate) is not None


class HostedServer:
    """A server made ready to be run by the SDK kernel, with what the session actor asks of it."""

    __slots__ = (
        "__weakref__",
        "_init_options",
        "_shared",
        "bus",
        "hiding",
        "lifespan",
        "lifespan_state",
        "lowlevel",
        "made",
        "made_for",
        "name",
        "relayed",
        "retired",
        "tools",
        "turns",
    )

    def __init__(
        self,
        server: object,
        shared: TenantShared | None = None,
        commons: Commons | None = None,
        *,
        filtered: bool = False,
    ) -> None:
        """`shared` for a server that a factory made; None for the one object that serves everybody. `commons` where
        other nodes serve the same. `filtered`: tools are chosen by their names for each surface.

        Raises:
            HostingError: `server` is no MCP server, or a tool of it cannot be hosted.
        """
        lowlevel = lowlevel_of(server)
        if lowlevel is None:
            raise HostingError(
                f"cannot host {type(server).__name__!r}: need an MCPServer, a low-level Server, a FastMCP server, "
                "or a function (tenant) -> server"
            )
        self.lowlevel: AnyServer = lowlevel
        self.tools: HostedTools
        self.hiding: Hiding
        self.name = lowlevel.name
        self.bus: SubscriptionBus | None = None
        """What its tools publish changes on; None for one that is no `MCPServer`, whose bus is out of reach."""
        self.lifespan: Lifespan | None = None
        self.lifespan_state: Any = {}
        self._init_options: InitializationOptions | None = None
        self._shared = shared
        self.relayed: TenantShared | None = None
        """What the server publishes on; None where that is a bus of the author's own."""
        for index, middleware in enumerate(lowlevel.middleware):
            if type(middleware) is OpenTelemetryMiddleware:
                lowlevel.middleware[index] = cast("ServerMiddleware[Any]", _telemetry)
        seal_together(self.lowlevel.middleware, commons.seal if commons is not None else ALONE)
        self.made_for: TenantContext | None = None
        """Whom a factory has made it for; None for the one object that serves everybody."""
        self.made = 0
        """The latest of `TenantChanges` as its making began."""
        self.turns = 0
        """How many turns of its session run on it."""
        self.retired = False
        """Another has taken its place: its lifespan ends when no turn runs on it."""
        if isinstance(server, MCPServer):
            self._adopt_mcpserver(cast("MCPServer[Any]", server), shared, commons, Filtering(filtered))
        else:
            self.hiding = _hiding_of(server, Filtering(filtered))
            self.tools = HostedTools(lowlevel, self.hiding)

    def _adopt_mcpserver(
        self, server: MCPServer[Any], shared: TenantShared | None, commons: Commons | None, filtering: Filtering
    ) -> None:
        hiding = self.hiding = MCPServerHiding(server, filtering)
        self.tools = ManagedTools(self.lowlevel, hiding, hiding.tools)
        for tool in hiding.tools.everything():
            fill_session_parameter(tool)
        shorten_tool_calls(server, self.lowlevel, hiding.tools)
        if shared is not None:
            self._share_bus(server, shared)
            share_equal_parts(server, self.lowlevel, shared.boundaries)
        else:
            self._share_bus(server, TenantShared(commons.bus_for("") if commons is not None else _bus_of(server)))
        self.bus = server._subscriptions  # pyright: ignore[reportPrivateUsage]

    def _share_bus(self, server: MCPServer[Any], shared: TenantShared) -> None:
        # Only the SDK's in-process default (or what took its place when this object was hosted before) is replaced; a
        # bus that the author chose stays.
        if type(server._subscriptions) not in (InMemorySubscriptionBus, TenantBus):  # pyright: ignore[reportPrivateUsage]
            return
        self.relayed = shared
        server._subscriptions = shared.bus  # pyright: ignore[reportPrivateUsage]
        entry = self.lowlevel.get_request_handler("subscriptions/listen")
        if entry is None:
            # `subscriptions=False`: the author wants nobody to listen.
            return
        if type(entry.handler) in (ListenHandler, Listening):
            self.lowlevel.add_request_handler("subscriptions/listen", SubscriptionsListenRequestParams, shared.listen)
        if self.lowlevel.get_request_handler("resources/subscribe") is None:
            # What the modern era subscribes to by `subscriptions/listen`. The session keeps what it is subscribed to.
            self.lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, _accept)
            self.lowlevel.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, _accept)

    @property
    def lists(self) -> tuple[ServerEvent, ...]:
        """What says that each list has changed that it serves."""
        return tuple(event for event, method in _LISTS if self.lowlevel.get_request_handler(method) is not None)

    @property
    def filtered(self) -> bool:
        """Whether it hides anything from anybody, so that no call may run on it without a surface."""
        return self.hiding.filtering.active

    @property
    def init_options(self) -> InitializationOptions:
        """The `initialize` result's payload. List changes are announced: this runtime delivers them in both eras."""
        if self._init_options is not None:
            return self._init_options
        options = self.lowlevel.create_initialization_options(
            NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        )
        if self._shared is None:
            # One session asks once in its life: only for a server that all share it is worth its 3 KB.
            self._init_options = options
        return options

    def ignores(self, notification: str, params: dict[str, Any] | None) -> bool:
        """Whether the server would do nothing at all about a notification of this name.

        Most do not about `notifications/initialized`, which each session begins with.
        """
        if params and "_meta" in params:
            return False
        for middleware in self.lowlevel.middleware:
            kind = cast("object", type(middleware))
            if kind is TelemetryIfInstalled:
                if not _telemetry.idle:
                    return False
            elif kind is not RequestStateBoundary:
                return False
        return self.lowlevel.get_notification_handler(notification) is None


def _hiding_of(server: object, filtering: Filtering) -> Hiding:
    ours = not any(kind.__module__.partition(".")[0] == "fastmcp" for kind in type(server).__mro__)
    if ours or not (filtering.active or any_declared()):
        return Hiding(filtering)
    from .fastmcp_hiding import FastMCPHiding

    filtering.active = True
    return FastMCPHiding(cast("Any", server), filtering)


_LISTS: Final = tuple(zip(ALL_LISTS, ("tools/list", "prompts/list", "resources/list"), strict=True))


def _bus_of(server: MCPServer[Any]) -> TenantBus | None:
    """The bus that `server` was given when it was hosted before."""
    bus = server._subscriptions  # pyright: ignore[reportPrivateUsage]
    return bus if isinstance(bus, TenantBus) else None


async def _accept(ctx: object, params: object) -> EmptyResult:
    return EmptyResult()


def has_lifespan(hosted: HostedServer) -> bool:
    """Whether entering the server's lifespan does anything."""
    return hosted.lowlevel.lifespan is not no_lifespan
