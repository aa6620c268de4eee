"""The client libraries themselves, doing by hand what a store's operation does: as many round trips, the same bytes.

None of them fences, checks an epoch or knows an index: they are what somebody writes who needs one of these operations
and no promise. DynamoDB has a second one, which does (`raw_dynamodb.py` says why).
"""
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from ..stores import StoreURLError
from .raw_dynamodb import fencing_dynamodb, raw_dynamodb

__all__ = ["RAW_CLIENTS", "RawClient"]

TTL = 3600


class RawClient(Protocol):
    """Some keys with a value each. `at` is the number of a key."""

    name: str

    async def claim(self, at: int) -> bytes:
        """Write something, and the value as it is."""
        ...

    async def load(self, at: int) -> bytes:
        """The value."""
        ...

    async def save(self, at: int, value: bytes) -> None:
        """Replace the value, and when it expires."""
        ...

    async def touch(self, at: int) -> None:
        """Move when it expires."""
        ...


class RedisClient:
    """redis-py's own pool, of as many connections as there are calls in flight."""

    name = "redis-py"

    def __init__(self, redis: Any, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix

    def key(self, at: int) -> str:
        return f"{self._prefix}:{at}"

    async def claim(self, at: int) -> bytes:
        return await self._redis.getex(self.key(at), ex=TTL)

    async def load(self, at: int) -> bytes:
        return await self._redis.get(self.key(at))

    async def save(self, at: int, value: bytes) -> None:
        await self._redis.set(self.key(at), value, ex=TTL)

    async def touch(self, at: int) -> None:
        await self._redis.expire(self.key(at), TTL)


@asynccontextmanager
async def _redis(url: str, keys: int, value: bytes) -> AsyncGenerator[RawClient]:
    from redis.asyncio import Redis

    from ..stores.redis.settings import RedisSettings

    settings = RedisSettings.from_url(url)
    if settings.mode != "server":
        raise StoreURLError("bench stores measures redis-py beside one Redis: name it by redis:// or rediss://")
    [(host, port)] = settings.servers
    files = {"ssl_ca_certs": settings.ca, "ssl_certfile": settings.cert, "ssl_keyfile": settings.key}
    redis: Any = Redis(
        host=host,
        port=port,
        db=settings.db,
        username=settings.user,
        password=settings.password,
        ssl=settings.tls,
        max_connections=keys,
        **{name: str(file) for name, file in files.items() if file is not None},  # pyright: ignore[reportArgumentType]
    )
    client = RedisClient(redis, f"understudy-bench-{secrets.token_hex(4)}")
    try:
        for at in range(keys):
            await client.save(at, value)
        yield client
    finally:
        await redis.delete(*(client.key(at) for at in range(keys)))
        await redis.aclose()


class PostgresClient:
    """asyncpg's own pool, of the ten connections that it has by default; it keeps prepared statements by itself."""

    name = "asyncpg"

    def __init__(self, pool: Any, table: str) -> None:
        self._pool = pool
        self._claim = f"UPDATE {table} SET epoch = epoch + 1 WHERE key = $1 RETURNING epoch, value"
        self._load = f"SELECT epoch, value FROM {table} WHERE key = $1"
        self._save = f"UPDATE {table} SET value = $2, version = version + 1, expires = $3 WHERE key = $1"
        self._touch = f"UPDATE {table} SET expires = $2 WHERE key = $1"

    async def claim(self, at: int) -> bytes:
        return (await self._pool.fetchrow(self._claim, str(at)))[1]

    async def load(self, at: int) -> bytes:
        return (await self._pool.fetchrow(self._load, str(at)))[1]

    async def save(self, at: int, value: bytes) -> None:
        await self._pool.execute(self._save, str(at), value, time.time() + TTL)

    async def touch(self, at: int) -> None:
        await self._pool.execute(self._touch, str(at), time.time() + TTL)


@asynccontextmanager
async def _postgresql(url: str, keys: int, value: bytes) -> AsyncGenerator[RawClient]:
    import asyncpg

    from ..stores.postgresql.settings import PostgresSettings

    settings = PostgresSettings.from_url(url)
    untyped: Any = asyncpg
    pool: Any = await untyped.create_pool(
        dsn=f"postgresql://?{settings.tls_query}" if settings.tls else None,
        host=[host for host, _ in settings.hosts] or None,
        port=[port for _, port in settings.hosts] or None,
        user=settings.user,
        password=settings.password,
        database=settings.database,
    )
    table = f"understudy_bench_{secrets.token_hex(4)}"
    try:
        await pool.execute(
            f"CREATE TABLE {table} (key text PRIMARY KEY, epoch int8, version int8, expires float8, value bytea)"
            " WITH (fillfactor = 50)"
        )
        rows = [(str(at), value) for at in range(keys)]
        await pool.executemany(f"INSERT INTO {table} VALUES ($1, 1, 1, 0, $2)", rows)
        yield PostgresClient(pool, table)
    finally:
        await pool.execute(f"DROP TABLE IF EXISTS {table}")
        await pool.close()


class NatsKeyValue:
    """nats-py's key-value bucket. It can only replace a value, so a claim and a touch read first, as ours do."""

    name = "nats-py"

    def __init__(self, bucket: Any, revisions: list[int]) -> None:
        self._bucket = bucket
        self._revisions = revisions

    async def claim(self, at: int) -> bytes:
        entry = await self._bucket.get(str(at))
        self._revisions[at] = await self._bucket.update(str(at), entry.value, last=entry.revision)
        return entry.value

    async def load(self, at: int) -> bytes:
        return (await self._bucket.get(str(at))).value

    async def save(self, at: int, value: bytes) -> None:
        self._revisions[at] = await self._bucket.update(str(at), value, last=self._revisions[at])

    async def touch(self, at: int) -> None:
        await self.claim(at)


@asynccontextmanager
async def _nats(url: str, keys: int, value: bytes) -> AsyncGenerator[RawClient]:
    import nats

    from ..stores.nats.credentials import credentials
    from ..stores.nats.settings import split_nats_url

    settings, _, options = split_nats_url(url)
    login = credentials(settings)
    if "public_nkey" in login:
        raise StoreURLError("bench stores measures nats-py with a user, a token or none, not with an NKey")
    client: Any = await nats.connect(list(settings.servers), **login)
    name = f"understudy-bench-{secrets.token_hex(4)}"
    stream: Any = client.jetstream()
    try:
        bucket: Any = await stream.create_key_value(bucket=name, history=1, replicas=int(options.get("replicas", "1")))
        yield NatsKeyValue(bucket, [await bucket.put(str(at), value) for at in range(keys)])
        await stream.delete_key_value(name)
    finally:
        await client.close()


class SqliteClient:
    """sqlite3 in one thread, so that the event loop does not wait for the disk; a commit a write."""

    name = "sqlite3"

    def __init__(self, database: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._database = database
        self._thread = thread

    def _run(self, statement: str, values: Sequence[object]) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: self._database.execute(statement, values).fetchone()
        )

    async def claim(self, at: int) -> bytes:
        return (await self._run("UPDATE raw SET epoch = epoch + 1 WHERE key = ? RETURNING value", (str(at),)))[0]

    async def load(self, at: int) -> bytes:
        return (await self._run("SELECT value FROM raw WHERE key = ?", (str(at),)))[0]

    async def save(self, at: int, value: bytes) -> None:
        await self._run("UPDATE raw SET value = ?, expires = ? WHERE key = ?", (value, time.time() + TTL, str(at)))

    async def touch(self, at: int) -> None:
        await self._run("UPDATE raw SET expires = ? WHERE key = ?", (time.time() + TTL, str(at)))


@asynccontextmanager
async def _sqlite(url: str, keys: int, value: bytes) -> AsyncGenerator[RawClient]:
    from ..stores.url import sqlite_path

    # A file of its own, beside the store's: on the same disk.
    path = sqlite_path(url.removeprefix("sqlite://"))
    path = path.with_name(f"{path.name}.bench-{secrets.token_hex(4)}")
    with ThreadPoolExecutor(1) as thread:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("CREATE TABLE raw (key TEXT PRIMARY KEY, epoch, expires, value BLOB) WITHOUT ROWID")
            database.executemany("INSERT INTO raw VALUES (?, 1, 0, ?)", [(str(at), value) for at in range(keys)])
            yield SqliteClient(database, thread)
        finally:
            database.close()
            _remove(path)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


Opening = Callable[[str, int, bytes], Any]
"""An async context manager of a `RawClient`, from a store's URL, how many keys, and their first value."""

RAW_CLIENT = "raw client"

RAW_CLIENTS: dict[str, dict[str, Opening]] = {
    "dynamodb": {RAW_CLIENT: raw_dynamodb, "raw client that fences": fencing_dynamodb},
    "nats": {RAW_CLIENT: _nats},
    "tls": {RAW_CLIENT: _nats},
    "postgres": {RAW_CLIENT: _postgresql},
    "postgresql": {RAW_CLIENT: _postgresql},
    "redis": {RAW_CLIENT: _redis},
    "rediss": {RAW_CLIENT: _redis},
    "sqlite": {RAW_CLIENT: _sqlite},
}
"""By the scheme of the store's URL, and by what a report calls them; the last one is what the store is judged beside.
What they make there is gone when they close."""
