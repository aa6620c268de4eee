"""The SDK's OpenTelemetry middleware, out of the way where nobody listens."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from opentelemetry import trace
from opentelemetry.trace import ProxyTracerProvider

__all__ = ["TelemetryIfInstalled"]


class TelemetryIfInstalled:
    """Calls `inner` only if a tracer provider is installed, or the client sent a trace context to pass on.

    Without either, the SDK's middleware opens a span that records nothing, for a quarter of the kernel's time.
    """

    __slots__ = ("_inner",)

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Awaitable[HandlerResult]:
        if type(trace.get_tracer_provider()) is ProxyTracerProvider and not (ctx.meta and "traceparent" in ctx.meta):
            return call_next(ctx)
        return self._inner(ctx, call_next)
