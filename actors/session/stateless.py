"""Modern-era calls that belong to no session: served where they arrive."""

from __future__ import annotations

from typing import Any

import anyio
from mcp.server.runner import ServerRunner

from .connection import envelope_connection
from .dispatch import CallDispatch
from .errors import RequestCancelled
from .hosting import HostedServer
from .messages import Call
from .session import CURRENT

__all__ = ["serve_stateless"]


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
    try:
        with anyio.CancelScope() as scope:
            call.scope = scope
            if call.cancelled:
                raise RequestCancelled
            runner = ServerRunner(hosted.lowlevel, connection, hosted.lifespan_state)
            result = await runner.on_request(dispatch, call.method, call.params)
        if scope.cancelled_caught:
            raise RequestCancelled
        return result  # pyright: ignore[reportPossiblyUnboundVariable]
    finally:
        call.scope = None
        dispatch.close()
        await connection.aclose()
