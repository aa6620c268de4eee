"""`LocalServer`: a database server that a benchmark starts for itself, in a temporary folder, on a free port."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from .asgi import Refused

__all__ = ["LocalServer"]

HOST = "127.0.0.1"
START_DEADLINE = 30.0
STOP_GRACE = 10.0


class LocalServer:
    """`with LocalServer("redis") as server`: a folder and a port; `start` starts a program, which ends with the block.

    It also ends with this process, however that ends, where the machine has `setpriv`. Enter it in the main thread:
    what `setpriv` watches is the thread that started it.

    Args:
        name: For messages.
        unprivileged: Run it as another user where this process is root's: some servers refuse to run as root.
    """

    def __init__(self, name: str, *, unprivileged: bool = False) -> None:
        self.name = name
        self.port = _free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"understudy-bench-{name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _unprivileged() if unprivileged and os.geteuid() == 0 else None
        self.hand_over(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def hand_over(self, path: Path) -> None:
        """Make `path` the property of the user that the server runs as."""
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def command(self, *words: str, ends_with_us: bool = False) -> list[str]:
        """`words`, to be run as the user that the server runs as."""
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            if self._user is not None:
                raise Refused(f"{self.name} does not run as root, and there is no setpriv to run it as another user")
            return list(words)
        options = ["--pdeathsig", "TERM"] if ends_with_us else []
        if self._user is not None:
            options += [f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups"]
        return [setpriv, *options, *words] if options else list(words)

    def start(self, *words: str) -> None:
        """Start the program; what it says goes to `log` in the folder."""
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(*words, ends_with_us=True),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            )

    async def answers(self, asked: bytes, answer: bytes) -> None:
        """Return when the server answers `asked`, sent by a connection of its own, with what begins so.

        Raises:
            Refused: It has ended, or does not answer in time.
        """
        until = time.monotonic() + START_DEADLINE
        while not await self._asked(asked, answer):
            self.check(until)
            await asyncio.sleep(0.02)

    def check(self, until: float) -> None:
        """Whether it may still come up; `until` is by `time.monotonic`. Raises `Refused` if not."""
        ended = self._process is None or self._process.poll() is not None
        if ended or time.monotonic() > until:
            said = (self.folder / "log").read_text(errors="replace")[-2000:]
            raise Refused(f"{self.name} {'ended' if ended else 'does not answer'}:\n{said}")

    async def _asked(self, asked: bytes, answer: bytes) -> bool:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection(HOST, self.port)
                try:
                    writer.write(asked)
                    return (await reader.read(len(answer))) == answer
                finally:
                    writer.transport.abort()
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _unprivileged() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    return None
