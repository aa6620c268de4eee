"""`forked_popen`: what the code under test starts by `subprocess.Popen` is forked where it is one of our programs.

For code that starts nodes, hosts and probes itself, such as the benchmarks. What it gets is a true child of its own
process, to be waited for, stopped and killed by its number; what a fork is not, `forked_process` says. It leads a
session of its own in any case, and its output is not buffered.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from .forked_process import UNBUFFERED, ask_at, program_of, shared_fork_server

PR_SET_CHILD_SUBREAPER = 36

_SIGNATURE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]
_becoming_father = threading.Lock()


@contextmanager
def forked_popen(*, supervises: bool = False) -> Iterator[None]:
    """Until the end of the block, and if tests have said `allow_forks`, `subprocess.Popen` forks what it can, and what
    one that `supervises` starts is forked in its turn."""
    if shared_fork_server() is None:
        yield
        return
    with patch.object(subprocess, "Popen", SupervisorPopen if supervises else ForkedPopen):
        yield


def fork_by(control: socket.socket) -> None:
    """Have this process, whose program has not begun, fork what it can by the fork server that `control` leads to."""
    ask_at(control)
    subprocess.Popen = ForkedPopen


class ForkedPopen(subprocess.Popen[Any]):
    """A `Popen` that has the fork server make the process, if that can be one that it would have made itself."""

    _supervises = False

    def _execute_child(self, *given: Any) -> None:
        said = _SIGNATURE.bind(self, *given).arguments
        server = shared_fork_server()
        env = {**(os.environ if said["env"] is None else said["env"]), **UNBUFFERED}
        cwd = Path.cwd() if said["cwd"] is None else Path(os.fsdecode(said["cwd"]))
        program = _program(said["args"], cwd)
        plain = not (said["shell"] or said["executable"] or said["preexec_fn"]) and said["close_fds"]
        if server is None or program is None or not plain or not server.suits(env):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        given_fds = {0: said["p2cread"], 1: said["c2pwrite"], 2: said["errwrite"]}
        descriptors = {number: number if fd == -1 else fd for number, fd in given_fds.items()}
        descriptors |= {fd: fd for fd in said["pass_fds"]}
        try:
            command = [os.fsdecode(word) for word in said["args"]]
            with _becoming_father:
                # Whose father has ended is the child of the nearest reaper above it. We are one for no longer than we
                # must: what a killed node leaves behind is not ours to bury.
                _be_reaper(True)
                try:
                    self.pid = server.fork_orphan(command, program, cwd, env, descriptors, supervises=self._supervises)
                finally:
                    _be_reaper(False)
            # Raises if it is none of ours, rather than that somebody waits in vain.
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            self._child_created = True
        finally:
            ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
            self._close_pipe_fds(*(said[end] for end in ends))  # type: ignore[attr-defined]


class SupervisorPopen(ForkedPopen):
    """One whose processes start others."""

    _supervises = True


def _program(args: Any, cwd: Path) -> dict[str, Any] | None:
    if isinstance(args, (str, bytes, os.PathLike)):
        return None
    return program_of([os.fsdecode(word) for word in args], cwd)


def _be_reaper(whether: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(whether), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
