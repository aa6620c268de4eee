"""A `serve` in a process of its own, which never outlives the one that started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

__all__ = ["LIFELINE", "LISTEN", "ServeProcess"]

MODULE = "understudy.runtime"

LIFELINE = "UNDERSTUDY_LIFELINE_FD"
"""Environment: a pipe whose other end the parent holds. When it closes, however the parent ends, `serve` stops."""

LISTEN = "UNDERSTUDY_LISTEN_FD"
"""Environment: a listening socket to serve on instead of binding one."""


class ServeProcess:
    """A running `understudy` command; `args` as on the command line, `serve` included.

    `listen` is passed on and stays open here: connections that come while no process serves wait in it. `environment`
    is put over this process's own; None takes a variable out.
    """

    def __init__(
        self,
        args: Sequence[str],
        *,
        listen: socket.socket | None = None,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        self._asked = False
        theirs, self._lifeline = os.pipe()
        changed = {**os.environ, **(environment or {}), LIFELINE: str(theirs)}
        passed_on = {name: value for name, value in changed.items() if value is not None}
        passed = [theirs]
        if listen is not None:
            passed_on[LISTEN] = str(listen.fileno())
            passed.append(listen.fileno())
        try:
            # A session of its own: Ctrl-C in the terminal reaches the parent alone, which then stops it in order.
            # -P: the working directory is the target's to add, not the interpreter's.
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our module
                [sys.executable, "-P", "-m", MODULE, *args],
                env=passed_on,
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: ended by that signal."""
        return self._process.poll()

    def wait(self, timeout: float) -> int | None:
        """Block up to `timeout` seconds for its end; the exit code, or None if it still runs."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    @property
    def asked(self) -> bool:
        """Whether it has been asked to stop."""
        return self._asked

    def terminate(self) -> None:
        """Ask it to drain and stop. To ask twice is to have it stop at once."""
        self._asked = True
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it outright, in the middle of whatever it does, and reap it."""
        self._process.kill()
        self._process.wait()

    def close(self, grace: float) -> int:
        """Stop it in order, outright after `grace` seconds; its exit code. Idempotent."""
        if self._process.poll() is None:
            if not self._asked:
                self.terminate()
            if self.wait(grace) is None:
                self.kill()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        return self._process.wait()
