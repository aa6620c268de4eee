"""`start_process`: a Python program as a process of its own, forked from one that has imported what it needs.

A node starts in a tenth of the processor time that the same command line takes. What is the command's own is as after
any start: process id, session and group, directory, environment, streams, descriptors, signals, `__main__`, logging,
randomness, and its end. What a fork has in common with its siblings, and no test of theirs may be about: the seed of
`hash()`, the addresses of its modules, and that heavy modules are loaded before anybody asked for them. Whoever tests
the start itself says `fresh`.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from .fork_client import ForkClient, ForkedProcess, ForkServer
from .patience import PATIENCE

UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
"""In the environment of all: what a process has said can be read at once, and when it is killed."""


class Process(Protocol):
    """What tests use of a `subprocess.Popen`."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


def start_process(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    output: IO[bytes],
    errors: IO[bytes] | None = None,
    fresh: bool = False,
    supervises: bool = False,
) -> Process:
    """Start `command` in a session of its own, with nothing to read, its stdout in `output`, its stderr in `errors`
    (None: where stdout goes).

    Forked if tests have said `allow_forks`, the command runs Python code by this interpreter, and `env` is that of the
    tests but for variables that are read late. Else, or if it must be `fresh`, it is a `subprocess.Popen`. What one
    that `supervises` starts is forked in its turn.
    """
    if not fresh:
        server = shared_fork_server()
        if server is not None and (program := program_of(command, cwd)) is not None and server.suits(env):
            return server.fork(command, program, cwd, env, output, errors, supervises=supervises)
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors or subprocess.STDOUT,
        start_new_session=True,
    )


async def run_process(command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `command`, which is started as by `start_process`. Cancelled, it is killed.

    Raises:
        subprocess.TimeoutExpired: It ran for longer than `PATIENCE`, and was killed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = await asyncio.to_thread(start_process, command, cwd=cwd, env=env, output=output, errors=errors)
        try:
            code = await asyncio.to_thread(process.wait, PATIENCE)
        finally:
            if process.poll() is None:
                process.kill()
                await asyncio.shield(asyncio.to_thread(process.wait, PATIENCE))
        output.seek(0)
        errors.seek(0)
        return code, output.read().decode(), errors.read().decode()


def await_stop(process: Process) -> None:
    """Return when the process, which was sent SIGSTOP, stands still (or has ended)."""
    if isinstance(process, ForkedProcess):
        process.await_stop()
    else:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def program_of(command: Sequence[str], cwd: Path) -> dict[str, Any] | None:
    """How the fork server runs it: `argv`, `script` or `module`, and what goes first on the path. None: it cannot."""
    words = list(command)
    safe_path = False
    if words[0] == sys.executable:
        del words[0]
        if safe_path := words[:1] == ["-P"]:
            del words[0]
        if words[:1] == ["-m"] and len(words) > 1:
            # It puts the module's file in place of its name.
            return {"argv": words[1:], "module": words[1], "path": None if safe_path else str(cwd.resolve())}
        if not words or words[0].startswith("-"):
            return None
    elif not _runs_it_too(cwd / words[0]):
        return None
    script = cwd / words[0]
    return {"argv": words, "script": str(script), "path": None if safe_path else str(script.resolve().parent)}


def _runs_it_too(script: Path) -> bool:
    """Whether the script's first line names this interpreter, by whatever name it has beside this one."""
    try:
        with script.open("rb") as file:
            line = file.readline(4096)
    except OSError:
        return False
    interpreter = Path(os.fsdecode(line[2:].strip()))
    mine = Path(sys.executable)
    return line[:2] == b"#!" and interpreter.parent == mine.parent and interpreter.resolve() == mine.resolve()


_environment: dict[str, str] | None = None
_server: ForkServer | None = None
_lent: ForkClient | None = None
_starting = threading.Lock()


def allow_forks() -> None:
    """From here on `start_process` forks where it can. Where the system cannot, nothing changes."""
    global _environment
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        # Of now, before any test has changed it for itself.
        mine = {key: value for key, value in os.environ.items() if not key.startswith("UNDERSTUDY_")}
        _environment = mine | UNBUFFERED


def ask_at(control: socket.socket) -> None:
    """From here on the shared fork server is the one at the other end of `control`, forked from this process."""
    global _lent
    _lent = ForkClient(control, os.environ | UNBUFFERED)


def shared_fork_server() -> ForkClient | None:
    """The one of this process, started if need be; None: nobody has said `allow_forks`."""
    global _server
    if _lent is not None:
        return _lent
    if _environment is None:
        return None
    with _starting:
        if _server is not None and not _server.running:
            _server.close()
            _server = None
        if _server is None:
            _server = ForkServer(_environment)
            atexit.register(_server.close)
        return _server
