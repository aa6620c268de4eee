"""Nothing of a call is left to the garbage collector, which halts everybody while it looks for it."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from edge.client import hosting, hosting_modern
from edge.server import make_server
from starlette.requests import Request as HTTPRequest
from understudy.runtime import Limits, TenantContext

CALLS = 20


@contextmanager
def garbage() -> Generator[Counter[str]]:
    """What became garbage inside that only the collector can free, by type: known at the end."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    flags = gc.get_debug()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.update(type(each).__qualname__ for each in gc.garbage)
    finally:
        gc.garbage.clear()
        gc.set_debug(flags)
        gc.enable()


async def leaves_nothing(ask: Callable[[], Awaitable[object]]) -> None:
    for _ in range(CALLS):
        await ask()
    with garbage() as found:
        for _ in range(CALLS):
            await ask()
    # What is kept for a while and then renewed, caches say, is not of each call.
    assert found.total() < CALLS, found


def everybody(request: HTTPRequest) -> TenantContext:
    return TenantContext("t", "p")


@pytest.mark.parametrize("tool", ["increment", "count"])
async def test_a_call_of_a_session_leaves_nothing_to_the_collector(tool: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/sessions.db"
    async with hosting(make_server(), store=store, tenants=everybody, limits=Limits(calls_in_flight=9)) as client:
        await client.open()
        await leaves_nothing(lambda: client.tool(tool))


async def test_a_read_and_a_notification_leave_nothing_to_the_collector() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        await leaves_nothing(lambda: client.ask("tools/list"))
        await leaves_nothing(lambda: client.notify("notifications/roots/list_changed"))


async def test_a_call_without_a_session_leaves_nothing_to_the_collector() -> None:
    async with hosting_modern(make_server(), tenants=everybody) as client:
        await leaves_nothing(lambda: client.ask("tools/list"))
        await leaves_nothing(lambda: client.begin_tool("echo", {"value": 1}).answered())


async def test_a_call_with_a_handle_leaves_nothing_to_the_collector() -> None:
    async with hosting_modern(make_server()) as client:
        handle = await client.handle()
        headers = {"mcp-param-session": handle}
        await leaves_nothing(lambda: client.tool("increment", {"session": handle}, headers=headers))
