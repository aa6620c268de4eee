"""`NatsServer`: a real nats-server on this machine, which never outlives the process that started it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from .nats_program import NatsServerError, NatsServerMissing, NatsServerOptions, configuration, find_nats_server

__all__ = ["NatsServer", "NatsServerError", "NatsServerMissing", "NatsServerOptions", "find_nats_server"]

_POLL = 0.01

# Runs in the child before nats-server takes its place. What it forks holds one end of a pipe whose other end the parent
# holds: when that closes, however the parent ended, it kills the server. It asks for its own parent first, because
# the number of a server that ended by itself may be another process's by then.
#
# The server shares the machine with the nodes. Woken by what a node writes, it would take the processor from that node
# in the middle of its work, hand on what came so far, and so have each batch between two nodes carry a call or two.
# SCHED_BATCH lets whoever is at work finish.
_KEEPER = """
import os, signal, sys
if hasattr(os, "SCHED_BATCH"):
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        pass
lifeline, server = int(sys.argv[1]), os.getpid()
if os.fork() == 0:
    os.read(lifeline, 1)
    if os.getppid() == server:
        os.kill(server, signal.SIGKILL)
    os._exit(0)
os.close(lifeline)
os.execv(sys.argv[2], sys.argv[2:])
"""


class NatsServer:
    """A nats-server on a free port of 127.0.0.1, for a cluster on one machine, tests and benches.

        async with NatsServer(directory) as server:
            await connect(NatsSettings.from_url(server.url), name="node-1")

    Everything it writes is in `directory`: its configuration (readable by the user alone), its log, its streams. The
    first start takes a port that is free; later ones take the same, so that clients find it again. It dies with the
    process that made it, `kill -9` included. Not bound to an event loop.

    Args:
        directory: Made if it is not there. One server at a time may have it.
        port: 0 for a free one.
        start_timeout: Seconds it has to become ready.
        stop_timeout: Seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        options: NatsServerOptions | None = None,
        *,
        port: int = 0,
        program: Path | None = None,
        start_timeout: float = 15.0,
        stop_timeout: float = 5.0,
    ) -> None:
        self.directory = Path(directory).absolute()
        self.options = options or NatsServerOptions()
        self.port = port
        self._program = program
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._lock: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect: `nats://127.0.0.1:port`, or `tls://...`. Without secrets."""
        return f"{'tls' if self.options.tls_cert else 'nats'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the last start.

        Raises:
            NatsServerError: It was never started.
        """
        if self._process is None:
            raise NatsServerError("this nats-server was not started: enter `async with server:`")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        """What the server logs, over all its starts. It is cut at 10 MB; two older ones are kept beside it."""
        return self.directory / "nats-server.log"

    def last_words(self, lines: int = 12) -> str:
        """The end of what it has printed and logged."""
        said = ""
        for file in (self.log_file, self._stderr_file):
            with suppress(OSError), file.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 16_384))
                said += log.read().decode(errors="replace")
        return "\n".join(said.splitlines()[-lines:])

    async def start(self) -> None:
        """Start it and wait until it takes connections. On cancellation nothing is left running.

        Raises:
            NatsServerMissing: There is no such program.
            NatsServerError: It ended, or was not ready in time, or another one has the directory.
        """
        if self.running:
            return
        program = self._program or find_nats_server()
        self._prepare()
        deadline = time.monotonic() + self._start_timeout
        while True:
            try:
                self._spawn(program)
                if await self._wait_until_ready(deadline):
                    return
            except BaseException:
                self._end()
                raise
            # The port of the start before is somebody else's for the moment, such as a client's that leaves it soon.
            self._end()
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """End it in order, outright after `stop_timeout`. Idempotent. Cancelled, it is killed at once."""
        try:
            if self.running:
                self._signal(signal.SIGCONT)
                self._signal(signal.SIGTERM)
                deadline = time.monotonic() + self._stop_timeout
                while self.running and time.monotonic() < deadline:  # noqa: ASYNC110 - a process tells nobody
                    await asyncio.sleep(_POLL)
        finally:
            self._end()

    async def restart(self) -> None:
        """Start it again on the same port and data, stopping it first if it runs. Raises as `start`."""
        await self.stop()
        await self.start()

    def kill(self) -> None:
        """SIGKILL, as when it crashes. Returns when it is gone."""
        self._end()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing, until `resume`. Returns when it stands still."""
        self._signal(signal.SIGSTOP)
        if self.running and hasattr(os, "waitid"):  # which Python 3.11 has not on macOS
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def _config_file(self) -> Path:
        return self.directory / "nats-server.conf"

    @property
    def _stderr_file(self) -> Path:
        return self.directory / "nats-server.stderr"

    def _prepare(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._lock is None:
                self._lock = _locked(self.directory / "nats-server.lock")
            for stale in self.directory.glob("nats-server_*.ports"):
                stale.unlink()
            self._config_file.unlink(missing_ok=True)
            # Readable by the user alone from the first byte on: it may hold a password.
            handle = os.open(self._config_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "w", encoding="utf-8") as config:
                # nats-server reads JSON, but not its \u escapes.
                json.dump(
                    configuration(self.options, self.directory, self.log_file, self.port),
                    config,
                    indent=2,
                    ensure_ascii=False,
                )
        except OSError as error:
            self._unlock()
            raise NatsServerError(
                f"the directory {str(self.directory)!r} cannot hold a nats-server: {error.strerror}"
            ) from error

    def _spawn(self, program: Path) -> None:
        theirs, self._lifeline = os.pipe()
        try:
            with self._stderr_file.open("wb") as stderr:
                self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and the program that was found
                    [
                        sys.executable,
                        "-I",
                        "-S",
                        "-c",
                        _KEEPER,
                        str(theirs),
                        str(program),
                        "-c",
                        str(self._config_file),
                    ],
                    pass_fds=[theirs],
                    stdin=subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    # Ctrl-C in the terminal reaches the parent alone, which stops its nodes before their server.
                    start_new_session=True,
                )
        finally:
            os.close(theirs)

    async def _wait_until_ready(self, deadline: float) -> bool:
        """True when it takes connections; False if its port is taken by another process, for now."""
        while True:
            process = self._process
            if process is None or process.poll() is not None:
                if self.port and "address already in use" in self.last_words() and time.monotonic() < deadline:
                    return False
                code = None if process is None else process.returncode
                raise NatsServerError(f"nats-server ended before it was ready, with code {code}:\n{self.last_words()}")
            if self._read_port() and _greets(self.port):
                return True
            if time.monotonic() > deadline:
                raise NatsServerError(
                    f"nats-server was not ready after {self._start_timeout:g} s; its last words:\n{self.last_words()}"
                )
            await asyncio.sleep(_POLL)

    def _read_port(self) -> bool:
        # The server picks the port and says which, once it listens: nobody can take the port in between.
        try:
            said = json.loads((self.directory / f"nats-server_{self.pid}.ports").read_bytes())
            self.port = int(said["nats"][0].rpartition(":")[2])
        except (OSError, ValueError, LookupError):
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _locked(path: Path) -> IO[bytes]:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise NatsServerError(
            f"another nats-server has the directory {str(path.parent)!r}: stop it, or name another directory"
        ) from error
    except BaseException:
        file.close()
        raise
    return file


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2) as connection:
            return connection.recv(5).startswith(b"INFO")
    except OSError:
        return False
