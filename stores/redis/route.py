"""`Route`: which server a shard's keys are at. `OneServer` where it is the same for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from .connecting import connect, tls_context
from .errors import RedisNotPrimary, RedisRefused, RedisUnavailable
from .scripts import Script
from .sentinel import primary_of
from .server import Outage, Server
from .settings import RedisSettings
from .wire import Wire

__all__ = ["OneServer", "Route", "wire_to"]

Reply = Any

CONNECTIONS = 4
"""To one server. While it waits for its disk for what came by one of them, the others bring the next: with appendfsync
always, 64 saves at once are three times as fast as with one. A key's calls take one way, so that they stay in order."""


class Route(Protocol):
    """The way from a shard to its server."""

    async def open(self, deadline: float) -> None:
        """Connect for the first time, within `deadline` seconds.

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

    def close(self) -> None:
        """Break all connections, and make none any more. Idempotent."""
        ...


async def wire_to(
    server: tuple[str, int],
    settings: RedisSettings,
    scripts: Sequence[Script],
    *,
    name: str,
    timeout: float,
) -> Wire:
    """A connection to a primary with what `settings` say."""
    return await connect(
        server,
        tls=tls_context(settings),
        user=settings.user,
        password=settings.password,
        db=settings.db,
        scripts=scripts,
        name=name,
        timeout=timeout,
        replicas=settings.replicas,
    )


class OneServer:
    """A `Route` where one primary has all keys: named in the URL, or by sentinels."""

    def __init__(self, settings: RedisSettings, scripts: Sequence[Script], *, name: str, timeout: float) -> None:
        self._settings = settings
        make = partial(wire_to, settings=settings, scripts=scripts, name=name, timeout=timeout)
        self._make = make
        self._timeout = timeout
        outage = Outage()
        self._servers = [Server(self._find, outage) for _ in range(CONNECTIONS)]

    async def open(self, deadline: float) -> None:
        """See `Route.open`."""
        await self._servers[0].connect_first(deadline)

    async def run(self, slot: int, script: Script, *args: bytes, writing: bool) -> Reply:
        """See `Route.run`."""
        return await self._servers[slot % CONNECTIONS].run(script, *args, writing=writing)

    async def info(self) -> list[tuple[str, Server]]:
        """See `Route.info`."""
        return [(self._servers[0].where, self._servers[0])]

    def spread(self, slots: Sequence[int]) -> list[int]:
        """See `Route.spread`."""
        return [0]

    def stats(self) -> dict[str, float]:
        """See `Route.stats`."""
        used = [server for server in self._servers if server.connections]
        return {
            "connected": 1 if used and all(server.connected for server in used) else 0,
            "reconnects": sum(server.connections - 1 for server in used),
        }

    def close(self) -> None:
        """See `Route.close`."""
        for server in self._servers:
            server.close()

    async def _find(self) -> Wire:
        if self._settings.mode == "server":
            try:
                return await self._make(self._settings.servers[0])
            except RedisNotPrimary as error:
                raise RedisRefused(str(error)) from error
        try:
            async with asyncio.timeout(self._timeout):
                primary = await primary_of(self._settings, timeout=self._timeout)
            return await self._make(primary)
        except TimeoutError as error:
            raise RedisUnavailable(
                f"no sentinel ({self._settings.where}) names the primary within {self._timeout:g} s"
            ) from error
        except RedisNotPrimary as error:
            raise RedisUnavailable(f"{error}; the sentinels have not agreed on a new primary yet") from error
