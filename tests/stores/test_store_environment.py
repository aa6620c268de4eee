"""`--store auto`: the environment names one store, or it is said why that will not do."""

from __future__ import annotations

import subprocess
import sys

import pytest
from understudy.stores import MemoryStore, StoreURLError, open_store, store_of_environment


@pytest.mark.parametrize(
    ("environment", "variable", "url"),
    [
        ({"REDIS_URL": "redis://:secret@cache:6379/1"}, "REDIS_URL", "redis://:secret@cache:6379/1"),
        ({"VALKEY_URL": "rediss://cache"}, "VALKEY_URL", "rediss://cache"),
        ({"DATABASE_URL": "postgres://u:p@db/app"}, "DATABASE_URL", "postgresql://u:p@db/app"),
        ({"DATABASE_URL": "postgresql+asyncpg://u:p@db/app"}, "DATABASE_URL", "postgresql://u:p@db/app"),
        ({"PGHOST": "db", "PGUSER": "u"}, "PGHOST", "postgresql://"),
        ({"PGDATABASE": "app"}, "PGDATABASE", "postgresql://"),
        ({"NATS_URL": "nats://one,two"}, "NATS_URL", "nats://one,two"),
        ({"DYNAMODB_TABLE": "mcp"}, "DYNAMODB_TABLE", "dynamodb://mcp"),
        ({"UNDERSTUDY_DYNAMODB_TABLE": "mcp", "AWS_REGION": "eu-west-1"}, "UNDERSTUDY_DYNAMODB_TABLE",
         "dynamodb://mcp?region=eu-west-1"),
    ],
)  # fmt: skip
def test_one_variable_names_the_store(environment: dict[str, str], variable: str, url: str) -> None:
    found = store_of_environment(environment)
    assert (found.variable, found.url) == (variable, url)


def test_two_kinds_of_store_are_refused_by_the_names_of_their_variables() -> None:
    with pytest.raises(StoreURLError, match=r"2 stores, by REDIS_URL and DATABASE_URL") as caught:
        store_of_environment({"REDIS_URL": "redis://:s3cret@a", "DATABASE_URL": "postgres://u:s3cret@b/c"})
    assert "s3cret" not in str(caught.value)


def test_three_are_counted() -> None:
    with pytest.raises(StoreURLError, match=r"3 stores, by REDIS_URL, NATS_URL and DYNAMODB_TABLE"):
        store_of_environment({"NATS_URL": "nats://a", "REDIS_URL": "redis://b", "DYNAMODB_TABLE": "c"})


def test_two_variables_that_say_the_same_are_one_store() -> None:
    same = {"REDIS_URL": "redis://cache", "VALKEY_URL": "redis://cache"}
    assert store_of_environment(same).url == "redis://cache"
    with pytest.raises(StoreURLError, match="2 stores"):
        store_of_environment(same | {"VALKEY_URL": "redis://other"})


def test_a_database_url_is_not_doubted_because_of_what_completes_it() -> None:
    environment = {"DATABASE_URL": "postgres://db/app", "PGHOST": "db", "PGUSER": "u", "PGPASSWORD": "p"}
    assert store_of_environment(environment).url == "postgresql://db/app"


def test_a_database_that_no_store_speaks_to_is_none() -> None:
    environment = {"DATABASE_URL": "mysql://db/app", "REDIS_URL": "redis://cache"}
    assert store_of_environment(environment).variable == "REDIS_URL"


def test_what_is_said_outright_wins_over_what_is_found() -> None:
    environment = {"UNDERSTUDY_STORE": "memory://", "REDIS_URL": "redis://a", "NATS_URL": "nats://b"}
    assert store_of_environment(environment).url == "memory://"
    with pytest.raises(StoreURLError, match="2 stores"):
        store_of_environment(environment | {"UNDERSTUDY_STORE": "auto"})


@pytest.mark.parametrize("environment", [{}, {"REDIS_URL": " "}, {"AWS_REGION": "eu-west-1"}, {"PGUSER": "u"}])
def test_without_any_the_variables_are_named(environment: dict[str, str]) -> None:
    with pytest.raises(StoreURLError, match=r"names no store: set one of UNDERSTUDY_STORE, REDIS_URL.*DATABASE_URL"):
        store_of_environment(environment)


def test_a_secret_is_not_in_what_is_printed() -> None:
    assert "s3cret" not in repr(store_of_environment({"REDIS_URL": "redis://:s3cret@cache"}))


async def test_auto_opens_what_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "VALKEY_URL", "DATABASE_URL", "PGHOST", "PGDATABASE", "NATS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UNDERSTUDY_STORE", "memory://")
    store = await open_store("auto")
    assert isinstance(store, MemoryStore)
    await store.aclose()


def test_serve_with_store_auto_says_in_one_line_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:s3cret@a")
    monkeypatch.setenv("NATS_URL", "nats://b")
    for name in ("UNDERSTUDY_STORE", "VALKEY_URL", "DATABASE_URL", "PGHOST", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-m", "understudy.runtime", "serve", "understudy.runtime.demo:server", "--store", "auto"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "the environment names 2 stores, by REDIS_URL and NATS_URL" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "s3cret" not in done.stderr
