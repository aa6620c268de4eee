"""`Route`: which server a shard's keys are at. `OneServer` where it is the same for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from .connecting import connect
from .connection import RedisConnection, new_connection, options_of
from .errors import RedisNotPrimary, RedisRefused, RedisUnavailable
from .pipeline import Reply
from .scripts import Script
from .sentinel import primary_of
from .server import Server
from .settings import RedisSettings

__all__ = ["OneServer", "Route"]


class Route(Protocol):
    """The way from a shard to its server."""

    async def open(self, deadline: float) -> None:
        """Connect for the first time, within `deadline` seconds. `aclose` ends it, also where this fails.

        Raises:
            RedisUnavailable: No server answers, or it refuses us.
        """
        ...

    async def run(self, slot: int, script: Script, *args: bytes, writing: bool) -> Reply:
        """Run a script on keys of `slot`; what it returns. Raises as `Server.run`."""
        ...

    async def info(self) -> list[tuple[str, Server]]:
        """The primaries, each with its name for messages."""
        ...

    def spread(self, slots: Sequence[int]) -> list[int]:
        """Places in `slots` of such as together are at every server."""
        ...

    def stats(self) -> dict[str, float]:
        """`connected` and `reconnects`."""
        ...

    async def aclose(self) -> None:
        """Break all connections, and make none any more. Idempotent."""
        ...


class OneServer:
    """A `Route` where one primary has all keys: named in the URL, or by sentinels. Made on its event loop."""

    def __init__(self, settings: RedisSettings, scripts: Sequence[Script], *, name: str, timeout: float) -> None:
        self._settings = settings
        self._scripts = scripts
        self._name = name
        self._timeout = timeout
        self._tasks = asyncio.TaskGroup()
        self._opened = False
        self.server = Server(
            partial(new_connection, options_of(settings, timeout=timeout)),
            self._connect,
            self._tasks,
            timeout=timeout,
            replicas=settings.replicas,
        )

    async def open(self, deadline: float) -> None:
        """See `Route.open`."""
        await self._tasks.__aenter__()
        self._opened = True
        await self.server.open(deadline)

    async def run(self, slot: int, script: Script, *args: bytes, writing: bool) -> Reply:
        """See `Route.run`."""
        return await self.server.run(script, *args, writing=writing)

    async def info(self) -> list[tuple[str, Server]]:
        """See `Route.info`."""
        return [(self.server.where, self.server)]

    def spread(self, slots: Sequence[int]) -> list[int]:
        """See `Route.spread`."""
        return [0]

    def stats(self) -> dict[str, float]:
        """See `Route.stats`."""
        return {"connected": 1 if self.server.connected else 0, "reconnects": self.server.reconnects}

    async def aclose(self) -> None:
        """See `Route.aclose`."""
        self.server.close()
        opened, self._opened = self._opened, False
        if opened:
            await self._tasks.__aexit__(None, None, None)

    async def _connect(self, connection: RedisConnection) -> None:
        make = partial(connect, connection, scripts=self._scripts, name=self._name, timeout=self._timeout)
        if self._settings.mode == "server":
            try:
                await make(self._settings.servers[0])
            except RedisNotPrimary as error:
                raise RedisRefused(str(error)) from error
            return
        try:
            async with asyncio.timeout(self._timeout):
                primary = await primary_of(self._settings, timeout=self._timeout)
            await make(primary)
        except TimeoutError as error:
            raise RedisUnavailable(
                f"no sentinel ({self._settings.where}) names the primary within {self._timeout:g} s"
            ) from error
        except RedisNotPrimary as error:
            raise RedisUnavailable(f"{error}; the sentinels have not agreed on a new primary yet") from error
