"""`python fork_server.py FD MODULES`: forks processes that have imported the heavy packages already.

Most of what a node's start costs is the import of the SDK, pydantic and our own packages. This process has imported
MODULES, and done nothing else: it has no thread, no event loop, no open file but the socket at FD. For each request it
forks a child that becomes what the requested command line would have started: session, working directory, environment,
standard streams, `sys.argv`, `sys.path` and `__main__` are that command's; the randomness is its own. See
`forked_process`, its other end, for what a fork shares with its siblings all the same.
"""

from __future__ import annotations

import array
import builtins
import fcntl
import gc
import importlib
import json
import os
import runpy
import secrets
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

PRELOADED = (
    "aiosqlite",
    "asyncpg",
    "encodings.idna",
    "hypercorn.asyncio",
    "mcp.server.lowlevel",
    "mcp.server.mcpserver",
    "nats.js",
    "redis.asyncio",
    "rich.logging",
    "understudy.runtime.commands.cli",
    "understudy.runtime.commands.serve",
    "understudy.runtime.cluster.cluster",
    "understudy.runtime.limits.limits_file",
    "understudy.runtime.runtime",
    "understudy.stores.nats.store",
    "understudy.stores.sqlite",
    "uvloop",
)

REDRAWN: dict[tuple[str, str], Callable[[], object]] = {
    ("understudy.actors.session.disguise", "_KEY"): lambda: secrets.token_bytes(32),
}
"""What is drawn by lot while modules load, and so is each child's to draw again: module, name, draw.
`random` and OpenSSL see to themselves."""

REQUEST_BYTES = 2**17
TESTS = str(Path(__file__).parents[1])
DESCRIPTORS = 64
"""How many may come with a request."""
SETTLED_SIGNALS = {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}
"""Those that nobody may handle, and those that every Python program ignores from its start."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a child runs in place of this program."""

    script: str | None = None
    module: str | None = None

    def run(self) -> None:
        if self.module is not None:
            runpy.run_module(self.module, run_name="__main__", alter_sys=True)
        elif self.script is not None:
            # Not `runpy.run_path`, which changes `sys.argv` and empties the module before the interpreter ends.
            main = ModuleType("__main__")
            main.__file__, main.__loader__ = self.script, SourceFileLoader("__main__", self.script)
            vars(main)["__builtins__"] = builtins
            sys.modules["__main__"] = main
            exec(compile(Path(self.script).read_bytes(), self.script, "exec"), vars(main))


