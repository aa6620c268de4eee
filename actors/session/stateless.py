"""Modern-era calls that belong to no session: served where they arrive."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from mcp.server.runner import ServerRunner

from .connection import envelope_connection
from .current_tenant import STATELESS
from .dispatch import CallDispatch
from .errors import RequestCancelled
from .hiding import unheard
from .hosting import HostedServer
from .messages import Call
from .session import CURRENT

__all__ = ["learn_tools", "serve_stateless"]


async def learn_tools(call: Call, hosted: HostedServer) -> None:
    """Have `hosted` learn what its tools are, with the envelope of one modern-era request.

    Raises:
        RequestCancelled: `call.cancel()` was called.
    """
    assert call.route is not None
    connection = envelope_connection(call.route)
    CURRENT.set(None)
    STATELESS.set(call.tenant)
    runner = ServerRunner(hosted.lowlevel, connection, hosted.lifespan_state)
    try:
        await call.run(hosted.learn_tools(runner, CallDispatch(call, None), meta=(call.params or {}).get("_meta")))
    finally:
        await connection.aclose()


def _resources(params: dict[str, Any] | None) -> list[Any]:
    """What `subscriptions/listen` names, whatever is wrong with it: that is the SDK's to say."""
    wanted: Any = (params or {}).get("notifications")
    uris: Any = cast("dict[str, Any]", wanted).get("resourceSubscriptions") if isinstance(wanted, dict) else None
    return cast("list[Any]", uris) if isinstance(uris, list) else []


async def serve_stateless(call: Call, hosted: HostedServer) -> dict[str, Any]:
    """Run one modern-era request on the tenant's surface and return its result.

    Raises:
        RequestCancelled: `call.cancel()` was called.
        Whatever the handler raises.
    """
    assert call.route is not None
    connection = envelope_connection(call.route)
    dispatch = CallDispatch(call, None)
    CURRENT.set(None)
    STATELESS.set(call.tenant)
    try:
        if call.cancelled:
            raise RequestCancelled
        ask = ServerRunner(hosted.lowlevel, connection, hosted.lifespan_state).on_request
        if call.surface is None:
            return await call.run(ask(dispatch, call.method, call.params))
        if call.method == "subscriptions/listen":
            call.unheard = await unheard(hosted, call.surface, _resources(call.params))
        hidden = hosted.hiding.ask(call.surface, partial(ask, dispatch, call.method), call.method, call.params)
        return await call.run(hidden)
    finally:
        dispatch.close()
        await connection.aclose()
