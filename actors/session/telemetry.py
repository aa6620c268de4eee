"""The SDK's OpenTelemetry middleware, out of the way where nobody listens."""

from __future__ import annotations

from collections.abc import Awaitable
from time import monotonic
from typing import Any, Final

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from opentelemetry import trace
from opentelemetry.trace import ProxyTracerProvider

from .current_tenant import tenant_here

__all__ = ["TENANT_ATTRIBUTE", "TelemetryIfInstalled"]


TENANT_ATTRIBUTE: Final = "understudy.tenant"
"""What a span says of whose call it is."""

_LOOK_EVERY: Final = 1.0
"""Seconds between two looks for a tracer provider: the look costs 2 us, and an application installs one once."""


class _Listener:
    """Whether a tracer provider is installed."""

    __slots__ = ("_looked", "_there")

    def __init__(self) -> None:
        self._looked = float("-inf")
        self._there = False

    def is_there(self) -> bool:
        if not self._there and (now := monotonic()) - self._looked >= _LOOK_EVERY:
            self._looked = now
            self._there = type(trace.get_tracer_provider()) is not ProxyTracerProvider
        return self._there


_listener = _Listener()


class TelemetryIfInstalled:
    """Calls `inner` only if a tracer provider is installed, or the client sent a trace context to pass on.

    Without either, the SDK's middleware opens a span that records nothing, for a quarter of the kernel's time. A
    provider that is installed later is noticed within a second.
    """

    __slots__ = ("_inner",)

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Awaitable[HandlerResult]:
        if not _listener.is_there():
            if not (ctx.meta and "traceparent" in ctx.meta):
                return call_next(ctx)
            return self._inner(ctx, call_next)

        def named(ctx: ServerRequestContext[Any, Any]) -> Awaitable[HandlerResult]:
            # Inside the span that `inner` has opened. The principal is a person, and stays out of it.
            tenant = tenant_here()
            if tenant is not None:
                trace.get_current_span().set_attribute(TENANT_ATTRIBUTE, tenant.tenant)
            return call_next(ctx)

        return self._inner(ctx, named)

    @property
    def idle(self) -> bool:
        """Whether a message that carries no trace context passes unobserved."""
        return not _listener.is_there()
