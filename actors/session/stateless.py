"""Modern-era calls that belong to no session: served where they arrive."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from mcp.server.runner import ServerRunner

from .connection import envelope_connection
from .dispatch import CallDispatch
from .errors import RequestCancelled
from .hiding import unheard
from .hosting import HostedServer
from .kernel import on_request
from .messages import Call
from .session import CURRENT
from .tenants.foreign import refuse_foreign_uris
from .tenants.helpers import TenantHelpers
from .tenants.redacting import redacted_error, redacted_result
from .tenants.running import RUNNING, Running

__all__ = ["learn_tools", "serve_stateless"]


async def learn_tools(call: Call, hosted: HostedServer, helpers: TenantHelpers | None) -> None:
    """Have `hosted` learn what its tools are, with the envelope of one modern-era request.

    Raises:
        RequestCancelled: `call.cancel()` was called.
    """
    assert call.route is not None
    connection = envelope_connection(call.route)
    CURRENT.set(None)
    RUNNING.set(Running(call.tenant, helpers))
    runner = ServerRunner(hosted.lowlevel, connection, hosted.lifespan_state)
    try:
        await call.run(hosted.tools.learn(runner, CallDispatch(call, None), meta=(call.params or {}).get("_meta")))
    finally:
        await connection.aclose()


def _resources(params: dict[str, Any] | None) -> list[Any]:
    """What `subscriptions/listen` names, whatever is wrong with it: that is the SDK's to say."""
    wanted: Any = (params or {}).get("notifications")
    uris: Any = cast("dict[str, Any]", wanted).get("resourceSubscriptions") if isinstance(wanted, dict) else None
    return cast("list[Any]", uris) if isinstance(uris, list) else []


async def serve_stateless(call: Call, hosted: HostedServer, helpers: TenantHelpers | None) -> dict[str, Any]:
    """Run one modern-era request on the tenant's surface and return its result.

    Raises:
        LimitExceeded: The tenant has used as much as it may.
        RequestCancelled: `call.cancel()` was called.
        Whatever the handler raises.
    """
    assert call.route is not None
    connection = envelope_connection(call.route)
    dispatch = CallDispatch(call, None)
    CURRENT.set(None)
    RUNNING.set(Running(call.tenant, helpers))
    try:
        if call.cancelled:
            raise RequestCancelled
        allowance = call.allowance
        if allowance is not None:
            tool = (call.params or {}).get("name") if call.method == "tools/call" else None
            beginning = allowance.begin(call, stateful=False, read_only=hosted.tools.is_read_only(tool))
            if beginning is not None:
                await call.run(beginning)
        refuse_foreign_uris(call.method, call.params, call.tenant.tenant)
        ask = on_request(ServerRunner(hosted.lowlevel, connection, hosted.lifespan_state))
        if call.surface is None:
            work = ask(dispatch, call.method, call.params)
        else:
            if call.method == "subscriptions/listen":
                call.unheard = await unheard(hosted, call.surface, _resources(call.params))
            work = hosted.hiding.ask(call.surface, partial(ask, dispatch, call.method), call.method, call.params)
        result = redacted_result(helpers, await call.run(work))
        if allowance is not None and allowance.bounds_results:
            allowance.check_result(call, result, stateful=False)
        return result
    except Exception as error:
        if (told := redacted_error(helpers, error)) is not error:
            raise told from None
        raise
    finally:
        dispatch.close()
        await connection.aclose()
