"""`LocalNode`: one node of a cluster on this machine, kept running in a process of its own."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from .child import ServeProcess
from .config import format_duration

__all__ = ["LocalNode", "Say"]

Say = Callable[[str, str], None]
"""Takes a line that somebody (a node's id; "nats"; "cluster") has said."""

POLL = 0.05
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
SETTLED = 10.0
"""Seconds that a process must have lived for its end to count as the first."""
USAGE_ERROR = 2
"""The exit code of `serve` for what will not be better tomorrow."""
LONGEST_LINE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node listens."""

    host: str
    port: int
    tls: bool = False


class LocalNode:
    """Runs `understudy serve ARGS`, and again whenever it ends, until `stop`."""

    def __init__(
        self,
        name: str,
        url: str,
        endpoint: Endpoint,
        args: Sequence[str],
        environment: Mapping[str, str | None],
        say: Say,
    ) -> None:
        """`endpoint` is where it can be asked whether it is ready."""
        self.name = name
        self.url = url
        self.starts = 0
        self.given_up: int | None = None
        """The exit code with which it ended for good."""
        self.process: ServeProcess | None = None
        """The present one, or the last."""
        self._endpoint = endpoint
        self._args = list(args)
        self._environment = dict(environment)
        self._say = say
        self._stopping = False

    @property
    def pid(self) -> int:
        """Of the present process; 0 while there is none."""
        process = self.process
        return process.pid if process is not None and process.exit_code is None else 0

    async def keep_running(self) -> None:
        """Start it, pass on what it says, start it again when it ends. Ends when it gave up, or was stopped.

        Cancelled, it leaves the process as it is: `stop` ends it.
        """
        pause = FIRST_PAUSE
        while not self._stopping:
            began = time.monotonic()
            try:
                code = await self._run_once()
            except OSError as error:
                # No more processes, memory or descriptors: there may be some again.
                self._say("cluster", f"{self.name} cannot be started: {error}")
                code = 1
            if self._stopping:
                return
            if code == USAGE_ERROR:
                self.given_up = code
                self._say("cluster", f"{self.name} cannot run as it was told to (exit code {code}): given up")
                return
            if time.monotonic() - began >= SETTLED:
                pause = FIRST_PAUSE
            self._say("cluster", f"{self.name} {_ended(code)}; starting it again in {format_duration(pause)}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _run_once(self) -> int:
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", buffering=0) as read_end:
            with os.fdopen(writing, "wb", buffering=0) as write_end:
                process = ServeProcess(self._args, stdout=write_end, stderr=write_end, environment=self._environment)
            self.process = process
            self.starts += 1
            async with asyncio.TaskGroup() as tasks:
                passing_on = tasks.create_task(self._pass_on(read_end))
                while process.exit_code is None:  # noqa: ASYNC110 - a process tells nobody
                    await asyncio.sleep(POLL)
                # What it said last is still in the pipe; a process of its own that it left behind may hold it open.
                await asyncio.wait((passing_on,), timeout=0.5)
                passing_on.cancel()
        return process.close(0.0)

    async def _pass_on(self, pipe: IO[bytes]) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(pipe.fileno()), "rb", buffering=0)
        )
        rest = b""
        try:
            while chunk := await reader.read(LONGEST_LINE):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._say(self.name, line.decode(errors="replace"))
        finally:
            if rest:
                self._say(self.name, rest.decode(errors="replace"))
            transport.close()

    def is_ready(self) -> bool:
        """Whether it answers that it takes new work. Blocks for up to 2 seconds."""
        endpoint = self._endpoint
        if endpoint.tls:
            # This asks the process that was just started here, whatever name its certificate has.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                endpoint.host, endpoint.port, timeout=2.0, context=context
            )
        else:
            connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=2.0)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self) -> int:
        """End the present process outright; its id. It is started again."""
        pid = self.pid
        if pid:
            os.kill(pid, signal.SIGKILL)
        return pid

    def terminate(self) -> int:
        """Ask the present process to stop; its id. It is started again when it has."""
        pid = self.pid
        if pid and self.process is not None:
            self.process.terminate()
        return pid

    async def stop(self, grace: float) -> int | None:
        """End it for good: in order, outright after `grace` seconds; its exit code, None if it never ran.

        Cancelled, it is killed.
        """
        self._stopping = True
        process = self.process
        if process is None:
            return None
        try:
            if process.exit_code is None:
                process.terminate()
            deadline = time.monotonic() + grace
            while process.exit_code is None and time.monotonic() < deadline:  # noqa: ASYNC110 - as above
                await asyncio.sleep(POLL / 2)
        finally:
            with suppress(ProcessLookupError):
                if process.exit_code is None:
                    process.kill()
            process.close(0.0)
        return process.exit_code


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
