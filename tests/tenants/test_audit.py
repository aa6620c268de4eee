"""The audit trail: every deed once, with who did it and what came of it, and nothing that should not be in it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster.household import household
from edge.client import Client, hosting, hosting_modern, initialize_params, put_to_sleep
from edge.server import Stage, make_server
from mcp.server.mcpserver.exceptions import ToolError
from starlette.requests import Request
from support.patience import PATIENCE
from understudy.actors.session import TenantContext
from understudy.runtime import (
    Audit,
    AuditEntry,
    ConfigurationError,
    Limits,
    Runtime,
    StateConflict,
    Unauthenticated,
)
from understudy.runtime.audit import audit as audit_module
from understudy.runtime.audit.audit import AuditTrail
from understudy.runtime.audit.audit_file import AuditFile
from understudy.runtime.cluster.operations import operations
from understudy.runtime.commands.config import ServeOptions
from understudy.runtime.commands.serve import make_runtime
from understudy.runtime.commands.target import Target
from understudy.runtime.telemetry.metric_names import GAUGES, TOTALS
from understudy.stores import Address

PEOPLE = {"Bearer ann": TenantContext("acme", "ann"), "Bearer bob": TenantContext("other", "bob")}


def who(request: Request) -> TenantContext:
    try:
        return PEOPLE[request.headers["authorization"]]
    except KeyError:
        raise Unauthenticated("no such token") from None


class Trail(list[AuditEntry]):
    """A sink that keeps what it is given."""

    def __call__(self, entry: AuditEntry) -> None:
        self.append(entry)

    async def told(self, count: int) -> list[AuditEntry]:
        """The first `count` entries; no more come."""
        async with asyncio.timeout(PATIENCE):
            while len(self) < count:
                await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(self) == count, self
        return list(self)


def facts(entries: list[AuditEntry]) -> list[tuple[Any, ...]]:
    return [(entry.event, entry.outcome, entry.principal, entry.method, entry.tool) for entry in entries]


@asynccontextmanager
async def audited(stage: Stage | None = None, **options: Any) -> AsyncGenerator[tuple[Client, Trail]]:
    trail = Trail()
    server = make_server(stage)

    @server.tool()
    async def fail_with(secret: str) -> str:
        raise ToolError(f"no: {secret}")

    async with hosting(server, audit=trail, tenants=who, **options) as client:
        client.headers["authorization"] = "Bearer ann"
        yield client, trail


async def test_a_session_is_told_from_its_opening_to_its_end() -> None:
    async with audited() as (client, trail):
        await client.open()
        assert client.session is not None
        await client.tool("increment")
        await client.begin_tool("fail_with", {"secret": "hunter2"}).answered()
        await client.begin_tool("no_such_tool").answered()
        await client.ask("no/such/method")
        assert (await client.send("DELETE")).status == 200
        entries = await trail.told(6)
    assert facts(entries) == [
        ("opened", "result", "ann", "initialize", None),
        ("called", "result", "ann", "tools/call", "increment"),
        ("called", "tool error", "ann", "tools/call", "fail_with"),
        ("called", entries[3].outcome, "ann", "tools/call", "no_such_tool"),
        ("called", "error", "ann", "no/such/method", None),
        ("ended", "ended", "ann", None, None),
    ]
    assert entries[3].outcome in ("tool error", "error")
    assert {entry.session for entry in entries} == {client.session[:8]}
    assert {entry.tenant for entry in entries} == {"acme"}
    assert all(entry.node and entry.time > 1_700_000_000 and not entry.forwarded for entry in entries)
    assert all(entry.trace for entry in entries[:-1])
    text = b"".join(entry.line() for entry in entries).decode()
    for secret in ("hunter2", "Bearer", client.session):
        assert secret not in text


async def test_who_is_refused_is_written_down_once() -> None:
    async with audited() as (client, trail):
        await client.open()
        await trail.told(1)
        stranger = client.same_session()
        stranger.headers["authorization"] = "Bearer bob"
        assert (await stranger.begin_tool("increment").answered()).status == 404
        assert (await stranger.send("DELETE")).status == 404
        assert (await stranger.send("GET", headers={"accept": "text/event-stream"})).status == 404
        nobody = client.same_session()
        nobody.headers["authorization"] = "Bearer forged"
        assert (await nobody.begin_tool("increment").answered()).status == 401
        assert (await client.send(headers={"host": "evil.example"})).status == 421
        entries = (await trail.told(6))[1:]
    assert facts(entries) == [
        ("refused", "404", "bob", "tools/call", "increment"),
        ("refused", "404", "bob", "DELETE", None),
        ("refused", "404", "bob", "GET", None),
        ("refused", "401", None, "POST", None),
        ("refused", "421", None, "POST", None),
    ]
    assert client.session is not None
    assert {entry.session for entry in entries} == {client.session[:8]}
    assert "forged" not in str(entries)


async def test_a_call_that_is_cancelled_is_told_as_such() -> None:
    stage = Stage()
    async with audited(stage) as (client, trail):
        await client.open()
        call = client.begin_tool(_waiting_tool(), id="my-call")
        async with asyncio.timeout(PATIENCE):
            await stage.began.wait()
        await client.notify("notifications/cancelled", {"requestId": "my-call"})
        await call.answered()
        entries = await trail.told(2)
    assert facts(entries)[1] == ("called", "cancelled", "ann", "tools/call", _waiting_tool())
    assert entries[1].request_id == "my-call"


async def test_a_session_that_wakes_is_not_opened_again_and_one_that_sleeps_has_not_ended() -> None:
    async with audited() as (client, trail):
        await client.open()
        await put_to_sleep(client.runtime, client.session)
        await client.tool("increment")
        assert [entry.event for entry in await trail.told(2)] == ["opened", "called"]


async def test_an_initialize_that_fails_opens_nothing() -> None:
    async with audited() as (client, trail):
        await client.ask("initialize", {"protocolVersion": 7})
        (entry,) = await trail.told(1)
    assert entry.event == "called"
    assert entry.outcome == "error"


async def test_the_modern_era_is_told_too() -> None:
    trail = Trail()
    async with hosting_modern(make_server(), audit=trail, tenants=who) as client:
        client.headers["authorization"] = "Bearer ann"
        handle = await client.handle()
        await client.tool("increment", {"session": handle})
        await client.ask("tools/list")
        stranger = client.twin(authorization="Bearer bob")
        await stranger.begin_tool("increment", {"session": handle}).answered()
        assert (await client.twin().ask("tools/list")).status == 401
        await client.begin_tool("close_session", {"session": handle}).answered()
        entries = await trail.told(7)
    assert facts(entries)[:5] == [
        ("opened", "result", "ann", "tools/call", "open_session"),
        ("called", "result", "ann", "tools/call", "increment"),
        ("called", "result", "ann", "tools/list", None),
        ("called", "tool error", "bob", "tools/call", "increment"),
        ("refused", "401", None, "POST", None),
    ]
    assert {entry.event for entry in entries[5:]} == {"ended", "called"}
    assert {entry.session for entry in (*entries[:2], entries[3], *entries[5:])} == {handle[:8]}


async def test_without_an_audit_trail_nothing_is_told_and_nothing_breaks() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        assert await client.tool("increment") == 1
        assert not any(name.startswith("audit") for name in client.runtime.stats())


async def test_what_the_host_program_changes_is_told_with_whose_session_it_is() -> None:
    async with audited() as (client, trail):
        await client.open()
        sessions, id = client.runtime.sessions, client.session or ""
        await sessions.update(id, {"paid": True}, once="event-1")
        with pytest.raises(StateConflict):
            await sessions.update(id, {"paid": False}, expect={"paid": False})
        await sessions.mutate(id, lambda state: state.update(seen="hunter2"))
        entries = await trail.told(3)
    assert facts(entries) == [
        ("opened", "result", "ann", "initialize", None),
        ("updated", "result", "ann", None, None),
        ("updated", "result", "ann", None, None),
    ]
    assert {(entry.tenant, entry.session) for entry in entries} == {("acme", (client.session or "")[:8])}
    assert b"hunter2" not in b"".join(entry.line() for entry in entries)


async def test_a_sleeping_session_that_an_operator_ends_is_told_once(nats_url: str) -> None:
    trail = Trail()
    async with household(nats_url, 2, tenants=lambda number: who, audit=trail, limits=Limits(sessions=1)) as nodes:
        client = nodes[0].client()
        client.headers["authorization"] = "Bearer ann"
        await client.open()
        id = client.session or ""
        await put_to_sleep(nodes[0].runtime, id)
        cluster: Any = nodes[0].runtime.cluster
        await cluster.router._holdings.sweep(float("inf"))
        address = Address("session", id)
        async with asyncio.timeout(10):
            while cluster.ownership.holds(address) or address in cluster.ownership._releasing:
                await asyncio.sleep(0.005)
        asked = [await operations(node.runtime.cluster)["end"]({"id": id}) for node in nodes]  # type: ignore[arg-type]
        assert asked.count({"ended": True}) == 1
        entries = await trail.told(2)
        assert facts(entries)[1] == ("ended", "ended", "ann", None, None)
        assert (entries[1].tenant, entries[1].session) == ("acme", id[:8])
        # It counts no more, without a census.
        async with asyncio.timeout(4):
            client.session = None
            while (await client.ask("initialize", initialize_params())).status != 200:
                await asyncio.sleep(0.05)


async def test_in_a_cluster_each_deed_is_told_once_by_the_node_where_it_happened(nats_url: str) -> None:
    trail = Trail()
    async with household(nats_url, tenants=lambda number: who, audit=trail) as (one, two):
        client = one.client()
        client.headers["authorization"] = "Bearer ann"
        await client.open()
        away = two.same(client)
        await away.tool("increment")
        away.headers["authorization"] = "Bearer bob"
        assert (await away.begin_tool("increment").answered()).status == 404
        assert (await away.send("DELETE")).status == 404
        away.headers["authorization"] = "Bearer forged"
        assert (await away.begin_tool("increment").answered()).status == 401
        away.session = "unknown" * 4
        away.headers["authorization"] = "Bearer ann"
        assert (await away.begin_tool("increment").answered()).status == 404
        away.session = client.session
        assert (await away.send("DELETE")).status == 200
        entries = await trail.told(7)
    told = [(entry.event, entry.outcome, entry.principal, entry.node, entry.forwarded) for entry in entries]
    assert told == [
        ("opened", "result", "ann", "node-1", False),
        ("called", "result", "ann", "node-1", True),
        ("refused", "404", "bob", "node-1", True),
        ("refused", "404", "bob", "node-1", True),
        ("refused", "401", None, "node-2", False),
        ("refused", "404", "ann", "node-2", False),
        ("ended", "ended", "ann", "node-1", False),
    ]
    assert entries[1].trace


# Files


async def test_lines_of_json_survive_that_the_file_is_moved_away(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    async with hosting(make_server(), audit=file) as client:
        await client.open()
        await _lines(file, 1)
        file.rename(tmp_path / "audit.1")
        await client.tool("increment")
        await _lines(file, 1)
        async with asyncio.timeout(PATIENCE):
            # Counted by the thread that has just written.
            while (stats := client.runtime.stats())["audit_written_total"] < 2:
                await asyncio.sleep(0.005)
    (opened,) = await _lines(tmp_path / "audit.1", 1)
    (called,) = await _lines(file, 1)
    assert (opened["event"], called["event"], called["tool"]) == ("opened", "called", "increment")
    assert "forwarded" not in called
    assert file.stat().st_mode & 0o777 == 0o600
    assert stats["audit_written_total"] == 2
    assert {name for name in stats if name.startswith("audit")} <= {*GAUGES, *TOTALS}


async def test_what_waits_at_the_end_is_written(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    async with AuditTrail(Audit(file), node="n") as trail:
        for _ in range(1200):
            trail.note(_entry())
    assert len(await _lines(file, 1200)) == 1200


async def test_a_file_that_cannot_be_written_to_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.*No such file"):
        async with Runtime(make_server(), audit=tmp_path / "nowhere" / "audit"):
            pass


def test_standard_error_is_a_file_too(capsys: pytest.CaptureFixture[str]) -> None:
    AuditFile(None).write(_entry().line())
    assert json.loads(capsys.readouterr().err)["event"] == "called"


# A sink that is slow, or fails


class Slow:
    """A sink that lets nothing through until it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.count = 0

    async def __call__(self, entry: AuditEntry) -> None:
        await self.open.wait()
        self.count += 1


