"""`open_store`: which URL opens what, and what is said of the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from understudy.stores import (
    EventLogBounds,
    MemoryStore,
    SQLiteStore,
    StoreCorrupt,
    StoreUnavailable,
    StoreURLError,
    event_log_of,
    open_store,
    register_scheme,
    url,
)
from understudy.stores.testing import ManualTime


async def test_memory_opens_a_memory_store_with_the_given_clock() -> None:
    clock = ManualTime(5.0)
    store = await open_store("memory://", clock=clock)
    assert isinstance(store, MemoryStore)
    assert (await _created(store)) == 5.0
    await store.aclose()


async def test_three_slashes_name_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = await open_store("sqlite:///here.db", clock=ManualTime(5.0))
    assert isinstance(store, SQLiteStore)
    assert store.path == Path("here.db")
    assert (await _created(store)) == 5.0
    await store.aclose()
    assert os.listdir(tmp_path) == ["here.db"]


async def test_four_slashes_name_an_absolute_path(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/there.db")
    assert isinstance(store, SQLiteStore)
    assert store.path == tmp_path / "there.db"
    await store.aclose()


async def test_a_tilde_names_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = await open_store("sqlite:///~/home.db")
    assert isinstance(store, SQLiteStore)
    assert store.path == tmp_path / "home.db"
    await store.aclose()


async def test_a_path_may_be_percent_encoded(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/a%20b%3F%23%25.db")
    assert isinstance(store, SQLiteStore)
    assert store.path.name == "a b?#%.db"
    await store.aclose()
    store = await open_store(f"sqlite:///{tmp_path}/a%20b%3F%23%25.db")
    await store.aclose()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "starts with its kind"),
        ("sessions.db", "starts with its kind"),
        ("/var/lib/sessions.db", "starts with its kind"),
        ("mysql://localhost/db", "no store 'mysql'"),
        ("SQLITE:///x.db", "starts with its kind"),
        ("memory", "starts with its kind"),
        ("memory:", "continues with ://"),
        ("memory://x", "nothing after the slashes"),
        ("sqlite:", "continues with ://"),
        ("sqlite:x.db", "continues with ://"),
        ("sqlite://", "three slashes"),
        ("sqlite://x.db", "three slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:////", "names no file"),
        ("sqlite:///~", "names no file"),
        ("sqlite:///:memory:", "use memory://"),
        ("sqlite:///x.db?mode=ro", "no \\? or # part"),
        ("sqlite:///x.db#frag", "no \\? or # part"),
        ("sqlite:///x%00.db", "NUL"),
        ("postgresql:localhost/db", "continues with ://"),
        ("dynamodb:table", "continues with ://"),
        ("nats:", "continues with ://"),
    ],
)
async def test_a_url_that_opens_nothing_says_why_and_what_is_known(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreURLError, match=says) as caught:
        await open_store(text)
    assert "sqlite:///" in str(caught.value) or "memory://" in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:hunter2@localhost/hunter2",
        "redis://hunter2@localhost",
        "redis://user:hunter2@one,two",
        "redis://user:pw@host:hunter2/0",
        "redis+sentinel://:hunter2@localhost",
        "redis+cluster://:hunter2@localhost/1",
        "rediss://:hunter2@localhost?password=hunter2",
        "mysql://user:hunter2@localhost/db?password=hunter2",
        "sqlite://user:hunter2@localhost/x.db",
        "sqlite:///x.db?key=hunter2",
        "memory://hunter2",
        "user:hunter2@localhost",
        "hunter2",
        "redis:hunter2",
        "dynamodb://user:hunter2@table",
        "dynamodb://hunter2!",
        "dynamodb://table?password=hunter2",
        "dynamodb://table?endpoint=http://user:hunter2@host",
        "nats://user:hunter2@host:hunter2",
        "nats://user:hunter2@host/bucket?token=hunter2",
        "nats://user:hunter2@host/hunter2 ",
        "nats://user:hunter2@-/bucket",
        "://hunter2",
    ],
)
async def test_a_secret_in_a_url_never_comes_back_in_the_error(text: str) -> None:
    with pytest.raises(StoreURLError) as caught:
        await open_store(text)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in f"{error} {error.args}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nats://", "names no host"),
        ("tls://", "names no host"),
        ("nats://user:pass@host:port", "no number"),
        ("nats://host:4222?colour=red", "unknown option 'colour'"),
    ],
)
async def test_a_nats_url_that_makes_no_sense_says_why(text: str, says: str) -> None:
    with pytest.raises(StoreURLError, match=says):
        await open_store(text)


@pytest.mark.parametrize(
    ("scheme", "module", "extra"),
    [
        ("nats", "nats", "cluster"),
        ("tls", "nats", "cluster"),
        ("redis", "redis", "redis"),
        ("redis+sentinel", "hiredis", "redis"),
        ("dynamodb", "aiobotocore", "dynamodb"),
    ],
)
def test_a_store_whose_extra_is_missing_says_how_to_get_it(scheme: str, module: str, extra: str) -> None:
    place = "sessions?profile=secret" if scheme == "dynamodb" else "user:secret@host/bucket"
    script = (
        "import asyncio, sys\n"
        f"sys.modules['{module}'] = None\n"
        "from understudy.stores import StoreURLError, open_store\n"
        "try:\n"
        f"    asyncio.run(open_store('{scheme}://{place}'))\n"
        "except StoreURLError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert f"pip install 'understudy[{extra}]'" in done.stdout
    assert "secret" not in done.stdout


async def test_what_the_store_itself_refuses_comes_through(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database")
    with pytest.raises(StoreCorrupt, match=r"notes\.txt"):
        await open_store(f"sqlite:///{tmp_path}/notes.txt")
    with pytest.raises(StoreUnavailable, match="create it first"):
        await open_store(f"sqlite:///{tmp_path}/missing/x.db")


async def test_a_scheme_of_your_own_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url, "_added", dict(url._added))
    opened: list[str] = []

    async def open_mine(rest: str, clock: object) -> MemoryStore:
        opened.append(rest)
        return MemoryStore()

    register_scheme("mine", open_mine)
    await open_store("mine://somewhere/else?a=b")
    assert opened == ["somewhere/else?a=b"]
    with pytest.raises(StoreURLError, match="mine://"):
        await open_store("unknown://")


@pytest.mark.parametrize("scheme", ["memory", "", "Upper", "with space", "x" * 40, "a:b"])
def test_a_scheme_that_is_taken_or_no_word_cannot_be_registered(scheme: str) -> None:
    async def open_mine(rest: str, clock: object) -> MemoryStore:
        return MemoryStore()

    with pytest.raises(ValueError, match="scheme"):
        register_scheme(scheme, open_mine)


async def test_a_store_is_opened_with_the_bounds_of_its_event_log(tmp_path: Path) -> None:
    bounds = EventLogBounds(max_events=7)
    for name in ("memory://", f"sqlite:///{tmp_path}/x.db"):
        store = await open_store(name, event_bounds=bounds)
        log = event_log_of(store)
        assert log is not None
        assert log.bounds == bounds
        await store.aclose()


async def _created(store: MemoryStore | SQLiteStore) -> float:
    from understudy.stores import Address

    record = await store.create(Address.new("session"), tenant="acme", owner="n", snapshot=b"", ttl=1.0)
    return record.created
