"""`understudy store init`, `check` and `migrate`: nothing is made unasked, nothing twice, and what is wrong is said."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from store_commands.conftest import run
from support.dynamodb import DynamoServer, fresh_table_name
from understudy.stores import MemoryStore, Page

GOLDEN = Path(__file__).parents[1] / "stores" / "golden"


def test_a_dry_run_makes_nothing_and_init_makes_all_of_it_once(url: str) -> None:
    planned = run("init", url, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "would: " in planned.output
    assert "there: " not in planned.output
    assert run("init", url, "--dry-run").stdout.count("would: ") == planned.stdout.count("would: ")

    made = run("init", url)
    assert made.exit_code == 0, made.output
    assert "made: " in made.stdout
    again = run("init", url)
    assert again.exit_code == 0, again.output
    assert "nothing to do" in again.stdout
    assert "made: " not in again.stdout
    assert again.stdout.count("there: ") == made.stdout.count("made: ")
    assert "nothing to do" in run("init", url, "--dry-run").stdout
    assert "nothing to do" in run("migrate", url).stdout


def test_a_check_finds_a_store_well_and_leaves_nothing_behind(url: str) -> None:
    run("init", url)
    checked = run("check", url, "--json")
    found = json.loads(checked.stdout)
    assert found["error"] is None
    assert checked.exit_code == (1 if found["warnings"] else 0)
    assert found["verdict"] == ("warnings" if found["warnings"] else "well")
    events = "" if url.startswith("dynamodb:") else "append read drop"
    steps = f"connect ping create claim save touch load fence list {events} expire sweep"
    assert list(found["seconds"]) == steps.split()
    assert found["seconds"]["expire"] >= 0.2
    assert json.loads(run("stat", url, "--json").stdout)["sessions"] == 0
    shown = run("check", url)
    assert shown.exit_code == checked.exit_code
    assert "all is well" in shown.output or "it works" in shown.output


def test_what_is_not_there_is_said_and_not_made(url: str) -> None:
    checked = run("check", url)
    assert checked.exit_code == 2
    assert "there is no store at" in checked.output
    for command in ("stat", "export", "migrate"):
        refused = run(command, url)
        assert refused.exit_code == 1
        assert "there is no store at" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert "would: " in run("init", url, "--dry-run").stdout


def test_the_settings_of_a_redis_that_may_lose_sessions_are_said(place: Callable[[str], str]) -> None:
    url = place("redis")  # the shared one has appendfsync no
    run("init", url)
    checked = run("check", url, "--json")
    assert checked.exit_code == 1
    assert any("appendfsync" in warning for warning in json.loads(checked.stdout)["warnings"])


def test_a_bucket_in_memory_is_said(place: Callable[[str], str]) -> None:
    url = f"{place('nats')}?storage=memory"
    assert run("init", url).exit_code == 0
    checked = run("check", url)
    assert checked.exit_code == 1
    assert "memory of NATS" in checked.output


def test_a_store_that_takes_the_saves_of_a_former_owner_is_broken(
    place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = place("sqlite")
    run("init", url)

    class Careless(MemoryStore):
        async def save(self, *args: object, epoch: int, **others: object) -> None:
            if epoch > 1:
                await super().save(*args, epoch=epoch, **others)  # type: ignore[arg-type]

    async def open_careless(url: str) -> Careless:
        return Careless()

    monkeypatch.setattr("understudy.runtime.store_commands.reaching.open_store", open_careless)
    checked = run("check", url)
    assert checked.exit_code == 2
    assert "broken at fence" in checked.output


def test_a_store_that_hangs_is_given_up(place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    url = place("sqlite")
    run("init", url)

    class Hanging(MemoryStore):
        async def list(self, **_: object) -> Page:
            await asyncio.Event().wait()
            raise AssertionError

    async def open_hanging(url: str) -> Hanging:
        return Hanging()

    monkeypatch.setattr("understudy.runtime.store_commands.reaching.open_store", open_hanging)
    checked = run("check", url, "--timeout", "0.2")
    assert checked.exit_code == 2
    assert "broken at list: it took longer than 0.2 s" in checked.output
    counted = run("stat", url, "--timeout", "0.2")
    assert counted.exit_code == 1
    assert "--timeout" in counted.stderr


def test_an_older_file_is_left_alone_until_it_is_brought_forward(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((GOLDEN / "sqlite-1.sql").read_text())
    url, before = f"sqlite:///{path}", path.read_bytes()
    assert "would: CREATE TABLE IF NOT EXISTS streams" in run("migrate", url, "--dry-run").stdout
    assert run("check", url).exit_code == 2
    assert "understudy store migrate" in run("check", url).output
    assert "understudy store migrate" in run("stat", url).stderr
    assert path.read_bytes() == before

    migrated = run("migrate", url)
    assert migrated.exit_code == 0, migrated.output
    assert "from format 1 to 2" in migrated.stdout
    assert "nothing to do" in run("migrate", url).stdout
    assert json.loads(run("stat", url, "--json").stdout)["sessions"] == 1


def test_a_newer_file_is_refused_by_every_command_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    run("init", f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    for command in ("init", "migrate", "stat", "export"):
        refused = run(command, f"sqlite:///{path}")
        assert refused.exit_code == 1
        assert "version 99" in refused.stderr
    checked = run("check", f"sqlite:///{path}")
    assert checked.exit_code == 2
    assert "version 99" in checked.output
    assert path.read_bytes() == before


@pytest.mark.parametrize("command", ["init", "check", "stat", "export", "migrate"])
def test_memory_and_nonsense_are_refused_in_one_line(command: str) -> None:
    for url in ("memory://", "nonsense", "mysql://user:secret@host/db"):
        refused = run(command, url)
        assert refused.exit_code == 2
        assert len(refused.stderr.splitlines()) == 1
        assert "secret" not in refused.output


def test_the_url_can_be_in_the_environment(disk_path: Path) -> None:
    assert run("init", UNDERSTUDY_STORE=f"sqlite:///{disk_path}/a.db").exit_code == 0
    assert run("check", UNDERSTUDY_STORE=f"sqlite:///{disk_path}/a.db").exit_code == 0


def test_templates_of_a_table_are_printed_and_nothing_is_asked() -> None:
    url = "dynamodb://sessions?region=eu-west-1&endpoint=http://127.0.0.1:1"
    made = run("init", url, "--cloudformation")
    assert json.loads(made.stdout)["Resources"]["Sessions"]["Properties"]["TableName"] == "sessions"
    assert 'resource "aws_dynamodb_table" "sessions"' in run("init", url, "--terraform").stdout
    refused = run("init", "sqlite:///sessions.db", "--terraform")
    assert refused.exit_code == 2
    assert "only of dynamodb://" in refused.stderr


def test_a_table_whose_time_to_live_is_off_is_warned_of_until_init_turns_it_on(
    dynamodb_server: DynamoServer,
) -> None:
    table = fresh_table_name()
    dynamodb_server.create_table(table, TimeToLiveSpecification=None)
    url = dynamodb_server.url(table)
    assert "would: UpdateTimeToLive" in run("init", url, "--dry-run").stdout
    made = run("init", url)
    assert "made: time to live on ttl" in made.stdout
    assert "warning" not in made.stderr
    assert run("check", url).exit_code == 0
