"""`runtime.sessions` at one node: what a host program does to sessions from outside of their calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from edge.client import Client, ModernClient, connected, hosting, hosting_modern, put_to_sleep
from edge.server import Stage, make_server
from mcp.server.mcpserver import MCPServer
from support.patience import PATIENCE
from understudy.actors.session.state_update import MOST_ONCE
from understudy.runtime import (
    AuditEntry,
    ConfigurationError,
    LimitExceeded,
    Limits,
    NotStarted,
    OutcomeUnknown,
    OwnTurn,
    Runtime,
    Session,
    SessionNotFound,
    SessionUnavailable,
    StateConflict,
    StateError,
    TenantContext,
    UnderstudyError,
)
from understudy.stores import Address, FaultyStore, MemoryStore

NOWHERE: list[Any] = ["A" * 32, "", "no such id", "\xff", "x" * 5000, 7, None]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with hosting(make_server()) as client:
        await client.open()
        yield client


def version(client: Client) -> int:
    return client.runtime._node.registry.glimpse(Address("session", client.session or "")).version  # type: ignore


# Looking


async def test_a_session_is_got_and_read_as_it_was_last_saved(client: Client) -> None:
    sessions, id = client.runtime.sessions, client.session or ""
    await client.tool("note", {"key": "tea"})
    reference = await sessions.get(id)
    assert reference is not None
    assert reference.id == id
    assert await sessions.has(id)
    data = await sessions.read(id)
    assert (data.id, data.tenant, data.principal, data.opened_by) == (id, "anonymous", "anonymous", "handshake")
    assert data.state == {"notes": ["tea"]}
    assert data.created <= data.updated < data.expires
    assert data.node == client.runtime.node_id


async def test_to_look_disturbs_nobody(client: Client) -> None:
    sessions, id = client.runtime.sessions, client.session or ""
    await put_to_sleep(client.runtime, id)
    before = await sessions.read(id)
    assert await sessions.has(id)
    assert await sessions.get(id) is not None
    assert (await sessions.list()).sessions[0].id == id
    assert await sessions.read(id) == before
    assert client.runtime._node.registry.count == 0  # type: ignore[union-attr]


async def test_what_a_call_has_not_saved_yet_is_not_read() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        running = client.begin_tool("hold")
        await stage.began.wait()
        assert (await client.runtime.sessions.read(client.session or "")).state == {}
        stage.go_on.set()
        await running.answered()
        assert (await client.runtime.sessions.read(client.session or "")).state == {"held": 1}


@pytest.mark.parametrize("id", NOWHERE)
async def test_a_session_that_is_not_there_is_said_to_be_not_there(client: Client, id: Any) -> None:
    sessions = client.runtime.sessions
    assert await sessions.get(id) is None
    assert await sessions.get_or_recreate(id) is None
    assert not await sessions.has(id)
    assert not await sessions.delete(id)
    for asked in (sessions.read(id), sessions.update(id, {"a": 1}), sessions.mutate(id, lambda state: None)):
        with pytest.raises(SessionNotFound, match="never opened, ended, expired"):
            await asked


async def test_all_are_listed_and_counted_by_pages() -> None:
    def resolve(request: Any) -> TenantContext:
        return TenantContext(request.headers["authorization"], "somebody")

    async with hosting(make_server(), tenants=resolve) as client:
        sessions = client.runtime.sessions
        assert await sessions.size() == 0
        opened: dict[str, set[str]] = {"acme": set(), "bits": set()}
        for tenant, count in (("acme", 5), ("bits", 2)):
            for _ in range(count):
                opened[tenant].add((await sessions.create(TenantContext(tenant, "ada"))).id)
        assert await sessions.size() == 7
        assert await sessions.size(tenant="acme") == 5
        assert await sessions.size(tenant="nobody") == 0
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = await sessions.list(tenant="acme", limit=2, cursor=cursor)
            assert len(page.sessions) <= 2
            seen += [info.id for info in page.sessions]
            cursor = page.cursor
            if cursor is None:
                break
        assert len(seen) == 5
        assert set(seen) == opened["acme"]
        assert {info.id async for info in sessions.walk()} == opened["acme"] | opened["bits"]
        for limit in (0, 1001, "7", True):
            with pytest.raises(ConfigurationError, match="from 1 to 1000"):
                await sessions.list(limit=limit)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="cannot be listed so"):
            await sessions.list(cursor="from nowhere")


# Changing the state


async def test_an_update_is_seen_by_the_next_call_and_is_saved(client: Client) -> None:
    sessions, id = client.runtime.sessions, client.session or ""
    when = datetime(2026, 7, 28, 16, tzinfo=UTC)
    assert await sessions.update(id, {"count": 41, "when": when, "raw": b"\x00"}) == {
        "count": 41,
        "when": when,
        "raw": b"\x00",
    }
    assert await client.tool("increment") == 42
    assert await sessions.update(id, remove=["when", "raw"], add={"count": 8}) == {"count": 50}
    assert (await sessions.read(id)).state == {"count": 50}


async def test_an_update_wakes_a_session_and_moves_its_end() -> None:
    now = [1000.0]
    async with hosting(make_server(), store=MemoryStore(lambda: now[0]), session_ttl=100.0) as client:
        await client.open()
        await put_to_sleep(client.runtime, client.session)
        now[0] += 50.0
        await client.runtime.sessions.update(client.session or "", {"count": 1})
        assert (await client.runtime.sessions.read(client.session or "")).expires == 1150.0


async def test_an_update_that_changes_nothing_saves_nothing(client: Client) -> None:
    await client.runtime.sessions.update(client.session or "", {"count": 1})
    before = version(client)
    await client.runtime.sessions.update(client.session or "", {"count": 1}, remove=["gone"])
    assert version(client) == before


async def test_an_update_waits_for_the_call_that_runs() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        sessions, id = client.runtime.sessions, client.session or ""
        running = client.begin_tool("hold")
        await stage.began.wait()
        with pytest.raises(SessionUnavailable, match=r"its turn did not come within 0\.05 s") as late:
            await sessions.update(id, {"held": 100}, timeout=0.1)
        assert not late.value.outcome_unknown
        async with asyncio.TaskGroup() as tasks:
            updating = tasks.create_task(sessions.update(id, add={"held": 10}))
            await asyncio.sleep(0.01)
            assert not updating.done()
            stage.go_on.set()
        assert updating.result() == {"held": 11}
        assert (await running.answered()).value == 1


async def test_compare_and_set_lets_one_of_many_through(client: Client) -> None:
    sessions, id = client.runtime.sessions, client.session or ""

    conflicts: list[tuple[str, ...]] = []

    async def take(who: int) -> int | None:
        try:
            await sessions.update(id, {"lock": who}, absent=["lock"])
        except StateConflict as conflict:
            conflicts.append(conflict.keys)
            return None
        return who

    took = [who for who in await asyncio.gather(*(take(who) for who in range(20))) if who is not None]
    assert len(took) == 1
    assert conflicts == [("lock",)] * 19
    assert (await sessions.read(id)).state == {"lock": took[0]}
    await sessions.update(id, remove=["lock"], expect={"lock": took[0]})
    data = await sessions.read(id)
    await sessions.update(id, {"a": 1}, tag=data.tag)
    with pytest.raises(StateConflict, match="another than the one that was read"):
        await sessions.update(id, {"a": 2}, tag=data.tag)


async def test_what_no_state_can_hold_changes_nothing(client: Client) -> None:
    sessions, id = client.runtime.sessions, client.session or ""
    await sessions.update(id, {"name": "ada"})
    for put, more in (({"odd": object()}, {}), ({"big": "x" * 2**20}, {}), ({}, {"add": {"name": 1}})):
        with pytest.raises(StateError):
            await sessions.update(id, put, **more)
    await sessions.update(id, {"half": "x" * (2**19)})
    with pytest.raises(StateError, match="over the limit"):
        await sessions.update(id, {"other half": "x" * (2**19)})
    assert (await sessions.read(id)).state.keys() == {"name", "half"}


async def test_of_two_updates_of_one_name_the_later_changes_nothing(client: Client) -> None:
    sessions, id = client.runtime.sessions, client.session or ""
    for _ in range(3):
        assert await sessions.update(id, add={"paid": 5}, once="evt_1") == {"paid": 5}
    assert await sessions.update(id, add={"paid": 5}, once="evt_2") == {"paid": 10}
    await put_to_sleep(client.runtime, id)
    assert await sessions.update(id, add={"paid": 5}, once="evt_1") == {"paid": 10}
    # Not even where it would now be a conflict.
    assert await sessions.update(id, add={"paid": 5}, absent=["paid"], once="evt_2") == {"paid": 10}
    for number in range(MOST_ONCE):
        await sessions.update(id, {"last": number}, once=f"other {number}")
    assert (await sessions.update(id, add={"paid": 5}, once="evt_1"))["paid"] == 15


async def test_a_failed_update_does_not_use_up_its_name(client: Client) -> None:
    sessions, id = client.runtime.sessions, client.session or ""
    with pytest.raises(StateConflict):
        await sessions.update(id, {"a": 1}, expect={"b": 1}, once="evt")
    assert await sessions.update(id, {"a": 1}, once="evt") == {"a": 1}


async def test_mutate_runs_until_nobody_came_between(client: Client) -> None:
    sessions, id = client.runtime.sessions, client.session or ""
    runs = 0

    async def slowly(state: dict[str, Any]) -> int:
        nonlocal runs
        runs += 1
        seen = state.get("count", 0)
        await asyncio.sleep(0.002)
        state["count"] = seen + 1
        return seen

    async with asyncio.timeout(PATIENCE):
        seen = await asyncio.gather(
            *(sessions.mutate(id, slowly) for _ in range(8)), *(client.tool("increment") for _ in range(4))
        )
    assert sorted(seen[:8]) == sorted(set(seen[:8]))
    assert (await sessions.read(id)).state == {"count": 12}
    assert runs > 8


async def test_mutate_gives_back_what_the_function_returns_and_raises_what_it_raises(client: Client) -> None:
    sessions, id = client.runtime.sessions, client.session or ""

    def refuse(state: dict[str, Any]) -> None:
        state["changed"] = True
        raise KeyError("no")

    with pytest.raises(KeyError):
        await sessions.mutate(id, refuse)
    assert (await sessions.read(id)).state == {}
    before = version(client)
    assert await sessions.mutate(id, lambda state: len(state)) == 0
    assert version(client) == before


async def test_mutate_gives_up_in_words_where_others_are_always_quicker(client: Client) -> None:
    sessions, id = client.runtime.sessions, client.session or ""

    async def overtaken(state: dict[str, Any]) -> None:
        state["mine"] = True
        await sessions.update(id, add={"theirs": 1})

    with pytest.raises(SessionUnavailable, match="others changed its state each time"):
        await sessions.mutate(id, overtaken, timeout=0.05)
    assert "mine" not in (await sessions.read(id)).state


# Coming and going


async def test_a_session_that_is_created_answers_its_tenant_by_its_handle() -> None:
    def resolve(request: Any) -> TenantContext:
        tenant, _, principal = request.headers["authorization"].partition(":")
        return TenantContext(tenant, principal)

    async with hosting_modern(make_server(), tenants=resolve) as client:
        created = await client.runtime.sessions.create(TenantContext("acme", "ada"), state={"count": 9})
        ada, bob = client.twin(authorization="acme:ada"), client.twin(authorization="acme:bob")
        assert await ada.tool("increment", {"session": created.id}) == 10
        refused = (await bob.begin_tool("increment", {"session": created.id}).answered()).result
        assert refused["isError"]
        data = await client.runtime.sessions.read(created.id)
        assert (data.tenant, data.principal, data.opened_by, data.state) == ("acme", "ada", "handle", {"count": 10})
        with pytest.raises(ConfigurationError, match="tenant is missing"):
            await client.runtime.sessions.create()


async def test_what_the_host_program_opens_changes_and_ends_is_in_the_audit_trail() -> None:
    trail: list[AuditEntry] = []
    async with hosting(make_server(), audit=trail.append) as client:
        created = await client.runtime.sessions.create()
        await client.runtime.sessions.update(created.id, {"a": 1})
        await client.runtime.sessions.delete(created.id)
    assert [(entry.event, entry.outcome, entry.principal, entry.session) for entry in trail] == [
        ("opened", "result", "anonymous", created.id[:8]),
        ("updated", "result", "anonymous", created.id[:8]),
        ("ended", "ended", "anonymous", created.id[:8]),
    ]


async def test_what_cannot_be_created_is_refused_and_leaves_nothing() -> None:
    async with hosting(make_server(), eras=("handshake",)) as client:
        with pytest.raises(ConfigurationError, match="opened by their clients alone"):
            await client.runtime.sessions.create()
    async with hosting(make_server(), max_state=100) as client:
        with pytest.raises(StateError, match="over the limit of 100"):
            await client.runtime.sessions.create(state={"much": "x" * 100})
        with pytest.raises(StateError, match="is a set"):
            await client.runtime.sessions.create(state={"odd": {1}})
        with pytest.raises(StateError, match="state is of type list; it must be a mapping"):
            await client.runtime.sessions.create(state=["odd"])  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="tenant is 'acme'; it must be a TenantContext"):
            await client.runtime.sessions.create("acme")  # type: ignore[arg-type]
        assert await client.runtime.sessions.size() == 0


async def test_the_tenants_limit_of_sessions_holds_for_created_ones_too() -> None:
    def resolve(request: Any) -> TenantContext:
        return TenantContext("acme", "ada")

    async with hosting(make_server(), tenants=resolve, limits=Limits(sessions=2)) as client:
        acme = TenantContext("acme", "ada")
        first = await client.runtime.sessions.create(acme)
        await client.runtime.sessions.create(acme)
        with pytest.raises(LimitExceeded) as full:
            await client.runtime.sessions.create(acme)
        assert full.value.limit == "sessions"
        assert await client.runtime.sessions.delete(first.id)
        await client.runtime.sessions.create(acme)


async def test_a_full_node_says_that_it_is() -> None:
    async with hosting(make_server(stage := Stage()), max_sessions=1) as client:
        await client.open()
        running = client.begin_tool("hold")
        await stage.began.wait()
        with pytest.raises(SessionUnavailable, match="takes no more sessions") as full:
            await client.runtime.sessions.create()
        assert not full.value.outcome_unknown
        stage.go_on.set()
        await running.answered()


async def test_get_or_recreate_wakes_a_session(client: Client) -> None:
    await put_to_sleep(client.runtime, client.session)
    woken = await client.runtime.sessions.get_or_recreate(client.session or "")
    assert woken is not None
    assert client.runtime._node.registry.count == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("asleep", [False, True])
async def test_delete_ends_a_session_for_its_client_too(client: Client, asleep: bool) -> None:
    stream = await client.same_session().start("GET").started()
    if asleep:
        await put_to_sleep(client.runtime, client.session)
    assert await client.runtime.sessions.delete(client.session or "")
    await stream.done()
    assert not await client.runtime.sessions.delete(client.session or "")
    assert (await client.begin_tool("increment").answered()).status == 404
    assert await client.runtime.sessions.size() == 0


async def test_delete_stops_the_call_that_runs() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        running = client.begin_tool("hold")
        await stage.began.wait()
        assert await client.runtime.sessions.delete(client.session or "")
        await running.answered()
        assert (stage.cancelled, stage.finished) == (1, 0)


async def test_a_session_that_cannot_be_read_can_be_deleted() -> None:
    store = MemoryStore()
    async with hosting(make_server(), store=store) as client:
        address = Address.new("session")
        await store.create(address, tenant="acme", owner="x", snapshot=b"damaged", ttl=60.0)
        sessions = client.runtime.sessions
        with pytest.raises(UnderstudyError, match="not msgpack"):
            await sessions.read(address.id)
        with pytest.raises(SessionUnavailable, match="cannot be read"):
            await sessions.update(address.id, {"a": 1})
        assert not await sessions.delete(address.id, tenant="bits")
        assert await sessions.delete(address.id, tenant="acme")
        assert not await sessions.has(address.id)


# Who may


async def test_no_wrong_tenant_another_tenants_session_is_unknown_to_everything() -> None:
    async with hosting(make_server(), tenants=lambda request: TenantContext("acme", "ada")) as client:
        sessions = client.runtime.sessions
        id = (await sessions.create(TenantContext("acme", "ada"), state={"secret": 1})).id
        for awake in (True, False):
            if not awake:
                await put_to_sleep(client.runtime, id)
            assert await sessions.get(id, tenant="bits") is None
            assert await sessions.get_or_recreate(id, tenant="bits") is None
            assert not await sessions.has(id, tenant="bits")
            assert not await sessions.delete(id, tenant="bits")
            for asked in (
                sessions.read(id, tenant="bits"),
                sessions.update(id, {"secret": 2}, tenant="bits"),
                sessions.mutate(id, lambda state: state.clear(), tenant="bits"),
            ):
                with pytest.raises(SessionNotFound):
                    await asked
        assert (await sessions.read(id, tenant="acme")).state == {"secret": 1}


async def test_a_call_cannot_wait_for_its_own_end() -> None:
    server = MCPServer("inward", log_level="CRITICAL")
    said: list[str] = []
    runtime = Runtime(server)

    @server.tool()
    async def inward(session: Session) -> str:
        for asked in (
            runtime.sessions.update(session.id, {"a": 1}),
            runtime.sessions.mutate(session.id, lambda state: None),
            runtime.sessions.delete(session.id),
        ):
            with pytest.raises(OwnTurn, match=r"change `session\.state` instead") as refused:
                await asked
            said.append(str(refused.value))
        other = await runtime.sessions.create(state={"from": "a call"})
        await runtime.sessions.update(other.id, {"a": 1})
        return str((await runtime.sessions.read(session.id)).state)

    async with runtime, connected(runtime.app) as client:
        await client.open()
        async with asyncio.timeout(PATIENCE):
            assert await client.tool("inward") == "{}"
    assert len(said) == 3
    assert "tool 'inward'" in said[0]


async def test_a_runtime_that_does_not_run_says_so() -> None:
    sessions = Runtime(make_server()).sessions
    for asked in (
        sessions.get("A" * 32),
        sessions.create(),
        sessions.update("A" * 32, {}),
        sessions.delete("A" * 32),
        sessions.size(),
        sessions.list(),
    ):
        with pytest.raises(NotStarted):
            await asked


@pytest.mark.parametrize("timeout", [0, -1, 601, float("nan"), "30"])
async def test_a_time_that_cannot_be_waited_is_refused(client: Client, timeout: float) -> None:
    sessions, id = client.runtime.sessions, client.session or ""
    for asked in (
        sessions.update(id, {"a": 1}, timeout=timeout),
        sessions.update(id, {"a": 1}, once="evt", timeout=timeout),
        sessions.mutate(id, dict.clear, timeout=timeout),
        sessions.get_or_recreate(id, timeout=timeout),
        sessions.create(timeout=timeout),
        sessions.delete(id, timeout=timeout),
    ):
        with pytest.raises(ConfigurationError, match="at most 600 seconds"):
            await asked
    assert (await sessions.read(id)).state == {}


async def test_what_is_no_function_cannot_mutate(client: Client) -> None:
    with pytest.raises(ConfigurationError, match="it must be a function of the state"):
        await client.runtime.sessions.mutate(client.session or "", {"a": 1})  # type: ignore[arg-type]


# A store in trouble


async def test_a_store_that_refuses_leaves_the_state_as_it_was() -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(), store=store) as client:
        await client.open()
        sessions, id = client.runtime.sessions, client.session or ""
        store.fail_next("save", "refuse", times=2)
        with pytest.raises(SessionUnavailable, match="nothing was changed") as refused:
            await sessions.update(id, {"a": 1})
        assert not refused.value.outcome_unknown
        assert (await sessions.read(id)).state == {}
        store.fail_next("load", "refuse")
        with pytest.raises(SessionUnavailable, match="cannot be looked at now"):
            await sessions.read(id)
        store.fail_next("list", "refuse")
        with pytest.raises(UnderstudyError):
            await sessions.size()


async def test_an_update_of_unknown_outcome_says_so_and_one_with_a_name_settles_it() -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(), store=store, store_timeout=0.05) as client:
        await client.open()
        sessions, id = client.runtime.sessions, client.session or ""
        store.fail_next("save", "lose", times=3)
        with pytest.raises(OutcomeUnknown, match="whether it was changed is not known") as unknown:
            await sessions.update(id, add={"paid": 5})
        assert unknown.value.outcome_unknown
        assert unknown.value.retry_after > 0
        assert (await sessions.read(id)).state == {"paid": 5}
        store.fail_next("save", "lose", times=3)
        assert await sessions.update(id, add={"paid": 5}, once="evt") == {"paid": 10}
        store.fail_next("save", "lose", times=3)
        assert await sessions.mutate(id, lambda state: state.update(paid=state["paid"] + 5)) is None
        assert (await sessions.read(id)).state == {"paid": 15}


async def test_state_outlives_the_node(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'sessions.db'}"
    async with hosting_modern(make_server(), store=store) as client:
        id = (await client.runtime.sessions.create(state={"count": 1})).id
        await client.runtime.sessions.update(id, add={"count": 1}, once="evt")
    async with Runtime(make_server(), store=store) as runtime, connected(runtime.app, ModernClient) as client:
        assert await runtime.sessions.update(id, add={"count": 1}, once="evt") == {"count": 2}
        assert await client.tool("increment", {"session": id}) == 3
