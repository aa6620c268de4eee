"""Servers that the host program makes: one for each session."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, cast

from ..foreign_errors import ends_the_task
from .errors import HostingError
from .hosting import is_server

__all__ = ["ServerFactory", "make_server"]

ServerFactory = Callable[[Any], Any | Awaitable[Any]]


async def make_server(factory: ServerFactory, tenant: object, *, timeout: float) -> object:
    """What `factory(tenant)` returns, awaited if need be.

    Raises:
        HostingError: It raised, did not return a server, or took longer than `timeout` seconds.
    """
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            made = factory(tenant)
            if inspect.isawaitable(made):
                made = await made
    except BaseException as error:
        if ends_the_task(error):
            raise
        if limit.expired():
            raise HostingError(
                f"the server factory took longer than {timeout} s; do slow work in the server's lifespan"
            ) from None
        # Its text may tell of the inside of the server; the client gets none of it.
        raise HostingError(f"the server factory raised {error!r}") from error
    if not is_server(made):
        raise HostingError(
            f"the server factory returned {type(made).__name__!r}; it must return an MCPServer, a low-level Server or "
            "a FastMCP server"
        )
    return cast("object", made)
