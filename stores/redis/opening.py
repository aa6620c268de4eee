"""`open_schema` and `look_around`: whose keys these are, and what the server is set to lose."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import redis.exceptions as redis_py

from ..errors import StoreCorrupt, StoreVersionError
from .keys import SHARDS, Keys, slot_of
from .route import Route
from .scripts import SCHEMA
from .server import Server
from .settings import RedisSettings

__all__ = ["FORMAT", "check_schema", "look_around", "open_schema"]

logger = logging.getLogger(__name__)

FORMAT = 1
"""What the keys look like. A newer understudy that writes them otherwise raises it."""

_SETTINGS = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy", "min-replicas-to-write")

_SECTIONS = ("persistence", "replication", "memory")


async def open_schema(route: Route, keys: Keys, prefix: str) -> str:
    """The id of the store, which is made if there is none.

    Raises:
        StoreVersionError: The keys are of a newer understudy.
        StoreCorrupt: They are something else's.
        RedisUnavailable: Redis does not answer, or refuses.
    """
    found = await route.run(
        slot_of(keys.schema),
        SCHEMA,
        keys.schema,
        b"%d" % FORMAT,
        b"%d" % SHARDS,
        secrets.token_hex(8).encode(),
        writing=True,
    )
    return check_schema(found, prefix)


def check_schema(found: Sequence[bytes | None], prefix: str) -> str:
    """The id of a store, from the format, shards and id that its schema has. Raises as `open_schema`."""
    format, shards, id = found
    if format is None or id is None or not format.isdigit():
        raise StoreCorrupt(
            f"the keys {prefix!r} in Redis are not understudy's; they are left as they are: name another prefix "
            "(?prefix=)"
        )
    if int(format) > FORMAT:
        raise StoreVersionError(
            f"the store {prefix!r} in Redis has format {int(format)}; this understudy reads {FORMAT}: upgrade it, or "
            "name another prefix (?prefix=)"
        )
    if shards != b"%d" % SHARDS:
        raise StoreCorrupt(f"the store {prefix!r} in Redis has {shards!r} shards and must have {SHARDS}")
    return id.decode()


async def look_around(route: Route, settings: RedisSettings) -> tuple[str, ...]:
    """What of the servers' settings may lose acknowledged writes: a sentence each, which names the setting.

    What a server does not let us see is passed over.
    """
    servers = await route.info()
    found = await asyncio.gather(*(_warnings(where, server, settings) for where, server in servers))
    return tuple(dict.fromkeys(warning for warnings in found for warning in warnings))


async def _warnings(where: str, server: Server, settings: RedisSettings) -> list[str]:
    # One by one, as a server may let us see some of them only; all in one round trip.
    values = await asyncio.gather(*(server.ask(b"CONFIG", b"GET", name) for name in _SETTINGS))
    config = {
        name: value[1].decode(errors="replace")
        for name, value in zip(_SETTINGS, values, strict=True)
        if not isinstance(value, redis_py.RedisError) and len(value) == 2
    }
    info: dict[str, str] = {}
    for section in await asyncio.gather(*(server.ask(b"INFO", name) for name in _SECTIONS)):
        info |= _parsed(section)
    return [f"Redis at {where}: {text}" for text in _judged(config, info, settings)]


def _judged(config: Mapping[str, str], info: Mapping[str, str], settings: RedisSettings) -> list[str]:
    said: list[str] = []
    if info.get("aof_enabled", "1") == "0" or config.get("appendonly") == "no":
        said.append(
            "appendonly is off: all sessions, or those of some minutes, are lost when it restarts; set appendonly yes"
        )
    elif (fsync := config.get("appendfsync")) is None:
        said.append("its appendfsync cannot be read (CONFIG GET): if it is not 'always', a crash loses what came last")
    elif fsync != "always":
        lost = "the last second" if fsync == "everysec" else "half a minute or so"
        said.append(f"appendfsync is {fsync}: a loss of power loses what was acknowledged in {lost}; set it to always")
    policy = config.get("maxmemory-policy") or info.get("maxmemory_policy", "noeviction")
    limit = config.get("maxmemory") or info.get("maxmemory", "0")
    if policy != "noeviction" and limit != "0":
        said.append(
            f"maxmemory-policy is {policy}: when memory runs out it throws live sessions away; set it to noeviction"
        )
    replicated = settings.mode != "server" or info.get("connected_slaves", "0") != "0"
    if replicated and not settings.replicas and config.get("min-replicas-to-write", "0") == "0":
        said.append(
            "no replica acknowledges writes: a fail-over loses what had not reached the new primary; add ?replicas=1 "
            "to the store's URL"
        )
    return said


def _parsed(reply: Any) -> dict[str, str]:
    if not isinstance(reply, bytes):
        return {}
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}
