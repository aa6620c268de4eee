"""`Fleet`: nodes of one cluster, in the processes that `understudy serve` runs, to be called, killed and paused."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import IO

from ..runtime.commands.child import ServeProcess
from ..runtime.commands.config import ServeOptions
from ..runtime.commands.serve import bind
from .asgi import Refused
from .http_client import HttpConnection, get

__all__ = ["CLUSTER", "Fleet", "FleetNode", "described_nodes", "fleet"]

HOST = "127.0.0.1"
CLUSTER = "bench"
HTTP = ServeOptions().http
"""The HTTP server that `understudy serve` takes by itself."""
TARGET = "understudy.bench.hosted:server"
START_DEADLINE = 60.0
STOP_GRACE = 10.0


def described_nodes(http: str = HTTP) -> str:
    """What nodes run on, for the title of a figure."""
    return f"{http}, {'uvloop' if find_spec('uvloop') is not None else 'the standard loop'}"


class FleetNode:
    """One node. Its port stays the same over all its starts."""

    def __init__(self, number: int, target: str, args: list[str], environment: dict[str, str | None]) -> None:
        self.number = number
        self.name = f"node-{number}"
        self._args = ["serve", target, *args, "--node", self.name]
        self._environment = environment
        self._socket: socket.socket = bind(HOST, 0)
        self.port: int = self._socket.getsockname()[1]
        self._said: IO[bytes] = tempfile.TemporaryFile(prefix="understudy-bench-node-")  # noqa: SIM115 - `close` does
        self._process: ServeProcess | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the node was not started"
        return self._process.pid

    def start(self) -> None:
        """Start a process for it; `ready` waits for that."""
        self._process = ServeProcess(
            self._args, listen=self._socket, stdout=self._said, stderr=self._said, environment=self._environment
        )

    async def ready(self) -> None:
        """Return when it takes new work.

        Raises:
            Refused: It has ended, or does not become ready; the message ends with what it said.
        """
        deadline = time.monotonic() + START_DEADLINE
        while await get(HOST, self.port, "/readyz") != 200:
            ended = self._process is None or self._process.exit_code is not None
            if ended or time.monotonic() > deadline:
                raise Refused(f"{self.name} {'ended' if ended else 'is not ready'}:\n{self.last_words()}")
            await asyncio.sleep(0.02)

    async def connect(self) -> HttpConnection:
        """A new connection to it."""
        return await HttpConnection.open(HOST, self.port)

    def kill(self) -> None:
        """SIGKILL, as `kill -9` does; returns when the process is gone."""
        assert self._process is not None
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: it stands still with all its connections open. Returns when it does."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def last_words(self) -> str:
        """The end of what it has printed."""
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 4096))
        return self._said.read().decode(errors="replace")

    def ask_to_stop(self) -> None:
        """SIGTERM, if it runs."""
        if self._process is not None and self._process.exit_code is None:
            self.resume()
            self._process.terminate()

    async def close(self) -> None:
        """Stop it in order, or outright if it takes long."""
        try:
            if self._process is not None:
                await asyncio.to_thread(self._process.close, STOP_GRACE)
        finally:
            self._socket.close()
            self._said.close()


class Fleet:
    """The nodes of one cluster."""

    def __init__(self, nodes: list[FleetNode]) -> None:
        self.nodes = nodes

    def pids(self) -> list[int]:
        """Of all nodes."""
        return [node.pid for node in self.nodes]


@asynccontextmanager
async def fleet(nats: str, *args: str, nodes: int = 3, http: str = HTTP, target: str = TARGET) -> AsyncGenerator[Fleet]:
    """`nodes` nodes that are ready, of a cluster that keeps its sessions in the NATS at the URL `nats`.

    `args`: further options of `understudy serve`; `target`: what they host. The caller's own UNDERSTUDY_ variables are
    not heeded: a benchmark measures what it says.

    Raises:
        Refused: A node does not start.
    """
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("UNDERSTUDY_")}
    environment["UNDERSTUDY_NATS"] = nats
    options = ["--cluster", CLUSTER, "--http", http, "--log-level", "warning", "--drain-timeout", "2s"]
    options += ["--lame-duck", "0", *args]
    async with AsyncExitStack() as stack:
        started = [FleetNode(number, target, options, environment) for number in range(1, nodes + 1)]
        for node in started:
            stack.push_async_callback(node.close)
            node.start()
        for node in started:
            stack.callback(node.ask_to_stop)
        for node in started:
            await node.ready()
        yield Fleet(started)
