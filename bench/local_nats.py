"""The nats-server that a benchmark starts for itself, and the clients that it gives its sides."""
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client

from ..runtime.commands.nats_server import NatsServer, NatsServerOptions
from ..stores.nats.client import NatsClient
from ..stores.nats.connection import close, connect
from ..stores.nats.settings import NatsSettings

__all__ = ["connected", "connected_raw", "local_nats"]


@asynccontextmanager
async def local_nats(*, sync_interval: str = "always") -> AsyncGenerator[NatsServer]:
    """A nats-server in a temporary directory, set up as `understudy cluster` sets up its own.

    Raises:
        NatsServerMissing: There is none on this machine.
        NatsServerError: It does not start.
    """
    with tempfile.TemporaryDirectory(prefix="understudy-bench-nats-") as folder:
        async with NatsServer(folder, NatsServerOptions(sync_interval=sync_interval)) as server:
            yield server


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[NatsClient]:
    """A client of the server at `url`, as nodes have it."""
    client = await connect(NatsSettings.from_url(url), name="understudy bench")
    try:
        yield client
    finally:
        await close(client)


@asynccontextmanager
async def connected_raw(url: str) -> AsyncGenerator[Client]:
    """A client of the server at `url`, as nats-py itself makes it."""
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()
