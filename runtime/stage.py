"""`Stage`: the server process of the demo, started, killed and started again on one port and one store."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote

import anyio
import anyio.to_thread

from .child import ServeProcess

__all__ = ["HOST", "SceneError", "Stage"]

TARGET = "understudy.runtime.demo:server"
HOST = "127.0.0.1"


class SceneError(Exception):
    """A step of the demo that did not come out as it should."""


class Stage:
    """The server process of the moment, its port, its store and its log. Leaving it as a context ends the process."""

    def __init__(self, directory: Path, port: int) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}/mcp"
        self._store = f"sqlite:///{quote(str(directory / 'sessions.db'))}"
        self._log_path = directory / "server.log"
        self._log: IO[bytes] = self._log_path.open("ab")
        self._server: ServeProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close(10.0)
        self._log.close()

    async def raise_curtain(self) -> int:
        """Start a server and wait until it is ready; its process id. The caller sets the deadline.

        Raises:
            SceneError: It ended instead.
        """
        # Each option that the environment could set is given, so that the demo is the demo everywhere.
        args = ["serve", TARGET, "--host", HOST, "--port", str(self.port), "--path", "/mcp", "--store", self._store]
        args += ["--http", "hypercorn", "--log-level", "warning", "--log-format", "text", "--no-reload"]
        self._server = server = ServeProcess(args, stderr=self._log)
        while not await anyio.to_thread.run_sync(_is_ready, self.port):
            if server.exit_code is not None:
                raise SceneError(f"the server ended with exit code {server.exit_code}")
            await anyio.sleep(0.02)
        return server.pid

    def kill(self) -> int:
        """End the server outright; its process id.

        Raises:
            SceneError: There is none.
        """
        server = self._server
        if server is None:
            raise SceneError("there is no server to kill")
        server.kill()
        server.close(0.0)
        self._server = None
        return server.pid

    async def watch(self) -> None:
        """Wait for ever, or until the server ends by itself.

        Raises:
            SceneError: It did.
        """
        while self._server is not None and await anyio.to_thread.run_sync(self._server.wait, 0.2) is None:
            pass
        raise SceneError("the server ended by itself")

    def last_words(self) -> str:
        """The end of what the servers wrote to stderr."""
        return self._log_path.read_text(errors="replace")[-2000:].strip()


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
