"""What `understudy bench memory` runs in processes of their own: `python -m understudy.bench.probe NAME JSON`.

A process that has done nothing else is the only one whose resident size means something. Each probe prints one JSON
object on its standard output.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from .asgi import ASGIApp
from .clients import HandshakeClient, PreparedCall
from .measure import in_flight
from .node_tables import TABLES
from .servers import ARGUMENTS, INCREMENT, TOOL, shared_tools_factory, ten_tools
from .sides import sdk_app, understudy_app

__all__ = ["PROBES", "resident_bytes"]

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """The resident size of this process, garbage collected first."""
    gc.collect()
    return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def live(side: str, before: int, sessions: int) -> dict[str, Any]:
    """Resident bytes for each of `sessions` live sessions, counted after `before` others: caches full, code loaded.

    A session here has been opened, initialized and has answered one call.
    """
    async with _HOSTS[side]() as app:
        return {"bytes": await _growth(app, before, sessions)}


async def passivated(store: str, before: int, sessions: int, room: int) -> dict[str, Any]:
    """The same, where no more than `room` sessions stay in memory: what a session leaves behind when it goes."""
    async with understudy_app(ten_tools(), store=store, max_sessions=room) as app:
        return {"bytes": await _growth(app, before, sessions)}


async def _growth(app: ASGIApp, before: int, sessions: int) -> float:
    await _open(app, before)
    floor = resident_bytes()
    await _open(app, sessions)
    return (resident_bytes() - floor) / sessions


async def asleep(store: str, ids: list[str]) -> dict[str, Any]:
    """Wake the sessions `ids`, one after the other: seconds of the first call to each, and the resident size after."""
    async with understudy_app(ten_tools(sessions=True), store=store, max_sessions=len(ids) + 1) as app:
        call = PreparedCall(INCREMENT, {})
        seconds: list[float] = []
        for session_id in ids:
            client = HandshakeClient(app, session_id)
            started = time.perf_counter()
            await client.call(call)
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds, "resident": resident_bytes()}


async def table(kind: str, entries: int) -> dict[str, Any]:
    """Resident bytes of one of a node's tables of the cluster with `entries` entries, all of them its own."""
    fill = TABLES[kind]
    fill(100)
    floor = resident_bytes()
    kept = fill(entries)
    grown = resident_bytes() - floor
    del kept
    return {"bytes": grown}


async def _open(app: ASGIApp, sessions: int) -> None:
    call = PreparedCall(TOOL, ARGUMENTS)

    async def open_and_call() -> None:
        await (await HandshakeClient.open(app)).call(call)

    await in_flight([open_and_call] * AT_ONCE)(sessions)


AT_ONCE = 5
"""Sessions that a probe opens side by side: few, so that they leave no peak in memory."""

_PLENTY = 1_000_000

_HOSTS: dict[str, Callable[[], AbstractAsyncContextManager[ASGIApp]]] = {
    "sdk": lambda: sdk_app(ten_tools(), json_response=False),
    "factory": lambda: understudy_app(shared_tools_factory, max_sessions=_PLENTY),
    "shared": lambda: understudy_app(ten_tools(), max_sessions=_PLENTY),
}

PROBES: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
    "live": live,
    "passivated": passivated,
    "asleep": asleep,
    "table": table,
}


async def main() -> None:
    name, arguments = sys.argv[1], json.loads(sys.stdin.read())
    json.dump(await PROBES[name](**arguments), sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
