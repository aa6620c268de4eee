"""`understudy bench coldstart`: from the start of a process to the first answer of a session that sleeps in a store."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import NamedTuple

from ..runtime.commands.child import ServeProcess
from ..runtime.commands.serve import bind
from .clients import HandshakeClient, PreparedCall
from .cold_server import TOOL, server
from .cpu_time import cpu_seconds
from .fleet import HTTP, described_nodes
from .http_client import HttpConnection, RemoteSession
from .local_stores import LocalStore, local_sqlite, local_stores
from .measure import Effort, Progress
from .report import Report, Scenario, Series, Target, ratio
from .servers import ARGUMENTS
from .sides import understudy_app

__all__ = ["bench_coldstart"]

TARGET = Target("at most", 1.5)
HOST = "127.0.0.1"
TARGET_SPEC = "understudy.bench.cold_server:server"
SESSION_TTL = 3600.0


class Start(NamedTuple):
    """One process, until its first answer."""

    seconds: float
    cpu: float
    """Seconds of processor time of that process: what does not depend on who else uses the machine."""


async def bench_coldstart(effort: Effort, progress: Progress) -> Report:
    """Measure; a round is one fresh process of each side, one after the other."""
    async with AsyncExitStack() as stack:
        stores = [local_sqlite(stack)] if effort.quick else await local_stores(stack, progress)
        sleepers = [(store, await _asleep(store)) for store in stores]
        starts: list[Callable[[], Awaitable[Start]]] = [_bare, *(partial(_woken, *each) for each in sleepers)]
        # Files are in the page cache before anything is measured, for all sides alike.
        for start in [] if effort.quick else starts:
            progress("warming up")
            await start()
        found: list[list[Start]] = [[] for _ in starts]
        for number in range(effort.rounds):
            progress(f"round {number + 1}/{effort.rounds}")
            for place in range(len(starts)):
                index = (place + number) % len(starts)
                found[index].append(await starts[index]())
    names = ["mcp alone, no session", *(f"understudy serve, {store.name}" for store in stores)]
    on = described_nodes(HTTP)
    scenarios = (
        _scenario(
            f"from exec to the answer of the first call ({on})",
            names,
            [[1000 * it.seconds for it in each] for each in found],
        ),
        _scenario(
            "processor time of that process until then", names, [[1000 * it.cpu for it in each] for each in found]
        ),
    )
    return Report("coldstart", scenarios, effort.quick)


def _scenario(title: str, names: Sequence[str], milliseconds: Sequence[Sequence[float]]) -> Scenario:
    floor, *series = (Series(name, "ms", tuple(figures)) for name, figures in zip(names, milliseconds, strict=True))
    comparisons = tuple(ratio(f"{each.name} / mcp alone", each, floor, TARGET) for each in series)
    return Scenario(title, (floor, *series), comparisons)


async def _asleep(store: LocalStore) -> str:
    """The id of a session that was opened and called, and is in the store alone."""
    async with understudy_app(server, store=store.url, session_ttl=SESSION_TTL) as app:
        client = await HandshakeClient.open(app)
        await client.call(PreparedCall(TOOL, ARGUMENTS))
    return client.session_id


async def _bare() -> Start:
    """The process that has no session."""
    with bind(HOST, 0) as listening:
        started = time.perf_counter()
        process = subprocess.Popen(  # noqa: ASYNC220 - as `ServeProcess` does it: both are timed from here
            [sys.executable, "-P", "-m", "understudy.bench.cold_baseline", HTTP, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
        )
        try:
            return await _answered(listening, None, process.pid, started)
        finally:
            process.kill()
            process.wait()


async def _woken(store: LocalStore, session_id: str) -> Start:
    """A node on the store, and the session that sleeps there."""
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("UNDERSTUDY_")}
    args = ["serve", TARGET_SPEC, "--http", HTTP, "--store", store.url, "--log-level", "warning"]
    with bind(HOST, 0) as listening:
        started = time.perf_counter()
        process = ServeProcess(args, listen=listening, environment=environment)
        try:
            return await _answered(listening, session_id, process.pid, started)
        finally:
            process.kill()
            process.close(0)


async def _answered(listening: socket.socket, session_id: str | None, pid: int, started: float) -> Start:
    # The request waits in the listening socket until somebody takes it: nobody polls.
    connection = await HttpConnection.open(HOST, listening.getsockname()[1])
    try:
        await RemoteSession(session_id).call(connection, PreparedCall(TOOL, ARGUMENTS))
        return Start(time.perf_counter() - started, cpu_seconds(pid))
    finally:
        connection.close()
