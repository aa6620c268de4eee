"""The redis-server that a benchmark starts for itself."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from .local_server import LocalServer

__all__ = ["local_redis", "redis_missing"]


def redis_missing() -> str | None:
    """Why there can be no Redis here; None if there can."""
    if shutil.which("redis-server") is None and shutil.which("valkey-server") is None:
        return "there is neither redis-server nor valkey-server on this machine"
    return None


@asynccontextmanager
async def local_redis() -> AsyncGenerator[str]:
    """The URL of a Redis or Valkey on a free port of 127.0.0.1 that acknowledges what is on the disk.

    Raises:
        Refused: It does not start.
    """
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    assert program is not None, redis_missing()
    with LocalServer("redis") as server:
        lines = {
            "port": str(server.port),
            "bind": "127.0.0.1",
            "dir": str(server.folder),
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        }
        configuration = server.folder / "redis.conf"
        configuration.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        server.start(program, str(configuration))
        await server.answers(b"PING\r\n", b"+PONG")
        yield f"redis://127.0.0.1:{server.port}"
