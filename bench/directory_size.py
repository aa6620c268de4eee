"""What a session weighs in the directory: entries written by the directory's own code into a real bucket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..runtime.cluster.buckets import Buckets
from ..runtime.cluster.entry import Entry
from ..runtime.cluster.kv_directory import KVDirectory
from ..runtime.cluster.names import Names
from ..runtime.commands.nats_server import NatsServer
from ..stores import Address
from ..stores.nats.connection import jetstream
from .asgi import Refused
from .local_nats import connected
from .node_tables import news_of

__all__ = ["DirectorySize", "directory_sizes"]

WRITERS = 100


class DirectorySize(NamedTuple):
    """Of a directory with so many entries, in bytes."""

    entries: int
    stored: int
    """As JetStream counts the messages of the bucket's stream."""
    on_disk: int
    """Of all files that nats-server keeps for the bucket."""
    resident: int
    """What nats-server's resident size grew by."""


async def directory_sizes(server: NatsServer, counts: list[int]) -> list[DirectorySize]:
    """Fill one directory up to each of `counts` (growing) in turn, and measure it there.

    Raises:
        Refused: The bucket does not hold what was written.
    """
    names = Names("bench")
    found: list[DirectorySize] = []
    async with connected(server.url) as client:
        context = await jetstream(client, timeout=30.0)
        bucket = await Buckets(context, names, lease=3.0, ttl=86_400.0, replicas=1).directory()
        directory = KVDirectory(bucket, context, names.directory_bucket)
        floor = _resident(server.pid)
        owners = [news_of(number).incarnation for number in range(1000)]
        written = 0
        for count in counts:
            rest = iter(range(written, count))

            async def write(rest: Iterator[int] = rest) -> None:
                for number in rest:
                    await directory.write(Address.new("session"), Entry(owners[number % len(owners)], 1, 0))

            async with asyncio.TaskGroup() as tasks:
                for _ in range(WRITERS):
                    tasks.create_task(write())
            written = count
            stream = f"KV_{names.directory_bucket}"
            state = (await context.stream_info(stream)).state
            if state.messages != count:
                raise Refused(f"the directory should have {count} entries, but has {state.messages}")
            files = [file for file in server.directory.rglob("*") if stream in file.parts and file.is_file()]
            on_disk = sum(_size(file) for file in files)
            found.append(DirectorySize(count, state.bytes, on_disk, max(_resident(server.pid) - floor, 0)))
    return found


def _size(file: Path) -> int:
    try:
        return file.stat().st_blocks * 512
    except FileNotFoundError:
        # nats-server replaces its index files.
        return 0


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise Refused(f"process {pid} has ended")
