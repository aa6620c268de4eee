"""Fixtures for every room's tests."""

import asyncio
import gc
import logging
import os
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from support import ServerProcess
from support import free_port as find_free_port
from support.dynamodb import CREDENTIALS, DynamoServer, dynamodb_missing, fresh_table_name
from support.forked_process import allow_forks
from support.nats import nats_missing
from support.postgres import PgBouncer, PostgresServer, fresh_database_name, pgbouncer_missing, postgres_missing
from support.redis import RedisCluster, RedisServer, redis_missing
from understudy.runtime.commands.nats_server import NatsServer, NatsServerOptions

# On a developer's machine Hypothesis looks for new faults; CI repeats what is known, so that a change is judged alone.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


LONGEST = (
    "cluster/test_shop_balancers.py",
    "stores/test_nats_store.py",
    "cluster/test_reattachment.py",
    "stores/test_nats_events.py",
    "bench/test_cluster_bench_commands.py",
    "stores/test_redis_faults.py",
    "stores/test_dynamodb_faults.py",
    "bench/test_store_bench_commands.py",
    "cluster_cli/test_running_a_cluster.py",
    "stores/test_postgres_contract.py",
    "clients/test_python_clients.py",
    "stores/test_dynamodb_store.py",
    "chaos/test_route.py",
    "chaos/test_chaos_stores.py",
    "restart/test_kill_stores.py",
    "moving/test_moving_cluster.py",
    "readme/test_readme.py",
    "clients/test_typescript_clients.py",
    "tenants/test_rotation_under_load.py",
    "stores/test_encrypted_store.py",
    "conformance/test_conformance.py",
    "runtime/test_serve.py",
    "store_commands/test_copying.py",
    "bench/test_bench_commands.py",
    "cluster/test_bus_gaps.py",
    "chaos/test_chaos_refusals.py",
    "restart/test_kill.py",
    "simulation/test_mutations.py",
    "chaos/test_limits_scene.py",
    "chaos/test_struck_streams.py",
    "chaos/test_many_tenants.py",
    "runtime/test_scene.py",
)
"""Files that take ten seconds or so, the longest first."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fresh-starts", action="store_true", help="start each server as the command line does; none is forked"
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--fresh-starts"):
        allow_forks()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin first, so that none is left to one worker of pytest-xdist while the others are done."""
    tests = Path(__file__).parent
    ranks = {tests / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def pytest_collection_finish() -> None:
    """Thousands of tests are some hundred megabytes of objects that stay: no collection need look at them again."""
    _set_aside()


@pytest.fixture(autouse=True, scope="session")
def tools_parsed_once() -> Iterator[None]:
    """See `support.parsed_tools`."""
    from support.parsed_tools import parsed_once

    with parsed_once():
        yield


@pytest.fixture
def tools_parsed_anew(tools_parsed_once: None) -> Iterator[None]:
    """For tests whose subject is what servers share."""
    from support.parsed_tools import parsed_anew

    with parsed_anew():
        yield


@pytest.fixture(autouse=True, scope="module")
def garbage_of_its_own() -> Iterator[None]:
    """Collects what a file leaves behind, so that none other is blamed for it. What then remains is its reports and
    what it has imported: that stays too, and each later collection would look at all of it."""
    yield
    _set_aside()


def _set_aside() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """Undoes what a test changes of its whole process by having the command line run in it: loggers, hooks, `sys.path`.

    Without it a test passes or fails by which others its worker has run before.
    """
    hooks = sys.excepthook, threading.excepthook
    path = sys.path[:]
    before = {each: (each.level, each.propagate, each.disabled, each.handlers[:]) for each in _loggers()}
    yield
    sys.excepthook, threading.excepthook = hooks
    if sys.path != path:
        sys.path[:] = path
    for each in _loggers():
        # A new one is as the library has made it that was imported; only its level may be the test's.
        new = (logging.NOTSET, each.propagate, each.disabled, each.handlers)
        level, each.propagate, each.disabled, handlers = before.get(each, new)
        if each.level != level:
            each.setLevel(level)
        if each.handlers != handlers:
            # pytest hangs its own in for each phase of a test, and out again.
            its_own = [handler for handler in each.handlers if type(handler).__module__.startswith("_pytest.")]
            kept = [handler for handler in handlers if not type(handler).__module__.startswith("_pytest.")]
            each.handlers[:] = kept + its_own


def _loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.values()
    return [logging.getLogger(), *(each for each in known if isinstance(each, logging.Logger))]


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    return find_free_port()


@pytest.fixture
def disk_path() -> Iterator[Path]:
    """An empty folder that is on a disk also where `tmp_path` is in memory, whose files the store itself warns of."""
    with tempfile.TemporaryDirectory(prefix="understudy-test-", dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., ServerProcess]]:
    """Servers under test: `async with serve("file.py:attr", "--store", "memory://") as server`.

    Takes what `support.ServerProcess` takes. What a test leaves running is killed when it ends.
    """
    async with AsyncExitStack() as stack:

        def make(target: str, *args: str, **options: object) -> ServerProcess:
            server = ServerProcess(target, *args, **options)  # type: ignore[arg-type]
            stack.push_async_callback(server.__aexit__)
            return server

        yield make


