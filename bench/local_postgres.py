"""The PostgreSQL that a benchmark starts for itself."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from .asgi import Refused
from .local_server import START_DEADLINE, LocalServer

__all__ = ["local_postgres", "postgres_missing"]

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # A raw client with 256 calls in flight may want a connection for each.
    "max_connections": "300",
    "shared_buffers": "128MB",
}


def postgres_missing() -> str | None:
    """Why there can be no PostgreSQL here; None if there can."""
    return "there is no initdb on this machine" if _programs() is None else None


def _programs() -> Path | None:
    versions = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if (folder / "initdb").exists()]
    if versions:
        return max(versions, key=lambda folder: float(folder.parent.name))
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@asynccontextmanager
async def local_postgres() -> AsyncGenerator[str]:
    """The URL of a PostgreSQL on a free port of 127.0.0.1, with its own defaults: a commit waits for the disk.

    Raises:
        Refused: It does not start.
    """
    programs = _programs()
    assert programs is not None, postgres_missing()
    with LocalServer("PostgreSQL", unprivileged=True) as server:
        data = server.folder / "data"
        made = await asyncio.create_subprocess_exec(
            *server.command(
                str(programs / "initdb"),
                f"--pgdata={data}",
                "--username=bench",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=server.folder,
        )
        said, _ = await made.communicate()
        if made.returncode != 0:
            raise Refused(f"initdb failed:\n{said.decode(errors='replace')[-2000:]}")
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
        server.start(str(programs / "postgres"), "-D", str(data), "-p", str(server.port))
        until = time.monotonic() + START_DEADLINE
        while not _is_ready(data):
            server.check(until)
            await asyncio.sleep(0.02)
        yield f"postgresql://bench@127.0.0.1:{server.port}/postgres"


def _is_ready(data: Path) -> bool:
    with suppress(OSError):
        lines = (data / "postmaster.pid").read_text().splitlines()
        return len(lines) > 7 and lines[7].strip() == "ready"
    return False
