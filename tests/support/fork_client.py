"""The tests' end of `fork_server.py`: `ForkServer` starts it, `ForkClient` asks it, a `ForkedProcess` is what it made.

Who only wants a process says `forked_process.start_process`.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from .fork_server import PRELOADED
from .patience import PATIENCE

PROGRAM = Path(__file__).with_name("fork_server.py")

FREE = ("AWS_", "CHAOS_", "EXTRAS_", "HOME", "PYTEST_", "SHOP_", "TMPDIR", "UNDERSTUDY_", "XDG_")
"""How those variables begin that nobody reads while modules load. Does any other differ, then the interpreter or a
package may have started otherwise, and so a fresh process is started."""


class ForkServerError(RuntimeError):
    """The fork server has ended. The message holds what it said."""


class ForkedProcess:
    """A process that the fork server has forked, with the surface of `subprocess.Popen`. All of it is thread-safe."""

    def __init__(self, server: ForkClient, args: Sequence[str], pid: int, exit_pipe: int) -> None:
        self.args = list(args)
        self.pid = pid
        self._server = server
        self._exit = os.fdopen(exit_pipe, "rb", buffering=0)
        self._lock = threading.Lock()
        self._code: int | None = None

    @property
    def returncode(self) -> int | None:
        return self._code

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs. Raises `ForkServerError` if nobody will know."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises `subprocess.TimeoutExpired`, `ForkServerError`."""
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self._look(1.0 if until is None else min(1.0, max(0.0, until - time.monotonic())))) is None:
            if until is not None and time.monotonic() >= until:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def await_stop(self) -> None:
        """Return when it stands still, after SIGSTOP, or has ended."""
        self._server.await_stop(self.pid)

    def _look(self, seconds: float) -> int | None:
        # Without the lock, so that who only polls does not wait for who waits.
        if self._code is None and not self._exit.closed:
            waiting = select.poll()
            with self._lock:
                if self._exit.closed:
                    return self._code
                waiting.register(self._exit, select.POLLIN)
            if waiting.poll(seconds * 1000):
                with self._lock:
                    if not self._exit.closed:
                        said = self._exit.read(16)
                        self._exit.close()
                        self._code = int(said) if said else None
        if self._code is None and self._exit.closed:
            raise ForkServerError(f"how process {self.pid} ended is lost with {self._server.last_words()}")
        return self._code


class ForkClient:
    """Asks a fork server at the other end of a socket. Thread-safe."""

    def __init__(self, control: socket.socket, environment: Mapping[str, str]) -> None:
        """`environment`: in which the server has imported what it has."""
        self._control = control
        self._control.settimeout(PATIENCE)
        self._environment = environment
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        return True

    def suits(self, env: Mapping[str, str]) -> bool:
        """Whether what it has imported is what a process with this environment would have imported."""
        own = self._environment
        differing = {name for name in own.keys() | env.keys() if own.get(name) != env.get(name)}
        return all(name.startswith(FREE) for name in differing)

    def fork(
        self,
        command: Sequence[str],
        program: dict[str, Any],
        cwd: Path,
        env: Mapping[str, str],
        output: IO[bytes],
        errors: IO[bytes] | None = None,
        *,
        supervises: bool = False,
    ) -> ForkedProcess:
        """Raises `OSError` as `subprocess.Popen` would, `ForkServerError`."""
        request = self._request(command, program, cwd, env)
        request |= {"targets": [0, 1, 2], "orphan": False, "supervises": supervises}
        reading, writing = os.pipe()
        try:
            with open(os.devnull, "rb") as nothing:
                try:
                    fds = [nothing.fileno(), output.fileno(), (errors or output).fileno(), writing]
                    pid = self._ask_for_fork(request, fds)
                finally:
                    os.close(writing)
        except BaseException:
            os.close(reading)
            raise
        return ForkedProcess(self, command, pid, reading)

    def fork_orphan(
        self,
        command: Sequence[str],
        program: Mapping[str, Any],
        cwd: Path,
        env: Mapping[str, str],
        descriptors: Mapping[int, int],
        *,
        supervises: bool = False,
    ) -> int:
        """The number of a process that is nobody's, so that the kernel has given it to the nearest reaper above the
        server. `descriptors`: which it has, and which of ours each is. Raises `OSError`, `ForkServerError`."""
        request = self._request(command, program, cwd, env)
        request |= {"targets": [*descriptors], "orphan": True, "supervises": supervises}
        return self._ask_for_fork(request, [*descriptors.values()])

    def await_stop(self, pid: int) -> None:
        self._ask({"stopped": pid})

    def last_words(self) -> str:
        return "the fork server"

    def _request(
        self, command: Sequence[str], program: Mapping[str, Any], cwd: Path, env: Mapping[str, str]
    ) -> dict[str, Any]:
        # What is started inherits them as they are now; the server has those of its own start.
        ignored = [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN]
        return {**program, "command": list(command), "cwd": str(cwd), "env": dict(env), "ignored": ignored}

    def _ask_for_fork(self, request: Mapping[str, Any], fds: Sequence[int]) -> int:
        answer = self._ask(request, fds)
        if "error" in answer:
            raise OSError(answer["errno"], answer["error"])
        return answer["pid"]

    def _ask(self, request: Mapping[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with self._lock:
            try:
                self._control.sendmsg([json.dumps(request).encode()], ancillary)
            except OSError as error:
                raise ForkServerError(f"{error}: {self.last_words()}") from error
            return self._answer()

    def _answer(self) -> dict[str, Any]:
        try:
            text = self._control.recv(2**16)
        except OSError as error:
            raise ForkServerError(f"{error}: {self.last_words()}") from error
        if not text:
            raise ForkServerError(self.last_words())
        return json.loads(text)


class ForkServer(ForkClient):
    """`fork_server.py` as a process, and the requests to it."""

    def __init__(self, environment: Mapping[str, str], preloaded: Sequence[str] = PRELOADED) -> None:
        """Start it; seconds. Raises `ForkServerError`."""
        self._said = tempfile.TemporaryFile(prefix="understudy-fork-server-")  # noqa: SIM115 - lives as long as we
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(ours, environment)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(theirs.fileno()), *preloaded],
                env=self._environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                start_new_session=True,
            )
        self._answer()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def last_words(self) -> str:
        # It may be about to end.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._said.seek(0)
        said = self._said.read().decode(errors="replace")
        return f"the fork server (exit code {self._process.poll()}), which said: {said[-4096:] or 'nothing'}"

    def close(self) -> None:
        """End it, and what it has forked. Idempotent."""
        self._control.close()
        self._process.wait(PATIENCE)
        self._said.close()