async def test_what_a_slow_sink_has_no_room_for_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow()
    with caplog.at_level(logging.ERROR):
        async with AuditTrail(Audit(slow, limit=10), node="n") as trail:
            for _ in range(25):
                trail.note(_entry())
            assert await trail.has_room()
            assert trail.stats()["audit_dropped_total"] == 15
            slow.open.set()
    assert slow.count == 10
    assert len([record for record in caplog.records if "dropped" in record.message]) == 1


async def test_with_block_requests_wait_for_room_and_nothing_is_lost() -> None:
    slow = Slow()
    async with hosting(make_server(), audit=Audit(slow, "block", limit=1)) as client:
        first = client.begin("initialize", initialize_params())
        await first.answered()
        second = client.begin("initialize", initialize_params())
        for _ in range(50):
            await asyncio.sleep(0)
        assert second.status == 0
        slow.open.set()
        assert (await second.answered()).status == 200
    assert slow.count == 2


async def test_with_block_a_sink_that_hangs_costs_a_request_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "PATIENCE", 0.05)
    slow = Slow()
    async with hosting(make_server(), audit=Audit(slow, "block", limit=1)) as client:
        assert (await client.ask("initialize", initialize_params())).status == 200
        call = await client.ask("initialize", initialize_params())
        assert (call.status, call.header("retry-after")) == (503, "1")
        slow.open.set()


