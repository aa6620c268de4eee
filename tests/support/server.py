"""A server under test in its own process: started, watched, killed and started again on the same port."""

import asyncio
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from .forked_process import UNBUFFERED, Process, await_stop, start_process
from .patience import PATIENCE
from .ports import free_port

ROOT = Path(__file__).resolve().parents[2]
UNDERSTUDY = (str(Path(sys.executable).with_name("understudy")), "serve")
SDK = (sys.executable, str(Path(__file__).with_name("sdk.py")))
"""The same target on the SDK's own HTTP stack; tells a fault of ours from a fault of the test."""


class StartError(RuntimeError):
    """The server ended, or did not become ready in time. The message holds what it printed."""


class ServerProcess:
    """`understudy serve TARGET ARGS --port PORT` as a subprocess, in its own process group, its output kept in a file.

    Usable as `with` or `async with` (which never blocks the event loop). `stop`, `kill` and `start` may be called in
    between, any number of times; port, arguments and so the store stay the same. `stop`, `kill` and `start` have
    asynchronous twins `astop`, `akill` and `astart`.

    Args:
        target: `module:attr` or `file.py:attr`, the file relative to the repository.
        args: further options, e.g. `"--store", "memory://"`.
        env: added to the environment of the tests; `UNDERSTUDY_*` of the caller's own environment is not passed on.
        port: a free one by default.
        command: what to run in place of `understudy serve`.
        ready: path that must answer 200 before the server counts as started; None: a TCP connection is enough.
        start_timeout: seconds to wait for that.
        stop_timeout: seconds that `stop` waits after SIGTERM before it kills.
        fresh: start it as the command line would, whatever that costs: the start is what the test is about.
        supervises: it starts processes itself, which are forked too.
    """

    def __init__(
        self,
        target: str,
        *args: str,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        command: Sequence[str] = UNDERSTUDY,
        ready: str | None = "/readyz",
        start_timeout: float = PATIENCE,
        stop_timeout: float = PATIENCE,
        fresh: bool = False,
        supervises: bool = False,
    ) -> None:
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self.command = [*command, target, "--host", self.host, "--port", str(self.port), *args]
        self.starts = 0
        self._env = {key: value for key, value in os.environ.items() if not key.startswith("UNDERSTUDY_")}
        self._env |= {**UNBUFFERED, **(env or {})}
        self._ready = ready
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._fresh = fresh
        self._supervises = supervises
        self._process: Process | None = None
        self._group_lives = False
        self._log: Path | None = None

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The MCP endpoint, at the default path."""
        return f"{self.base_url}/mcp"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """Everything that the server printed so far, over all its starts."""
        return self._log.read_text(errors="replace") if self._log else ""

    def start(self) -> None:
        """Start and wait until ready.

        Raises:
            StartError: it ended at once or was not ready in time; nothing is left running.
        """
        assert not self.running, "the server runs already"
        if self._log is None:
            handle, name = tempfile.mkstemp(prefix="understudy-test-", suffix=".log")
            os.close(handle)
            self._log = Path(name)
        with self._log.open("ab") as log:
            self._process = start_process(
                self.command, cwd=ROOT, env=self._env, output=log, fresh=self._fresh, supervises=self._supervises
            )
        self.starts += 1
        self._group_lives = True
        deadline = time.monotonic() + self._start_timeout
        while not self._is_ready():
            if not self.running:
                self.kill()
                raise StartError(f"{self._said()}\nended with code {self._process.returncode} before it was ready")
            if time.monotonic() > deadline:
                self.kill()
                raise StartError(f"{self._said()}\nwas not ready after {self._start_timeout} s")
            time.sleep(0.02)

    def terminate(self) -> None:
        """Send SIGTERM to the server (not to its children) and return at once."""
        if self.running:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once the server has ended. Raises `subprocess.TimeoutExpired`."""
        assert self._process is not None, "the server was not started"
        return self._process.wait(timeout)

    def stop(self) -> int:
        """SIGTERM, then SIGKILL if it takes too long. The exit code; -9 tells that it had to be killed."""
        self.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.wait(self._stop_timeout)
        # Also after an orderly end: workers of the server must not outlive it.
        self.kill()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL to the server and its children, as when a machine loses power. Returns when it is gone."""
        if self._process is not None:
            self._kill_group()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and does nothing. Returns when it stands still."""
        assert self._process is not None, "the server was not started"
        os.kill(self.pid, signal.SIGSTOP)
        await_stop(self._process)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    async def astart(self) -> None:
        await asyncio.to_thread(self.start)

    async def astop(self) -> int:
        return await asyncio.to_thread(self.stop)

    async def akill(self) -> None:
        await asyncio.to_thread(self.kill)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.running:
                self.stop()
            else:
                self.kill()
        finally:
            if self._log is not None:
                self._log.unlink(missing_ok=True)
                self._log = None

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *exc: object) -> None:
        # A cancelled test must not leave a server behind, so this step is not given up half way.
        await asyncio.shield(asyncio.to_thread(self.__exit__, *exc))

    def _kill_group(self) -> None:
        # Only once for each start: later, the number may be another process's.
        if self._process is not None and self._group_lives:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._group_lives = False

    def _is_ready(self) -> bool:
        if not self.running:
            return False
        connection = http.client.HTTPConnection(self.host, self.port, timeout=2)
        try:
            connection.connect()
            if self._ready is None:
                return True
            connection.request("GET", self._ready)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _said(self) -> str:
        return f"{self.output}\n{' '.join(self.command)}"
