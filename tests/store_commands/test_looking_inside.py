"""`understudy store stat` and `export`: all of it, in numbers and as lines of JSON."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_commands.conftest import run
from understudy.actors.session import SessionSnapshot
from understudy.actors.session.state import pack_state
from understudy.runtime.store_commands.counting import Tally
from understudy.runtime.store_commands.exporting import as_json_value
from understudy.stores import Address, EncryptedStore, KeyRing, RecordInfo, event_log_of, open_store

STATE: dict[str, Any] = {
    "text": "tea at four ☕",
    "bytes": b"\x00\xff",
    "when": datetime(2026, 7, 28, 16, 0, tzinfo=UTC),
    "ratio": float("inf"),
    "nested": [{"$bytes": "no"}, {1: "one"}],
}
READABLE = {
    "text": "tea at four ☕",
    "bytes": {"$bytes": "AP8="},
    "when": {"$datetime": "2026-07-28T16:00:00+00:00"},
    "ratio": {"$float": "inf"},
    "nested": [{"$map": [["$bytes", "no"]]}, {"$map": [[1, "one"]]}],
}


def snapshot(tenant: str) -> bytes:
    packed = pack_state(STATE, 2**20)
    return SessionSnapshot("handshake", tenant, "ada", "2025-11-25", client=b'{"a":1}', state=packed).pack()


async def fill(url: str, count: int, keys: KeyRing | None = None) -> None:
    store = await open_store(url)
    writer = store if keys is None else EncryptedStore(store, keys)
    for number in range(count):
        tenant = "acme" if number % 3 else "blue"
        address = Address("session", f"s-{number}")
        await writer.create(
            address, tenant=tenant, owner="node-1", snapshot=snapshot(tenant), ttl=60 + 7200 * (number % 2)
        )
    log = event_log_of(store)
    assert log is not None or url.startswith("dynamodb:")
    if log is not None:
        await log.append(Address("session", "s-0"), "call", 1, [b"event"], head=b"", writer="w")
    await store.aclose()


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_a_store_is_counted(url: str) -> None:
    run("init", url)
    asyncio.run(fill(url, 30))
    found = json.loads(run("stat", url, "--json", "--soon", "1h").stdout)
    assert found["sessions"] == 30
    assert found["kinds"] == {"session": 30}
    assert found["top_tenants"] == {"acme": 20, "blue": 10}
    assert found["expiring_soon"] == 15
    assert found["oldest_created"] <= found["oldest_updated"]
    sizes = found["sizes"]
    if "snapshot_bytes" in sizes:
        assert sizes["snapshot_bytes"] == sum(len(snapshot("acme" if n % 3 else "blue")) for n in range(30))
    assert sizes.get("streams", 1) == 1
    assert sizes.get("event_bytes", 1) > 0
    shown = run("stat", url, "--top", "1").stdout
    assert "acme" in shown
    assert "blue" not in shown
    assert "and 1 more" in shown


def test_all_sessions_are_exported_with_their_state(url: str) -> None:
    run("init", url)
    asyncio.run(fill(url, 30))
    exported = run("export", url)
    assert exported.exit_code == 0, exported.output
    found = lines(exported.stdout)
    assert {line["id"] for line in found} == {f"s-{n}" for n in range(30)}
    assert len(found) == 30
    for line in found:
        assert (line["kind"], line["owner"], line["epoch"], line["version"]) == ("session", "node-1", 1, 1)
        assert line["state"] == READABLE
        assert line["principal"] == "ada"
        assert not line["encrypted"]
    assert {line["tenant"] for line in lines(run("export", url, "--tenant", "blue").stdout)} == {"blue"}


def test_encrypted_sessions_need_their_keys(tmp_path: Path) -> None:
    url, file = f"sqlite:///{tmp_path}/a.db", tmp_path / "keys"
    file.write_text(f"one {base64.b64encode(bytes(32)).decode()}\n")
    other = tmp_path / "others"
    other.write_text(f"one {base64.b64encode(bytes([1] * 32)).decode()}\n")
    asyncio.run(fill(url, 3, KeyRing.from_file(file)))
    without = run("export", url)
    assert without.exit_code == 1
    assert "3 could not be read" in without.stderr
    for line in lines(without.stdout):
        assert "--encryption-keys" in line["error"]
        assert "state" not in line
        assert base64.b64decode(line["snapshot"]["$bytes"]).startswith(b"\xc1us")
    read = run("export", url, "--encryption-keys", str(file))
    assert read.exit_code == 0
    assert all(line["state"] == READABLE and line["encrypted"] for line in lines(read.stdout))
    wrong = run("export", url, "--encryption-keys", str(other))
    assert wrong.exit_code == 1
    assert all("cannot be opened" in line["error"] for line in lines(wrong.stdout))
    assert run("export", url, "--encryption-keys", str(tmp_path / "none")).exit_code == 2


def test_what_is_damaged_does_not_keep_the_rest_from_being_exported(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"

    async def damage() -> None:
        await fill(url, 2)
        store = await open_store(url)
        await store.create(Address("session", "bad"), tenant="t", owner="n", snapshot=b"\xc1", ttl=60)
        await store.create(Address("counter", "c"), tenant="t", owner="n", snapshot=b"own", ttl=60)
        await store.aclose()

    asyncio.run(damage())
    exported = run("export", url)
    assert exported.exit_code == 1
    found = {line["id"]: line for line in lines(exported.stdout)}
    assert found["s-0"]["state"] == READABLE
    assert "not msgpack" in found["bad"]["error"]
    assert found["bad"]["snapshot"] == {"$bytes": "wQ=="}
    assert found["c"]["snapshot"] == {"$bytes": "b3du"}
    assert "error" not in found["c"]


texts = st.text(max_size=8)
moments = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0))
keys = texts | st.integers(0, 9) | st.sampled_from(["$bytes", "$map", "$float", "$datetime"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts | st.binary() | moments,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)


def _back(value: Any) -> Any:
    if isinstance(value, list):
        return [_back(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$bytes": text, **rest} if not rest:
            return base64.b64decode(text)
        case {"$datetime": text, **rest} if not rest:
            return datetime.fromisoformat(text)
        case {"$float": text, **rest} if not rest:
            return float(text)
        case {"$map": pairs, **rest} if not rest:
            return {_back(key): _back(item) for key, item in pairs}
        case _:
            return {key: _back(item) for key, item in value.items()}


@given(values)
def test_nothing_of_a_state_is_lost_in_json(value: Any) -> None:
    again = _back(json.loads(json.dumps(as_json_value(value), allow_nan=False)))
    assert repr(again) == repr(value)


@given(st.lists(st.sampled_from("abcdefgh")), st.integers(1, 4))
def test_a_tenant_with_many_sessions_is_found_among_more_than_can_be_counted(tenants: list[str], most: int) -> None:
    tally = Tally(0.0, 60.0, most)
    for tenant in tenants:
        tally.add(RecordInfo(Address("session", "x"), tenant, 1, 1, "n", 0.0, 0.0, 1.0))
    exact = Counter(tenants)
    assert len(tally.tenants) <= most
    assert tally.sessions == len(tenants)
    for tenant, number in exact.items():
        assert number - tally.missed <= tally.tenants[tenant] <= number
        if number > len(tenants) / (most + 1):
            assert tenant in tally.tenants
    if len(exact) <= most:
        assert tally.tenants == exact


def test_a_store_that_goes_away_in_the_middle_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from understudy.stores import SQLiteStore, StoreUnavailable

    url = f"sqlite:///{tmp_path}/a.db"
    asyncio.run(fill(url, 2))

    async def away(self: SQLiteStore, **_: object) -> None:
        raise StoreUnavailable("the disk is gone", outcome_unknown=False)

    monkeypatch.setattr(SQLiteStore, "list", away)
    for command in ("stat", "export"):
        failed = run(command, url)
        assert failed.exit_code == 1
        assert failed.stderr == "understudy: the disk is gone\n"