async def test_with_block_there_is_a_bound_all_the_same() -> None:
    slow = Slow()
    async with AuditTrail(Audit(slow, "block", limit=10), node="n") as trail:
        for _ in range(25):
            trail.note(_entry())
        assert trail.stats() == {
            "audit_waiting": 20,
            "audit_written_total": 0,
            "audit_dropped_total": 5,
            "audit_failed_total": 0,
        }
        slow.open.set()


async def test_a_sink_that_fails_is_counted_and_the_next_entry_comes_all_the_same() -> None:
    seen: list[AuditEntry] = []

    def sink(entry: AuditEntry) -> None:
        if not seen:
            seen.append(entry)
            raise OSError("the disk is full")
        seen.append(entry)

    async with AuditTrail(Audit(sink), node="n") as trail:
        trail.note(_entry())
        trail.note(_entry())
    assert len(seen) == 2
    assert (trail.stats()["audit_failed_total"], trail.stats()["audit_written_total"]) == (1, 1)


async def test_with_block_what_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "RETRY_AFTER", 0.01)
    tries: list[AuditEntry] = []

    def sink(entry: AuditEntry) -> None:
        tries.append(entry)
        if len(tries) < 3:
            raise OSError("the disk is full")

    async with AuditTrail(Audit(sink, "block"), node="n") as trail:
        trail.note(_entry())
    assert (len(tries), trail.stats()["audit_written_total"]) == (3, 1)