class ForkServer:
    """Answers requests at a socket until its other end is closed; then whatever it has forked is killed."""

    def __init__(self, fd: int) -> None:
        self._control = socket.socket(fileno=fd)
        # Bare numbers, no file objects: in a child, whose descriptors are all closed, one would close a stranger's.
        self._exits: dict[int, tuple[int, int]] = {}
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._fd = fd

    def serve(self) -> Job | None:
        """A job: this is a child, and the job is its. None: this is the server, and it is no longer needed."""
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._exits:
                    self._report_exit(fd)
                    continue
                text, fds = self._receive()
                if not text:
                    self._kill_all()
                    return None
                request = json.loads(text)
                if "stopped" in request:
                    self._await_stop(request["stopped"])
                elif (job := self._fork(request, fds)) is not None:
                    return job

    def _receive(self) -> tuple[bytes, list[int]]:
        text, ancillary, _, _ = self._control.recvmsg(REQUEST_BYTES, socket.CMSG_SPACE(DESCRIPTORS * 4))
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        return text, list(fds)

    def answer(self, answer: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):
            self._control.sendall(json.dumps(answer).encode())

    def _fork(self, request: dict[str, Any], fds: list[int]) -> Job | None:
        """`fds`: for each of the request's `targets` one, and a pipe for the exit code if it is not to be an orphan."""
        targets, orphan = request["targets"], request["orphan"]
        became, becoming = os.pipe()
        pid = os.fork()
        if pid == 0:
            between = os.getpid()
            if orphan and os.fork() != 0:
                os._exit(0)
            # Not before its father is who it is to be.
            while orphan and os.getppid() == between:
                os.sched_yield()
            return self._be_child(request, dict(zip(targets, fds, strict=False)), becoming)
        os.close(becoming)
        for fd in fds[: len(targets)]:
            os.close(fd)
        said = os.read(became, 4096)
        os.close(became)
        answer = json.loads(said or '{"errno": null, "error": "it has ended before it began"}')
        if orphan or "error" in answer:
            os.waitpid(pid, 0)
            for fd in fds[len(targets) :]:
                os.close(fd)
        else:
            watched = os.pidfd_open(pid)
            self._exits[watched] = (pid, fds[-1])
            self._poll.register(watched, select.POLLIN)
        self.answer(answer)
        return None

    def _be_child(self, request: dict[str, Any], descriptors: dict[int, int], becoming: int) -> Job:
        try:
            self._control.detach()
            # Out of the way of those that have to have a certain number.
            becoming = fcntl.fcntl(becoming, fcntl.F_DUPFD, 1 + max(*descriptors, *descriptors.values(), becoming))
            become(request, descriptors, becoming)
        except BaseException as error:
            said = {"errno": getattr(error, "errno", None), "error": f"{type(error).__name__}: {error}"}
            os.write(becoming, json.dumps(said).encode())
            os._exit(1)
        os.write(becoming, json.dumps({"pid": os.getpid()}).encode())
        os.close(becoming)
        if request["supervises"] and (job := self._stay_behind()) is not None:
            return job
        return Job(request.get("script"), request.get("module"))

    def _stay_behind(self) -> Job | None:
        """None: this is a process that supervises others, and has a fork server of its own to start them by. A job:
        this is such another."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() != 0:
            theirs.close()
            sys.path.insert(0, TESTS)
            importlib.import_module("support.forked_popen").fork_by(ours)
            sys.path.remove(TESTS)
            return None
        # Out of all that the other is known by: its group, its folder, its descriptors.
        os.setsid()
        os.chdir("/")
        control = fcntl.fcntl(theirs.detach(), fcntl.F_DUPFD, 1 + ours.detach())
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.closerange(3, control)
        if (job := ForkServer(control).serve()) is None:
            os._exit(0)
        return job

    def _report_exit(self, watched: int) -> None:
        pid, exit_pipe = self._exits.pop(watched)
        self._poll.unregister(watched)
        os.close(watched)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        # Nobody may want to know any more.
        with suppress(BrokenPipeError):
            os.write(exit_pipe, f"{code}\n".encode())
        os.close(exit_pipe)

    def _await_stop(self, pid: int) -> None:
        if any(pid == known for known, _ in self._exits.values()):
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.answer({"pid": pid})

    def _kill_all(self) -> None:
        for pid, _ in self._exits.values():
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def become(request: dict[str, Any], descriptors: Mapping[int, int], keep: int) -> None:
    """Turn this child of the fork server into a process that has just been started. Raises `OSError`.

    `descriptors`: which it has, and which of ours each is; `keep`, above all of them, stays open too.
    """
    os.setsid()
    ours = [fcntl.fcntl(fd, fcntl.F_DUPFD, keep + 1) for fd in descriptors.values()]
    for number, fd in zip(descriptors, ours, strict=True):
        os.dup2(fd, number)
    after = 0
    for number in sorted([*descriptors, keep]):
        if after < number:
            os.closerange(after, number)
        after = number + 1
    os.closerange(after, os.sysconf("SC_OPEN_MAX"))
    for number in signal.valid_signals() - SETTLED_SIGNALS:
        handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        if number in request["ignored"]:
            handler = signal.SIG_IGN
        if signal.getsignal(number) not in (handler, None):
            signal.signal(number, handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv, sys.orig_argv = request["argv"], request["command"]
    if request["path"] is not None:
        sys.path.insert(0, request["path"])
    time.tzset()
    tempfile.tempdir = None
    importlib.invalidate_caches()
    for (module, name), draw in REDRAWN.items():
        if module in sys.modules:
            setattr(sys.modules[module], name, draw())


def preload(names: Sequence[str] = PRELOADED) -> None:
    """Import what children need."""
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            # What is not installed, no child needs; but ours have only been given another name.
            if str(error.name).startswith("understudy"):
                raise
    gc.collect()
    # The collector would otherwise write to, and so copy, every page that a child shares with this process.
    gc.freeze()


def main() -> Job | None:
    # Where this file is, which is on the path of none of the children.
    del sys.path[0]
    preload(sys.argv[2:])
    server = ForkServer(int(sys.argv[1]))
    server.answer({"pid": os.getpid()})
    return server.serve()


if __name__ == "__main__":
    # Here, with no frame of the server's left: the child ends as any program does, by reaching its end or an exception.
    if (job := main()) is not None:
        job.run()
