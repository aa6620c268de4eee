"""`ClusterRoute`: a `Route` through a Redis cluster, whose slots move between its primaries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import cast

import redis.exceptions as redis_py
from redis.asyncio.cluster import ClusterNode, NodesManager

from .connecting import WANTS_TLS, causes, connect, failure_of
from .connection import PlainConnection, RedisConnection, TlsConnection, new_connection, options_of
from .errors import RedisRefused, RedisSettingsError, RedisUnavailable
from .pipeline import Reply
from .replies import code_of, text_of
from .scripts import Script
from .server import Server
from .settings import RedisSettings

__all__ = ["ClusterRoute"]

Place = tuple[str, int]

_ATTEMPTS = 6
"""Times that a call follows a slot that moves, or waits for it."""

_PAUSE = 0.05
"""Seconds before the second of them that has to wait; it grows with each."""

_NODE_TIMEOUT = 2.0
"""Seconds that one node has to tell the map, before another is asked."""


class ClusterRoute:
    """A `Server` for each primary. redis-py keeps the map of slots, which is read at the start, and again when it turns
    out to be old.

    A call that is sent elsewhere (MOVED, ASK) was not run where it came first, so it follows, a few times at most. The
    pipelines are ours: one of redis-py's that goes to several nodes fails as a whole when one of them is away.
    """

    def __init__(self, settings: RedisSettings, scripts: Sequence[Script], *, name: str, timeout: float) -> None:
        self._settings = settings
        self._scripts = scripts
        self._name = name
        self._timeout = timeout
        self._tasks = asyncio.TaskGroup()
        self._opened = False
        self._servers: dict[Place, Server] = {}
        self._map: NodesManager | None = None
        self._reading = asyncio.Lock()
        self._read = 0
        self._stale = True
        self._closed = False
        self._left_reconnects = 0
        self._next_reading = 0.0

    async def open(self, deadline: float) -> None:
        """See `Route.open`. All primaries are connected, so that one that refuses us is found at the start."""
        await self._tasks.__aenter__()
        self._opened = True
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
            await server.open(max(until - loop.time(), 0.1))

    async def run(self, slot: int, script: Script, *args: bytes, writing: bool) -> Reply:
        """See `Route.run`."""
        server: Server | None = None
        asking = False
        for attempt in range(_ATTEMPTS):
            if server is None:
                if self._stale:
                    await self._read_map(self._read)
                server = self._server(slot)
            try:
                reply = await server.evaluate(script, *args, writing=writing, asking=asking)
            except RedisUnavailable:
                # Its slots may be another's by now.
                self._stale = True
                raise
            if not isinstance(reply, redis_py.RedisError):
                return reply
            asking = False
            if isinstance(reply, redis_py.MovedError):
                self._stale, server = True, None
                if attempt:
                    await asyncio.sleep(_PAUSE * attempt)
            elif isinstance(reply, redis_py.AskError):
                server, asking = self._at(self._reached(cast("Place", reply.node_addr))), True  # pyright: ignore[reportUnknownMemberType] - not annotated
            elif (code := code_of(text_of(reply))) in ("TRYAGAIN", "CLUSTERDOWN") and attempt < _ATTEMPTS - 1:
                self._stale, server = True, None
                await asyncio.sleep(_PAUSE * (attempt + 1))
            else:
                self._stale |= code == "READONLY"
                raise server.failed(text_of(reply), writing=writing)
        raise RedisUnavailable(
            f"slot {slot} of the Redis cluster is moving all the time; {_ATTEMPTS} attempts missed it"
        )

    async def info(self) -> list[tuple[str, Server]]:
        """See `Route.info`."""
        if self._stale:
            await self._read_map(self._read)
        return [(f"{host}:{port}", self._at((host, port))) for host, port in sorted(self._primaries())]

    def spread(self, slots: Sequence[int]) -> list[int]:
        """See `Route.spread`."""
        places: dict[Place | None, int] = {}
        for number, slot in enumerate(slots):
            places.setdefault(self._owner(slot), number)
        return list(places.values())

    def stats(self) -> dict[str, float]:
        """See `Route.stats`. `connected` is 1 only if all primaries are."""
        servers = [self._servers.get(place) for place in self._primaries()]
        return {
            "connected": 1 if servers and all(server is not None and server.connected for server in servers) else 0,
            "reconnects": self._left_reconnects + sum(server.reconnects for server in self._servers.values()),
        }

    async def aclose(self) -> None:
        """See `Route.aclose`."""
        self._closed = True
        for server in self._servers.values():
            server.close()
        await _forget(self._map)
        opened, self._opened = self._opened, False
        if opened:
            await self._tasks.__aexit__(None, None, None)

    def _owner(self, slot: int) -> Place | None:
        nodes = self._map.slots_cache.get(slot) if self._map is not None else None
        return (nodes[0].host, int(nodes[0].port)) if nodes else None

    def _primaries(self) -> set[Place]:
        if self._map is None:
            return set()
        return {(nodes[0].host, int(nodes[0].port)) for nodes in self._map.slots_cache.values()}

    def _server(self, slot: int) -> Server:
        place = self._owner(slot)
        if place is None:
            raise RedisUnavailable(f"nobody in the Redis cluster ({self._settings.where}) has slot {slot}")
        return self._at(place)

    def _at(self, place: Place) -> Server:
        server = self._servers.get(place)
        if server is None:
            server = self._servers[place] = Server(
                partial(new_connection, options_of(self._settings, timeout=self._timeout)),
                partial(self._connect, place),
                self._tasks,
                timeout=self._timeout,
                replicas=self._settings.replicas,
            )
            if self._closed:
                server.close()
        return server

    async def _connect(self, place: Place, connection: RedisConnection) -> None:
        await connect(connection, place, scripts=self._scripts, name=self._name, timeout=self._timeout)

    async def _read_map(self, known: int) -> None:
        """Read the map, unless it has been since it was the `known`-th; once a moment, however many calls want it."""
        async with self._reading:
            if self._read != known:
                return
            if self._closed:
                raise RedisUnavailable("the Redis store is closed")
            loop = asyncio.get_running_loop()
            if self._map is not None and loop.time() < self._next_reading:
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
        """From those that we know now, or else from those that the URL names."""
        if self._map is not None:
            try:
                await self._map.initialize()
                self._take()
                return
            except (redis_py.RedisClusterException, redis_py.RedisError, IndexError):
                pass
        fresh = self._new_map()
        try:
            await fresh.initialize()
        except (redis_py.RedisClusterException, redis_py.RedisError) as error:
            raise self._unread(error) from error
        except IndexError:
            # That is how redis-py takes a map without slots.
            raise RedisUnavailable(
                f"the Redis cluster ({self._settings.where}) has no slots yet: it is being made"
            ) from None
        finally:
            if not fresh.slots_cache:
                await _forget(fresh)
        old, self._map = self._map, fresh
        await _forget(old)
        self._take()

    def _new_map(self) -> NodesManager:
        options = options_of(self._settings, timeout=min(self._timeout, _NODE_TIMEOUT))
        options["connection_class"] = TlsConnection if self._settings.tls else PlainConnection
        nodes = [ClusterNode(host, port, **options) for host, port in self._settings.servers]
        # Part of it may be away: that costs its own records only.
        return NodesManager(nodes, False, options, address_remap=self._reached)

    def _reached(self, place: tuple[str | None, int]) -> Place:
        # A node that does not know its own name is where we have reached one.
        host = place[0]
        return self._settings.servers[0][0] if host in (None, "", "?") else host, place[1]

    def _unread(self, error: Exception) -> RedisUnavailable | RedisSettingsError:
        where = self._settings.where
        for cause in causes(error):
            if isinstance(cause, redis_py.RedisError):
                if "cluster support disabled" in str(cause):
                    return RedisRefused(f"Redis at {where} is no node of a cluster: write redis://")
                said = failure_of(cause, where, "" if self._settings.tls else WANTS_TLS)
                kind = RedisRefused if isinstance(said, RedisRefused) else RedisUnavailable
                return (
                    said
                    if isinstance(said, RedisSettingsError)
                    else kind(f"no node of the Redis cluster answers: {said}")
                )
        return RedisUnavailable(f"no node of the Redis cluster ({where}) answers: {error}")

    def _take(self) -> None:
        owners = self._primaries()
        for place in [place for place in self._servers if place not in owners]:
            server = self._servers.pop(place)
            self._left_reconnects += server.reconnects
            server.close()
        for place in owners:
            self._at(place)
        self._read += 1
        self._stale = False


async def _forget(map: NodesManager | None) -> None:
    if map is not None:
        await map.aclose()
        await map.aclose("startup_nodes")
