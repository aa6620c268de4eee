"""How a tool's `session: Session` parameter is recognised and filled.

`Session` is an SDK resolver annotation, so the SDK itself leaves the parameter out of the tool's schema and any
transport can run the tool. The SDK's resolver machinery costs more than the whole call, though (300 us on 320), so a
hosted tool has its plan for that one resolver taken out, and a plain closure fills the parameter.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from mcp.server.mcpserver.tools import Tool

from .errors import HostingError
from .session import CURRENT, current_session

__all__ = ["SESSION_ARGUMENT", "fill_session_parameter", "takes_session"]

SESSION_ARGUMENT = "session"
"""The name of the state handle among a tool's arguments, in the modern era."""

_FILLED = "__understudy_session_parameters__"


def takes_session(tool: Tool) -> bool:
    """Whether `tool` declared a `Session` parameter (and has been through `fill_session_parameter`)."""
    return hasattr(tool.fn, _FILLED)


def fill_session_parameter(tool: Tool) -> bool:
    """Prepare `tool` in place; True if it takes a session. Idempotent, so servers may share `Tool` objects.

    Raises:
        HostingError: The tool takes a session and also has an argument of its own called `session`.
    """
    if not tool.resolved_params or takes_session(tool):
        return takes_session(tool)
    if all(plan.fn is not current_session for plan in tool.resolver_plans.values()):
        return False
    # May be empty: it is another parameter's resolver that takes the session, and the SDK's own machinery fills that.
    names = [name for name, (resolve, _) in tool.resolved_params.items() if resolve.fn is current_session]
    if SESSION_ARGUMENT in tool.parameters.get("properties", {}):
        raise HostingError(
            f"tool {tool.name!r} takes a Session and has an argument called {SESSION_ARGUMENT!r}, which clients of the "
            "2026-07-28 era need for the state handle; rename the argument"
        )
    tool.resolved_params = {name: plan for name, plan in tool.resolved_params.items() if name not in names}
    filled = _filled(tool.fn, names)
    setattr(filled, _FILLED, tuple(names))
    tool.fn = filled
    return True


def _filled(fn: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """`fn` with its session parameters filled. Never a coroutine function: what `fn` returns is awaited if need be."""
    if len(names) == 1:
        (name,) = names

        def fill_one(**arguments: Any) -> Any:
            arguments[name] = CURRENT.get() or current_session()
            return fn(**arguments)

        filled = fill_one
    else:

        def fill_all(**arguments: Any) -> Any:
            session = current_session()
            return fn(**arguments, **dict.fromkeys(names, session))

        filled = fill_all
    filled.__name__ = getattr(fn, "__name__", type(fn).__name__)
    filled.__doc__ = inspect.getdoc(fn)
    setattr(filled, "__wrapped__", fn)  # noqa: B010
    return filled
