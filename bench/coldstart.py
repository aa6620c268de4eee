"""`understudy bench coldstart`: from the start of a process to the first answer of a session that sleeps in a store."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import NamedTuple

from ..runtime.commands.child import ServeProcess
from ..runtime.commands.serve import bind
from ..stores import Address, open_store
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
Environment = Mapping[str, str | None]
"""What is put over this process's own; None takes a variable out."""


class Start(NamedTuple):
    """One process, until its first answer."""

    seconds: float
    cpu: float
    """Seconds of processor time of that process: what does not depend on who else uses the machine."""


async def bench_coldstart(effort: Effort, progress: Progress, urls: Sequence[str] = ()) -> Report:
    """Measure with the stores at `urls`, or without any with each that this machine has a server for. A round is one
    fresh process of each side, one after the other.

    Raises:
        StoreURLError, StoreError: A store cannot be opened.
        Refused: A process does not answer.
    """
    async with AsyncExitStack() as stack:
        stores = [LocalStore(url.partition(":")[0], url) for url in urls]
        if not stores:
            stores = [local_sqlite(stack)] if effort.quick else await local_stores(stack, progress)
        sleepers = [(store, await _asleep(store, stack)) for store in stores]
        environment = _environment(stack, keep_bytecode=not effort.quick)
        starts: list[Callable[[], Awaitable[Start]]] = [
            partial(_bare, environment),
            *(partial(_woken, environment, *each) for each in sleepers),
        ]
        # Files are in the page cache and compiled before anything is measured, for all sides alike.
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


async def _asleep(store: LocalStore, stack: AsyncExitStack) -> str:
    """The id of a session that was opened and called, and is in the store alone, until `stack` ends."""
    async with understudy_app(server, store=store.url, session_ttl=SESSION_TTL) as app:
        client = await HandshakeClient.open(app)
        await client.call(PreparedCall(TOOL, ARGUMENTS))
    stack.push_async_callback(_removed, store, client.session_id)
    return client.session_id


async def _removed(store: LocalStore, session_id: str) -> None:
    opened = await open_store(store.url)
    try:
        await opened.delete(Address("session", session_id))
    finally:
        await opened.aclose()


def _environment(stack: AsyncExitStack, *, keep_bytecode: bool) -> Environment:
    """For the processes of all sides.

    An installed package has its bytecode beside it, and what runs from a checkout may not: with
    PYTHONDONTWRITEBYTECODE one side would compile itself at every start, and the other not. Both keep theirs in a
    folder that goes with `stack`.
    """
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("UNDERSTUDY_")}
    if keep_bytecode:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="understudy-bench-bytecode-"))
        environment |= {"PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": None}
    return environment


async def _bare(environment: Environment) -> Start:
    """The process that has no session."""
    changed = {**os.environ, **environment}
    with bind(HOST, 0) as listening:
        started = time.perf_counter()
        process = subprocess.Popen(  # noqa: ASYNC220 - as `ServeProcess` does it: both are timed from here
            [sys.executable, "-P", "-m", "understudy.bench.cold_baseline", HTTP, str(listening.fileno())],
            env={name: value for name, value in changed.items() if value is not None},
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
        )
        try:
            return await _answered(listening, None, process.pid, started)
        finally:
            process.kill()
            process.wait()


async def _woken(environment: Environment, store: LocalStore, session_id: str) -> Start:
    """A node on the store, and the session that sleeps there."""
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