@pytest.fixture(scope="module")
def processes_are_forked() -> Iterator[None]:
    """For code that starts nodes and hosts itself: see `support.forked_popen`. `--fresh-starts` switches it off."""
    from support.forked_popen import forked_popen

    with forked_popen():
        yield


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One nats-server with JetStream for all tests, without a password. Each test takes names of its own
    (`support.nats.fresh_name`) and leaves the server running; one that must stop it makes its own with
    `nats_servers`."""
    reason = nats_missing()
    if reason is not None:
        pytest.skip(reason)
    server = NatsServer(tmp_path_factory.mktemp("nats"), NatsServerOptions(max_file_store=2**50))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def nats_url(nats_server: NatsServer) -> str:
    """The URL of the nats-server that all tests share."""
    return nats_server.url


@pytest.fixture
async def nats_servers(tmp_path: Path) -> AsyncIterator[Callable[..., NatsServer]]:
    """Private nats-servers: `async with nats_servers(user="u", password="p") as server`.

    Takes the fields of `NatsServerOptions`. What a test leaves running is stopped when it ends.
    """
    reason = nats_missing()
    if reason is not None:
        pytest.skip(reason)
    async with AsyncExitStack() as stack:
        made = 0

        def make(**options: object) -> NatsServer:
            nonlocal made
            made += 1
            server = NatsServer(tmp_path / f"nats-{made}", NatsServerOptions(**options))  # type: ignore[arg-type]
            stack.push_async_callback(server.stop)
            return server

        yield make


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests. Each test takes a database of its own (`postgres_url`), names its roles by
    `support.postgres.fresh_database_name`, and leaves the server running; one that must stop it takes
    `postgres_servers`."""
    reason = postgres_missing()
    if reason is not None:
        pytest.skip(reason)
    with PostgresServer() as server:
        yield server


@pytest.fixture
async def postgres_database(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """The name of a database of the shared PostgreSQL that is empty, and gone after the test with whoever uses it."""
    import asyncpg

    name = fresh_database_name()
    admin = await asyncpg.connect(postgres_server.url())
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        yield name
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_database: str) -> str:
    """The URL of `postgres_database`, as the superuser."""
    return postgres_server.url(postgres_database)


@pytest.fixture
def postgres_servers() -> Iterator[Callable[..., PostgresServer]]:
    """Private PostgreSQLs, for tests that stop, freeze or crash them: `with postgres_servers(fsync=True) as server`.

    Takes what `PostgresServer` takes. A first start costs two seconds.
    """
    reason = postgres_missing()
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as stack:

        def make(**options: object) -> PostgresServer:
            server = PostgresServer(**options)  # type: ignore[arg-type]
            stack.callback(server.close)
            return server

        yield make


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode before the shared PostgreSQL, with 4 connections for each database and role:
    `pgbouncer.url(postgres_database)`."""
    reason = pgbouncer_missing()
    if reason is not None:
        pytest.skip(reason)
    with PgBouncer(postgres_server) as server:
        yield server


@pytest.fixture
def pgbouncer_url(pgbouncer: PgBouncer, postgres_database: str) -> str:
    """The URL of `postgres_database` by way of PgBouncer in transaction mode, as the superuser."""
    return pgbouncer.url(postgres_database)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for all tests. Each test takes a prefix of its own (`support.redis.fresh_prefix`) and leaves the server
    running as it is; one that must stop or change it makes its own with `redis_servers`."""
    reason = redis_missing()
    if reason is not None:
        pytest.skip(reason)
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of the Redis that all tests share."""
    return redis_server.url


@pytest.fixture
def redis_servers() -> Iterator[Callable[..., RedisServer]]:
    """Private Redises, not yet started: `with redis_servers(durable=True) as server`.

    Takes what `RedisServer` takes.
    """
    reason = redis_missing()
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as stack:

        def make(**options: object) -> RedisServer:
            server = RedisServer(**options)  # type: ignore[arg-type]
            stack.callback(server.close)
            return server

        yield make


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """One Redis cluster of three primaries for all tests. A test that moves slots or stops a node puts it
    right again."""
    reason = redis_missing()
    if reason is not None:
        pytest.skip(reason)
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def dynamodb_server() -> Iterator[DynamoServer]:
    """One DynamoDB, played by moto, for all tests, and its credentials in the environment. Each test takes a table of
    its own (`dynamodb_url`) and leaves the server as it is."""
    reason = dynamodb_missing()
    if reason is not None:
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
            environment.delenv(name, raising=False)
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        with DynamoServer() as server:
            yield server


@pytest.fixture
def dynamodb_url(dynamodb_server: DynamoServer) -> str:
    """The URL of a table of the shared DynamoDB that is new and empty."""
    table = fresh_table_name()
    dynamodb_server.create_table(table)
    return dynamodb_server.url(table)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Some tests make servers log what is no Unicode; pytest-xdist could not bring that home."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report
