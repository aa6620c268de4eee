"""The SDK's kernel for one message: what a `ServerRunner` does with it."""

from __future__ import annotations

from typing import Final

from mcp.server.runner import ServerRunner

__all__ = ["on_notify", "on_request"]

# The properties without their cache: the runner lives for one message. The cache costs a lock, and a bound method that
# its own object holds is left to the garbage collector.
on_request: Final = ServerRunner.on_request.func
"""`on_request(runner)`: what takes a request's dispatch context, method and params, and returns its result."""
on_notify: Final = ServerRunner.on_notify.func
"""The same for a notification, which has no result."""
