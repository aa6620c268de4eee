"""`open_store`: from a URL to an open store."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from .environment import AUTO, store_of_environment
from .errors import StoreURLError
from .event_log import EventLogBounds
from .store import SessionStore

__all__ = ["Opener", "open_store", "register_scheme", "scheme_of", "sqlite_path"]

Clock = Callable[[], float]
Opener = Callable[[str, Clock], Awaitable[SessionStore]]
"""Opens a store from (what follows `scheme://`, clock)."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}")
_URL = re.compile(rf"({_SCHEME.pattern}):(//)?(.*)", re.DOTALL)
_REDIS = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


_Builtin = Callable[[str, Clock, EventLogBounds | None], Awaitable[SessionStore]]


async def open_store(url: str, *, clock: Clock = time.time, event_bounds: EventLogBounds | None = None) -> SessionStore:
    """Open the store that `url` names: `memory://`, `sqlite:///relative.db`, `sqlite:////absolute.db`,
    `sqlite:///~/in-home.db`, `nats://host:4222/bucket` (`tls://` for TLS), `postgresql://host/database`,
    `redis://host:6379/0` (`rediss://` for TLS, `redis+sentinel://`, `redis+cluster://`), `dynamodb://table?region=...`,
    or a scheme added with `register_scheme`. `auto` is the store that the environment names: see
    `store_of_environment`.

    `clock` gives seconds since the Unix epoch; `event_bounds` is what the event log keeps, which a store of a scheme
    that was added brings as it sees fit. The store belongs to the event loop it was opened on; `aclose` it.

    Raises:
        StoreURLError: `url` cannot be understood. The message holds no more of it than is free of secrets.
        StoreVersionError, StoreCorrupt, StoreUnavailable: As the store's own `open` says.
    """
    if url == AUTO:
        url = store_of_environment(os.environ).url
    scheme, rest = scheme_of(url)
    builtin = _BUILTIN.get(scheme)
    if builtin is not None:
        return await builtin(rest, clock, event_bounds)
    return await _added[scheme](rest, clock)


def scheme_of(url: str) -> tuple[str, str]:
    """The scheme of a store's URL, for which there is a store, and what follows `://`.

    Raises:
        StoreURLError: There is none.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise StoreURLError(f"a store URL starts with its kind, and this one does not; {_forms()}")
    scheme, slashes, rest = match.groups()
    if scheme not in _BUILTIN and scheme not in _added:
        raise StoreURLError(f"there is no store {scheme!r}; {_forms()}")
    if slashes is None:
        raise StoreURLError(f"a store URL of {scheme!r} continues with ://; {_forms()}")
    return scheme, rest


def register_scheme(scheme: str, opener: Opener) -> None:
    """Let `open_store` open `scheme://...` with `opener`, for this process. A store of your own goes here.

    Raises:
        ValueError: `scheme` is not a lower-case word, or is taken.
    """
    if _SCHEME.fullmatch(scheme) is None:
        raise ValueError(f"scheme {scheme!r} must be a short lower-case word")
    if scheme in _BUILTIN or scheme in _added:
        raise ValueError(f"scheme {scheme!r} is taken")
    _added[scheme] = opener


async def _open_memory(rest: str, clock: Clock, event_bounds: EventLogBounds | None) -> SessionStore:
    from .memory import MemoryStore

    if rest:
        raise StoreURLError("memory:// takes nothing after the slashes: each one that is opened is a store of its own")
    return MemoryStore(clock, event_bounds=event_bounds)


async def _open_sqlite(rest: str, clock: Clock, event_bounds: EventLogBounds | None) -> SessionStore:
    from .sqlite.store import SQLiteStore

    return await SQLiteStore.open(sqlite_path(rest), clock=clock, event_bounds=event_bounds)


@contextmanager
def _extra(extra: str, scheme: str, needs: str, *packages: str) -> Generator[None]:
    """
    Raises:
        StoreURLError: What the block imports is missing, as one of `packages` is: `extra` is not installed.
    """
    try:
        yield
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] not in packages:
            raise
        raise StoreURLError(f"the {scheme}:// store needs {needs}: pip install 'understudy[{extra}]'") from error


def _nats_opener(scheme: str) -> _Builtin:
    async def open_nats(rest: str, clock: Clock, event_bounds: EventLogBounds | None) -> SessionStore:
        with _extra("cluster", scheme, "nats-py", "nats"):
            from .nats.store import NatsStore
        return await NatsStore.from_url(f"{scheme}://{rest}", clock=clock, event_bounds=event_bounds)

    return open_nats


def _postgresql_opener(scheme: str) -> _Builtin:
    async def open_postgresql(rest: str, clock: Clock, event_bounds: EventLogBounds | None) -> SessionStore:
        with _extra("postgres", scheme, "asyncpg", "asyncpg"):
            from .postgresql.store import PostgresStore
        return await PostgresStore.from_url(f"{scheme}://{rest}", clock=clock, event_bounds=event_bounds)

    return open_postgresql


def _redis_opener(scheme: str) -> _Builtin:
    async def open_redis(rest: str, clock: Clock, event_bounds: EventLogBounds | None) -> SessionStore:
        with _extra("redis", scheme, "redis-py", "redis", "hiredis"):
            from .redis.store import RedisStore
        return await RedisStore.from_url(f"{scheme}://{rest}", clock=clock, event_bounds=event_bounds)

    return open_redis


async def _open_dynamodb(rest: str, clock: Clock, event_bounds: EventLogBounds | None) -> SessionStore:
    from .dynamodb.settings import DynamoSettings

    settings = DynamoSettings.from_url(f"dynamodb://{rest}")
    with _extra("dynamodb", "dynamodb", "aiobotocore", "aiobotocore", "botocore", "aiohttp"):
        # In a thread: the import of botocore takes longer than the rest of the start.
        module = await asyncio.to_thread(importlib.import_module, ".dynamodb.store", __package__)
    return await module.DynamoStore.open(settings, clock=clock)


def sqlite_path(rest: str) -> Path:
    """The file that `sqlite://` with `rest` behind it names. Raises `StoreURLError`."""
    if not rest.startswith("/"):
        # Not echoed: what stands in the place of a host may be a user and a password.
        raise StoreURLError(
            "sqlite:// takes a file and no host: three slashes before a relative path (sqlite:///sessions.db), "
            "four before an absolute one (sqlite:////var/lib/app/sessions.db)"
        )
    text = rest[1:]
    if "?" in text or "#" in text:
        raise StoreURLError("sqlite:/// takes no ? or # part; write %3F or %23 if the file's name has one")
    path = unquote(text)
    if path in ("", "/", "~", "~/"):
        raise StoreURLError("sqlite:/// names no file; write sqlite:///sessions.db")
    if path == ":memory:":
        raise StoreURLError("a SQLite database in memory survives nothing; use memory://")
    if "\0" in path:
        raise StoreURLError("the path in a sqlite:/// URL contains a NUL")
    return Path(path).expanduser()


def _forms() -> str:
    return f"known are {', '.join(f'{scheme}://' for scheme in sorted([*_BUILTIN, *_added]))} (for example sqlite:///sessions.db)"


_added: dict[str, Opener] = {}
_BUILTIN: dict[str, _Builtin] = {
    "dynamodb": _open_dynamodb,
    "memory": _open_memory,
    "nats": _nats_opener("nats"),
    "postgres": _postgresql_opener("postgres"),
    "postgresql": _postgresql_opener("postgresql"),
    **{scheme: _redis_opener(scheme) for scheme in _REDIS},
    "sqlite": _open_sqlite,
    "tls": _nats_opener("tls"),
}
