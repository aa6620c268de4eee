"""`HostProcess`: one side of `understudy bench streams` in a process of its own, as the measuring process sees it."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import IO, Any

from .asgi import Refused
from .event_stream import EventStream
from .http_client import HttpConnection

__all__ = ["HOST", "HostProcess", "child_process", "host_process"]

HOST = "127.0.0.1"
ANSWER_DEADLINE = 60.0


class HostProcess:
    """A `stream_host` that serves."""

    def __init__(self, process: asyncio.subprocess.Process, said: IO[bytes]) -> None:
        self._process = process
        self._said = said
        self.port = 0
        self.began: Any = None
        """What it said when it was ready."""

    async def ready(self) -> None:
        """Return when it has begun. Raises `Refused` if it does not start."""
        self.began = await self._answer()

    async def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        return await self.ask("cpu")

    async def resident(self) -> float:
        """Its resident size in bytes, garbage collected first."""
        return await self.ask("resident")

    async def collect(self) -> None:
        """Collect its garbage now, so that nobody pays for what another measurement left behind."""
        await self.ask("collect")

    async def connect(self) -> HttpConnection:
        """A new connection for requests and their answers."""
        return await HttpConnection.open(HOST, self.port)

    async def stream(self) -> EventStream:
        """A new connection for one stream."""
        return await EventStream.open(HOST, self.port)

    async def ask(self, command: str) -> Any:
        """What it answers to one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> Any:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(ANSWER_DEADLINE):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise Refused(f"a host does not answer:\n{self._last_words()}") from None
        if not line:
            raise Refused(f"a host has ended:\n{self._last_words()}")
        return json.loads(line)

    def _last_words(self) -> str:
        self._said.seek(max(0, self._said.seek(0, 2) - 4096))
        return self._said.read().decode(errors="replace")

    def kill(self) -> None:
        """End it outright, as `kill -9` does."""
        if self._process.returncode is None:
            self._process.kill()

    async def wait(self) -> None:
        """Return when it has ended."""
        await self._process.wait()


@asynccontextmanager
async def host_process(side: str, http: str, **options: Any) -> AsyncGenerator[HostProcess]:
    """A process that serves `side`; ended outright at the end: what it would still do in order is not measured.

    Raises:
        Refused: It does not start.
    """
    async with child_process("understudy.bench.stream_host", {"side": side, "http": http, **options}) as host:
        host.port = int(host.began)
        yield host


@asynccontextmanager
async def child_process(module: str, options: dict[str, Any]) -> AsyncGenerator[HostProcess]:
    """A process of a module that takes its options as JSON, says a line when it is ready, and answers lines.

    Raises:
        Refused: It does not start.
    """
    with tempfile.TemporaryFile(prefix="understudy-bench-host-") as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            json.dumps(options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
        )
        host = HostProcess(process, said)
        try:
            await host.ready()
            yield host
        finally:
            host.kill()
            await host.wait()