async def test_a_sink_that_never_comes_back_does_not_keep_the_node_from_stopping(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_module, "PATIENCE", 0.05)
    async with asyncio.timeout(PATIENCE):
        async with AuditTrail(Audit(Slow(), "block"), node="n") as trail:
            for _ in range(3):
                trail.note(_entry())
    assert trail.stats()["audit_dropped_total"] == 3
    assert "3 entries of the audit trail could not be written" in caplog.text


# Options


def test_what_no_audit_trail_can_be_is_refused() -> None:
    for wrong in ({"when_full": "panic"}, {"limit": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            Audit("-", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="without a name"):
        Runtime(make_server(), audit="")


def test_the_command_lines_options_reach_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.runtime.Runtime", lambda server, **given: given)
    options = ServeOptions(audit="audit.jsonl", audit_when_full="block")
    made: Any = make_runtime(Target("m:a", "s", None), "memory://", options, 8000)
    assert made["audit"] == Audit("audit.jsonl", "block")


def _waiting_tool() -> str:
    return "hold"


def _entry() -> AuditEntry:
    return AuditEntry(1.0, "called", "result", "n")


async def _lines(file: Path, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(PATIENCE):
        while True:
            lines = file.read_text().splitlines() if file.exists() else []  # noqa: ASYNC240
            if len(lines) >= count:
                return [json.loads(line) for line in lines]
            await asyncio.sleep(0.005)


def test_a_file_is_not_closed_under_a_write_that_hangs(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit")
    file.write(b"one\n")
    with file._writing:
        file.close()
        assert file._fd is not None
    file.close()
    assert file._fd is None
    file.close()
