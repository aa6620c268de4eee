"""`ClusterRoute`: a `Route` through a Redis cluster, whose slots move between its primaries."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from typing import Any

import hiredis

from .errors import RedisNotPrimary, RedisRefused, RedisUnavailable
from .replies import code_of
from .route import wire_to
from .scripts import Script
from .server import Server
from .settings import RedisSettings
from .wire import Wire, packed

__all__ = ["ClusterRoute"]

Reply = Any
Place = tuple[str, int]

_ATTEMPTS = 6
"""Times that a call follows a slot that moves, or waits for it."""

_PAUSE = 0.05
"""Seconds before the second of them that has to wait; it grows with each."""


class ClusterRoute:
    """One connection to each primary. The map of slots is read at the start, and again when it turns out to be old.

    A call that is sent elsewhere (MOVED, ASK) was not run where it came first, so it follows, a few times at most.
    """

    def __init__(self, settings: RedisSettings, scripts: Sequence[Script], *, name: str, timeout: float) -> None:
        self._settings = settings
        self._make = partial(wire_to, settings=settings, scripts=scripts, name=name, timeout=timeout)
        self._servers: dict[Place, Server] = {}
        self._starts: list[int] = []
        self._owners: list[tuple[int, Place]] = []
        """The last slot of each range, and who has it."""
        self._reading = asyncio.Lock()
        self._read = 0
        self._stale = True
        self._closed = False
        self._left_connections = 0
        self._timeout = timeout
        self._next_reading = 0.0

    async def open(self, deadline: float) -> None:
        """See `Route.open`. All primaries are connected, so that one that refuses us is found at the start."""
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        while True:
            try:
                await self._read_map(self._read)
                break
            except RedisRefused:
                raise
            except RedisUnavailable:
                if loop.time() + 0.2 >= until:
                    raise
                await asyncio.sleep(0.2)
        for server in list(self._servers.values()):
            await server.connect_first(max(until - loop.time(), 0.1))

    async def run(self, slot: int, script: Script, *args: bytes, writing: bool) -> Reply:
        """See `Route.run`."""
        server = self._server(slot) if not self._stale else None
        asking = False
        for attempt in range(_ATTEMPTS):
            if server is None:
                if self._stale:
                    await self._read_map(self._read)
                server = self._server(slot)
            if server is None:
                raise RedisUnavailable(f"nobody in the Redis cluster ({self._settings.where}) has slot {slot}")
            name, what = (b"EVAL", script.body) if asking else (b"EVALSHA", script.sha)
            try:
                reply = await server.ask(name, what, script.keys, *args, writing=writing, asking=asking)
                if isinstance(reply, hiredis.ReplyError) and code_of(str(reply)) == "NOSCRIPT":
                    reply = await server.ask(b"EVAL", script.body, script.keys, *args, writing=writing)
            except RedisUnavailable:
                # Its slots may be another's by now.
                self._stale = True
                raise
            if not isinstance(reply, hiredis.ReplyError):
                return reply
            text = str(reply)
            code = code_of(text)
            asking = False
            if code == "MOVED":
                self._stale, server = True, None
                if attempt:
                    await asyncio.sleep(_PAUSE * attempt)
            elif code == "ASK":
                server, asking = self._at(_place(text, self._settings)), True
            elif code in ("TRYAGAIN", "CLUSTERDOWN") and attempt < _ATTEMPTS - 1:
                self._stale, server = True, None
                await asyncio.sleep(_PAUSE * (attempt + 1))
            else:
                self._stale |= code == "READONLY"
                raise server.failed(None, text, writing=writing)
        raise RedisUnavailable(
            f"slot {slot} of the Redis cluster is moving all the time; {_ATTEMPTS} attempts missed it"
        )

    async def info(self) -> list[tuple[str, Server]]:
        """See `Route.info`."""
        if self._stale:
            await self._read_map(self._read)
        places = sorted({place for _, place in self._owners})
        return [(f"{host}:{port}", self._at((host, port))) for host, port in places]

    def spread(self, slots: Sequence[int]) -> list[int]:
        """See `Route.spread`."""
        places: dict[Place | None, int] = {}
        for number, slot in enumerate(slots):
            at = bisect_right(self._starts, slot) - 1
            places.setdefault(self._owners[at][1] if at >= 0 else None, number)
        return list(places.values())

    def stats(self) -> dict[str, float]:
        """See `Route.stats`. `connected` is 1 only if all primaries are."""
        servers = [self._servers[place] for place in {place for _, place in self._owners} if place in self._servers]
        made = self._left_connections + sum(server.connections for server in self._servers.values())
        return {
            "connected": 1 if servers and all(server.connected for server in servers) else 0,
            "reconnects": max(made - len(servers), 0),
        }

    def close(self) -> None:
        """See `Route.close`."""
        self._closed = True
        for server in self._servers.values():
            server.close()

    def _server(self, slot: int) -> Server | None:
        at = bisect_right(self._starts, slot) - 1
        if at < 0 or self._owners[at][0] < slot:
            return None
        return self._at(self._owners[at][1])

    def _at(self, place: Place) -> Server:
        server = self._servers.get(place)
        if server is None:
            server = self._servers[place] = Server(partial(self._find, place))
            if self._closed:
                server.close()
        return server

    async def _find(self, place: Place) -> Wire:
        try:
            return await self._make(place)
        except RedisNotPrimary:
            self._stale = True
            raise

    async def _read_map(self, known: int) -> None:
        """Read the map, unless it has been since it was the `known`-th; once a moment, however many calls want it."""
        async with self._reading:
            if self._read != known:
                return
            if self._closed:
                raise RedisUnavailable("the Redis store is closed")
            loop = asyncio.get_running_loop()
            if self._owners and loop.time() < self._next_reading:
                return
            self._next_reading = loop.time() + _PAUSE
            try:
                async with asyncio.timeout(self._timeout):
                    await self._read_anywhere()
            except TimeoutError as error:
                raise RedisUnavailable(
                    f"no node of the Redis cluster ({self._settings.where}) answers within {self._timeout:g} s"
                ) from error

    async def _read_anywhere(self) -> None:
        failures: list[RedisUnavailable] = []
        # Those that we know now first, then those that the URL names.
        for place in dict.fromkeys([*self._servers, *self._settings.servers]):
            try:
                self._take(await self._slots(place), place[0])
                return
            except RedisUnavailable as error:
                failures.append(error)
        kind = RedisRefused if all(isinstance(error, RedisRefused) for error in failures) else RedisUnavailable
        raise kind("no node of the Redis cluster answers: " + "; ".join(dict.fromkeys(map(str, failures))))

    async def _slots(self, place: Place) -> list[Any]:
        from .connecting import connect, tls_context

        server = self._servers.get(place)
        if server is not None and server.connected:
            reply = await server.ask(b"CLUSTER", b"SLOTS")
        else:
            settings = self._settings
            # A replica knows the map as well.
            wire = await connect(
                place,
                tls=tls_context(settings),
                user=settings.user,
                password=settings.password,
                primary=False,
                timeout=2.0,
            )
            try:
                reply = await wire.send(packed(b"CLUSTER", b"SLOTS"), writing=False)
            finally:
                wire.close()
        if isinstance(reply, hiredis.ReplyError):
            if "cluster support disabled" in str(reply):
                raise RedisRefused(f"Redis at {place[0]}:{place[1]} is no node of a cluster: write redis://")
            raise RedisUnavailable(f"Redis at {place[0]}:{place[1]} says: {str(reply)[:160]}")
        if not reply:
            raise RedisUnavailable(f"the Redis cluster at {place[0]}:{place[1]} has no slots yet: it is being made")
        return reply

    def _take(self, slots: list[Any], asked: str) -> None:
        ranges: list[tuple[int, int, Place]] = []
        for first, last, primary, *_ in slots:
            host = (primary[0] or b"").decode()
            # One that does not know its own name is where we have reached it.
            ranges.append((first, last, (asked if host in ("", "?") else host, primary[1])))
        ranges.sort()
        self._starts = [first for first, _, _ in ranges]
        self._owners = [(last, place) for _, last, place in ranges]
        owners = {place for _, _, place in ranges}
        for place in [place for place in self._servers if place not in owners]:
            server = self._servers.pop(place)
            self._left_connections += server.connections
            server.close()
        for place in owners:
            self._at(place)
        self._read += 1
        self._stale = False


def _place(text: str, settings: RedisSettings) -> Place:
    """The host and port in `ASK 1234 host:port`."""
    host, _, port = text.rsplit(" ", 1)[-1].rpartition(":")
    if not port.isdigit():
        raise RedisUnavailable(f"the Redis cluster sends us nowhere: {text[:80]!r}")
    return host or settings.servers[0][0], int(port)
