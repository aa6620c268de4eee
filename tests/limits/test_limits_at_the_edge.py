"""Limits as clients meet them: what is refused did not run, changed nothing, and says when to come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import ModernClient, hosting, hosting_modern, initialize_params
from edge.server import Stage, make_server
from mcp.server.mcpserver import MCPServer
from starlette.requests import Request
from support.patience import PATIENCE
from understudy.actors.testing import settle
from understudy.runtime import AuditEntry, ConfigurationError, Limits, Runtime, Session, SessionLimits, TenantContext

ERAS = pytest.mark.parametrize("era", ["handshake", "modern"])


@asynccontextmanager
async def limited(
    era: str, limits: Any, *, stage: Stage | None = None, **options: Any
) -> AsyncIterator[tuple[Any, dict[str, str]]]:
    """A client that has a session, and the arguments that name it in its calls."""
    hosted = hosting if era == "handshake" else hosting_modern
    async with hosted(make_server(stage), limits=limits, **options) as client:
        named = {}
        if isinstance(client, ModernClient):
            named = {"session": await client.handle()}
        else:
            await client.open()
        yield client, named


async def test_turns_that_overlap_are_held_to_their_sessions_limit_of_state_together() -> None:
    server = MCPServer("interleaved")
    all_here = asyncio.Barrier(2)

    @server.tool()
    async def keep(key: str, session: Session) -> int:
        session.state[key] = "x" * 900
        await all_here.wait()
        return len(session.state)

    limits = Limits(per_session=SessionLimits(state_bytes=1500))
    async with hosting(server, limits=limits, turns="interleaved") as client:
        await client.open()
        calls = [client.begin_tool("keep", {"key": key}) for key in "ab"]
        refusals = [await verdict(call) for call in calls]
        assert sorted(refusal is None for refusal in refusals) == [False, True]
        assert "over the limit of 1500 that its tenant is held to" in (refusals[0] or refusals[1] or "")
        assert client.session is not None
        assert len((await client.runtime.sessions.read(client.session)).state) == 1


async def verdict(call: HTTPCall) -> str | None:
    """The text of a tool error; None if the tool has done its work."""
    answered = await call.answered()
    assert answered.status == 200
    result = answered.result
    return result["content"][0]["text"] if result.get("isError") else None


@ERAS
async def test_over_a_tools_limit_a_model_reads_a_tool_error_and_nothing_has_run(era: str) -> None:
    # A session by handle is opened by a call, too.
    most = 2 if era == "handshake" else 3
    async with limited(era, Limits(calls_per_minute=most)) as (client, named):
        for _ in range(2):
            assert await verdict(client.begin_tool("increment", named)) is None
        for _ in range(3):
            refusal = await verdict(client.begin_tool("increment", named))
            assert refusal is not None
            assert refusal.startswith(f"Rate limit exceeded: {most} calls/minute. Retry after 6")
            assert refusal.endswith(" seconds.")
        assert await client.tool("count", named) == 2
        assert client.runtime.stats()["limits_refused_calls_per_minute_total"] == 3


@ERAS
async def test_read_only_tools_have_a_limit_of_their_own(era: str) -> None:
    async with limited(era, Limits(read_only_calls_per_minute=1)) as (client, named):
        assert await verdict(client.begin_tool("count", named)) is None
        refusal = await verdict(client.begin_tool("echo", {"value": 1}))
        assert refusal is not None
        assert refusal.startswith("Rate limit exceeded: 1 read-only calls/minute.")
        assert await client.tool("increment", named) == 1
        assert (await client.ask("tools/list")).status == 200


@ERAS
async def test_one_session_may_have_less_than_its_tenant(era: str) -> None:
    limits = Limits(calls_per_minute=100, per_session=SessionLimits(calls_per_minute=1))
    async with limited(era, limits) as (client, named):
        assert await verdict(client.begin_tool("increment", named)) is None
        refusal = await verdict(client.begin_tool("increment", named))
        assert refusal is not None
        assert refusal.startswith("Rate limit exceeded: 1 calls/minute in one session. Retry after ")
        if isinstance(client, ModernClient):
            other = {"session": await client.handle()}
        else:
            await client.open()
            other = {}
        assert await verdict(client.begin_tool("increment", other)) is None


@ERAS
@pytest.mark.parametrize("of_session", [False, True])
async def test_calls_in_flight_count_from_their_arrival_to_their_outcome(era: str, of_session: bool) -> None:
    stage = Stage()
    limits = Limits(per_session=SessionLimits(calls_in_flight=2)) if of_session else Limits(calls_in_flight=2)
    async with limited(era, limits, stage=stage) as (client, named):
        running = [client.begin_tool("hold", named) for _ in range(2)]
        await stage.began.wait()
        await settle()
        refused = client.begin_tool("increment", named)
        text = (
            "Limit reached: 2 calls in flight" + (" in one session" if of_session else "") + ". Retry after 1 second."
        )
        assert await verdict(refused) == text
        listing = await client.ask("tools/list")
        if of_session and era == "modern":
            assert listing.status == 200
        else:
            assert listing.status == 429
            assert listing.header("retry-after") == "1"
            assert listing.json["error"] == {"code": -32000, "message": text, "data": {"limit": "calls_in_flight"}}
        if era == "handshake":
            assert (await client.ask("ping")).status == 200
        stage.go_on.set()
        assert [await verdict(call) for call in running] == [None, None]
        assert await client.tool("count", named) == 0
        assert stage.runs == 2


@ERAS
async def test_a_cancelled_call_is_in_flight_no_more(era: str) -> None:
    stage = Stage()
    async with limited(era, Limits(calls_in_flight=1), stage=stage) as (client, named):
        running = client.begin_tool("hold", named, id="held")
        await stage.began.wait()
        if era == "modern":
            running.disconnect()
        else:
            await client.notify("notifications/cancelled", {"requestId": "held"})
        async with asyncio.timeout(PATIENCE):
            while stage.running or await verdict(client.begin_tool("count", named)) is not None:
                await asyncio.sleep(0.01)
        duplicate = client.begin_tool("count", named)
        assert await verdict(duplicate) is None


async def test_a_duplicate_takes_no_place_and_no_token() -> None:
    stage = Stage()
    async with limited("handshake", Limits(calls_in_flight=2, calls_per_minute=2), stage=stage) as (client, _):
        running = client.begin_tool("hold", id="a")
        await stage.began.wait()
        for _ in range(5):
            assert (await client.begin_tool("increment", id="a").answered()).status == 400
        stage.go_on.set()
        assert await verdict(running) is None
        assert await verdict(client.begin_tool("increment")) is None
        assert await verdict(client.begin_tool("increment")) is not None


async def test_over_its_sessions_a_tenant_gets_429_and_nothing_is_created() -> None:
    async with hosting(make_server(), limits=Limits(sessions=2)) as client:
        opened = []
        for _ in range(2):
            await client.open()
            opened.append(client.session)
        client.session = client.revision = None
        refused = await client.ask("initialize", initialize_params())
        assert refused.status == 429
        assert refused.header("mcp-session-id") is None
        assert int(refused.header("retry-after") or 0) >= 1
        assert refused.json["error"]["message"].startswith("Limit reached: 2 sessions. End one, or retry after ")
        page = await client.runtime._node.store.list()  # type: ignore[union-attr]
        assert len(page.records) == 2
        client.session = opened[0]
        assert (await client.send("DELETE")).status == 200
        await client.open()
        client.session = client.revision = None
        assert (await client.ask("initialize", initialize_params())).status == 429


async def test_a_handle_over_the_limit_is_a_tool_error() -> None:
    async with hosting_modern(make_server(), limits=Limits(sessions=1)) as client:
        handle = await client.handle()
        refusal = await verdict(client.begin_tool("open_session"))
        assert refusal is not None
        assert refusal.startswith("Limit reached: 1 sessions. End one, or retry after ")
        await client.begin_tool("close_session", {"session": handle}).answered()
        assert await client.handle() != handle


async def test_sessions_that_were_there_before_count(tmp_path: Any) -> None:
    store = f"sqlite:///{tmp_path}/sessions.db"
    async with hosting(make_server(), store=store) as client:
        for _ in range(2):
            await client.open()
    async with hosting(make_server(), store=store, limits=Limits(sessions=3)) as client:
        await client.open()
        client.session = client.revision = None
        assert (await client.ask("initialize", initialize_params())).status == 429


async def test_standing_streams_count_once_a_session_and_a_newer_connection_takes_over() -> None:
    async with hosting(make_server(), limits=Limits(streams=1)) as client:
        await client.open()
        first = await client.start("GET").started()
        second = await client.start("GET").started()
        assert (first.status, second.status) == (200, 200)
        await first.answered()
        other = client.twin()
        await other.open()
        refused = await other.send("GET")
        assert refused.status == 429
        assert refused.header("retry-after") == "1"
        assert refused.json["error"]["message"] == "Limit reached: 1 open streams. Retry after 1 second."
        second.disconnect()
        async with asyncio.timeout(PATIENCE):
            while True:
                again = other.start("GET")
                await again.until(lambda again=again: again.status)
                if again.status == 200:
                    break
                await asyncio.sleep(0.01)


async def test_who_resumes_waits_for_the_place_that_the_lost_connection_still_has() -> None:
    async with hosting(make_server(), limits=Limits(streams=1)) as client:
        await client.open()
        mine = await client.start("GET").started()
        event = await mine.event(0)
        mine.disconnect()
        other = client.twin()
        await other.open()
        async with asyncio.timeout(PATIENCE):
            while (taking := await other.start("GET").started()).status != 200:
                await asyncio.sleep(0.01)
        resumed = client.start("GET", headers={"last-event-id": event.id})
        await asyncio.sleep(0.05)
        assert not resumed.status
        taking.disconnect()
        assert (await resumed.started()).status == 200


async def test_listening_streams_of_the_modern_era_count() -> None:
    listen = {"notifications": {"toolsListChanged": True}}
    async with hosting_modern(make_server(), limits=Limits(streams=1)) as client:
        first = await client.begin("subscriptions/listen", listen).started()
        assert first.status == 200
        refused = await client.ask("subscriptions/listen", listen)
        assert refused.status == 429
        assert refused.header("retry-after") == "1"
        assert await verdict(client.begin_tool("echo", {"value": 1})) is None
        first.disconnect()
        async with asyncio.timeout(PATIENCE):
            while (await client.begin("subscriptions/listen", listen).started()).status != 200:
                await asyncio.sleep(0.01)


@ERAS
async def test_a_result_that_is_too_large_is_a_tool_error_and_changed_nothing(era: str) -> None:
    async with limited(era, Limits(result_bytes=2000)) as (client, named):
        for number in range(2):
            assert await client.tool("note", {"key": "x" * 400, **named}) == ["x" * 400] * (number + 1)
        refusal = await verdict(client.begin_tool("note", {"key": "y" * 400, **named}))
        assert refusal is not None
        assert refusal.startswith("The result takes ")
        assert " bytes, over the limit of 2000 for one; the call changed nothing." in refusal
        assert await client.tool("notes", named) == ["x" * 400] * 2
        text = await verdict(client.begin_tool("echo", {"value": "z" * 3000}))
        assert text is not None
        assert text.startswith("The result takes ")


@ERAS
async def test_state_is_bounded_for_a_session_and_for_a_tenant(era: str) -> None:
    limits = Limits(state_bytes=4000, per_session=SessionLimits(state_bytes=1500))
    async with limited(era, limits) as (client, named):
        for _ in range(2):
            assert await verdict(client.begin_tool("note", {"key": "x" * 600, **named})) is None
        refusal = await verdict(client.begin_tool("note", {"key": "x" * 600, **named}))
        assert refusal is not None
        assert "over the limit of 1500 that its tenant is held to" in refusal
        # Nobody who reads that can raise it, and what he could raise is another limit.
        assert "max_state" not in refusal
        assert len(await client.tool("notes", named)) == 2
        grown = 0
        for _ in range(5):
            if isinstance(client, ModernClient):
                named = {"session": await client.handle()}
            else:
                await client.open()
            grown += await verdict(client.begin_tool("note", {"key": "x" * 1000, **named})) is None
        # The snapshots of all, with what else is in them, count; what the turns of one second have grown may be missed.
        assert 1 <= grown <= 3
        # What is there may shrink, be read, and be kept.
        assert await verdict(client.begin_tool("notes", named)) is None


@ERAS
async def test_the_audit_trail_names_the_limit(era: str) -> None:
    written: list[AuditEntry] = []
    async with limited(era, Limits(calls_per_minute=1, sessions=1), audit=written.append) as (client, named):
        await client.begin_tool("increment", named).answered()
        await client.begin_tool("increment", named).answered()
        if era == "handshake":
            other = client.twin()
            await other.ask("initialize", initialize_params())
    refused = [entry for entry in written if entry.event == "refused"]
    assert {entry.outcome for entry in refused} == (
        {"limit: calls_per_minute", "limit: sessions"} if era == "handshake" else {"limit: calls_per_minute"}
    )
    assert refused[0].tool == "increment"


async def test_plans_come_from_the_credential() -> None:
    def tenants(request: Request) -> TenantContext:
        return TenantContext(request.headers["x-tenant"], "ada", plan=request.headers.get("x-plan"))

    plans = {"pro": Limits(calls_per_minute=3), None: Limits(calls_per_minute=1)}
    async with hosting_modern(make_server(Stage()), limits=plans, tenants=tenants) as client:
        for tenant, plan, most in (("a", "pro", 3), ("b", None, 1)):
            headers = {"x-tenant": tenant} | ({"x-plan": plan} if plan else {})
            verdicts = [await verdict(client.begin_tool("number", {"what": "1"}, headers=headers)) for _ in range(4)]
            assert sum(each is None for each in verdicts) == most


async def test_a_foreign_session_at_its_limit_looks_like_none() -> None:
    """no-wrong-tenant."""
    stage = Stage()

    def tenants(request: Request) -> TenantContext:
        return TenantContext(request.headers["x-tenant"], "ada")

    limits = Limits(per_session=SessionLimits(calls_in_flight=1, calls_per_minute=1))
    async with hosting(make_server(stage), limits=limits, tenants=tenants) as client:
        client.headers["x-tenant"] = "a"
        await client.open()
        client.begin_tool("hold")
        await stage.began.wait()
        own = await client.begin_tool("hold", id=99).answered()
        assert own.result["isError"]
        client.headers["x-tenant"] = "b"
        foreign = await client.begin_tool("hold", id=99).answered()
        client.session = "A" * 32
        unknown = await client.begin_tool("hold", id=99).answered()
        assert (foreign.status, foreign.headers, foreign.body) == (unknown.status, unknown.headers, unknown.body)
        assert foreign.status == 404
        stage.go_on.set()


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"pro": Limits()}, "add the key None"),
        ({None: 3}, "must be Limits"),
        (3, "must be Limits, a mapping of plans to Limits, or a function"),
    ],
)
def test_limits_that_are_none_are_refused(limits: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Runtime(make_server(), limits=limits)


@pytest.mark.parametrize("value", [-1, 1.5, True, "10", 2**60])
def test_a_limit_is_a_whole_number(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Limits.calls_per_minute is .*whole number"):
        Limits(calls_per_minute=value)
    with pytest.raises(ConfigurationError, match=r"SessionLimits.streams is .*whole number"):
        SessionLimits(streams=value)


def test_the_choice_for_failing_counters_is_one_of_two() -> None:
    choice: Any = "maybe"
    with pytest.raises(ConfigurationError, match="when_counters_fail"):
        Runtime(make_server(), when_counters_fail=choice)


@pytest.mark.parametrize("odd", [RuntimeError("no plan"), 3, {"calls_per_minute": 3}])
async def test_a_function_that_fails_refuses_and_kills_nothing(odd: Any, caplog: pytest.LogCaptureFixture) -> None:
    def limits(tenant: TenantContext) -> Any:
        if isinstance(odd, Exception):
            raise odd
        return odd

    async with hosting(make_server(), limits=limits) as client:
        refused = await client.ask("initialize", initialize_params())
        assert refused.status == 503
        assert refused.json["error"]["message"] == "Limits cannot be checked now. Retry after 1 second."
        assert (
            "the function that says what tenants may use failed" in caplog.text
            if isinstance(odd, Exception)
            else "returned" in caplog.text
        )
