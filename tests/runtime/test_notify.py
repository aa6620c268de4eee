"""Telling a client something from outside a call: what is taken, what is refused, and where it goes. One node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import Client, hosting, hosting_modern, put_to_sleep
from edge.server import Stage, make_server
from edge.test_listening import heard, listen
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.shared.subscriptions import ResourceUpdated, ToolsListChanged
from mcp_types import EmptyResult
from support.patience import PATIENCE
from understudy.actors.session.notifications import MAX_NOTIFICATION, MAX_URI
from understudy.runtime import (
    NoStandingStream,
    NotificationRefused,
    NotStarted,
    Runtime,
    Session,
    SessionNotFound,
    SessionUnavailable,
    TenantContext,
    TurnSession,
    UnderstudyError,
)
from understudy.stores import Address
from understudy.stores.event_log import event_log_of

UPDATED = "notifications/resources/updated"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with hosting(make_server()) as client:
        await client.open()
        yield client


async def listening(client: Client) -> HTTPCall:
    return await client.same_session().start("GET").started()


def numbers(stream: HTTPCall) -> list[int]:
    return [params["n"] for method, params in told(stream) if method == "notifications/n"]


def told(stream: HTTPCall) -> list[tuple[str, Any]]:
    return [(message["method"], message.get("params")) for message in stream.messages]


async def test_a_notification_from_outside_a_call_goes_on_the_standalone_stream(client: Client) -> None:
    stream = await listening(client)
    session = client.runtime.session(client.session or "")
    await session.notify(UPDATED, {"uri": "stage://a"})
    await session.notify_resource_updated("stage://b")
    await session.notify_tools_changed()
    await session.notify_resources_changed()
    await session.notify_prompts_changed()
    await session.notify("notifications/message", {"level": "info", "data": {"n": 1}})
    await session.notify("notifications/elicitation/complete", {"elicitationId": "e-1"})
    await session.notify("notifications/shop/opened", {"at": 9})
    await stream.until(lambda: len(stream.messages) == 8)
    assert told(stream) == [
        (UPDATED, {"uri": "stage://a"}),
        (UPDATED, {"uri": "stage://b"}),
        ("notifications/tools/list_changed", None),
        ("notifications/resources/list_changed", None),
        ("notifications/prompts/list_changed", None),
        ("notifications/message", {"level": "info", "data": {"n": 1}}),
        ("notifications/elicitation/complete", {"elicitationId": "e-1"}),
        ("notifications/shop/opened", {"at": 9}),
    ]


@pytest.mark.filterwarnings("ignore:.*deprecated as of 2026-07-28")
async def test_a_log_message_below_the_clients_level_is_not_sent() -> None:
    async def set_level(ctx: Any, params: Any) -> EmptyResult:
        return EmptyResult()

    async with hosting(Server("levelled", on_set_logging_level=set_level)) as client:
        await client.open()
        stream = await listening(client)
        assert (await client.ask("logging/setLevel", {"level": "error"})).result == {}
        session = client.runtime.session(client.session or "")
        await session.notify("notifications/message", {"level": "info", "data": 1})
        await session.notify("notifications/message", {"level": "critical", "data": 2})
        await stream.until(lambda: told(stream))
        assert [params["data"] for _, params in told(stream)] == [2]


async def test_a_notification_does_not_wait_for_the_turn_that_runs() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        stream = await listening(client)
        running = client.begin_tool("hold")
        await stage.began.wait()
        await client.runtime.session(client.session or "").notify_tools_changed()
        await stream.until(lambda: told(stream))
        assert stage.running == 1
        stage.go_on.set()
        assert (await running.answered()).value == 1


async def test_a_session_that_sleeps_is_woken(client: Client) -> None:
    stream = await listening(client)
    await put_to_sleep(client.runtime, client.session)
    await client.runtime.session(client.session or "").notify_tools_changed()
    await stream.until(lambda: told(stream))
    assert told(stream) == [("notifications/tools/list_changed", None)]


async def test_what_is_told_later_is_not_changed_by_who_told_it(client: Client) -> None:
    stream = await listening(client)
    params = {"uri": "stage://a", "_meta": {"seen": [1]}}
    await client.runtime.session(client.session or "").notify(UPDATED, params)
    params["_meta"]["seen"].append(2)  # type: ignore[index]
    await stream.until(lambda: told(stream))
    assert told(stream)[0][1]["_meta"] == {"seen": [1]}


# Who is not there


async def test_who_has_not_listened_yet_gets_it_with_the_first_stream(client: Client) -> None:
    session = client.runtime.session(client.session or "")
    await session.notify("notifications/n", {"n": 1})
    await session.notify("notifications/n", {"n": 2})
    stream = await listening(client)
    await session.notify("notifications/n", {"n": 3})
    await stream.until(lambda: len(numbers(stream)) == 3)
    assert numbers(stream) == [1, 2, 3]


@pytest.mark.parametrize("gone_for", [1.0, 61.0], ids=["a moment", "longer than streams stay in memory"])
async def test_who_is_between_two_connections_gets_it_once_when_it_is_back(client: Client, gone_for: float) -> None:
    now = [0.0]
    client.runtime._node.resumable.table._left._clock = lambda: now[0]  # type: ignore[union-attr]
    session = client.runtime.session(client.session or "")
    stream = await listening(client)
    await session.notify("notifications/n", {"n": 1})
    await stream.until(lambda: numbers(stream))
    stream.disconnect()
    await stream.done()
    await session.notify("notifications/n", {"n": 2})
    now[0] += gone_for
    await session.notify("notifications/n", {"n": 3})
    now[0] += gone_for
    last = stream.events[-1].id
    again = await client.same_session().start("GET", headers={"last-event-id": last}).started()
    await session.notify("notifications/n", {"n": 4})
    await again.until(lambda: 4 in numbers(again))
    assert numbers(stream) + numbers(again) == [1, 2, 3, 4]


async def test_a_notification_is_in_the_log_by_the_time_that_it_is_told(tmp_path: Path) -> None:
    async with hosting(make_server(), store=f"sqlite:///{tmp_path / 'sessions.db'}") as client:
        await client.open()
        address = Address("session", client.session or "")
        log = event_log_of(client.runtime._node.store)
        assert log is not None
        for number in range(1, 4):
            await client.runtime.session(client.session or "").notify("notifications/n", {"n": number})
            logged = await log.read(address, "standalone")
            assert logged is not None
            assert json.loads(logged.events[-1])["params"] == {"n": number}


async def test_a_notification_outlives_the_node(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'sessions.db'}"
    async with hosting(make_server(), store=store) as client:
        await client.open()
        session = client.session
        stream = await listening(client)
        await client.runtime.session(session or "").notify("notifications/n", {"n": 1})
        await stream.until(lambda: numbers(stream))
        stream.disconnect()
        await stream.done()
        await client.runtime.session(session or "").notify("notifications/n", {"n": 2})
        last = stream.events[-1].id
    async with hosting(make_server(), store=store) as client:
        client.session, client.revision = session, "2025-11-25"
        await client.runtime.session(session or "").notify("notifications/n", {"n": 3})
        again = await client.start("GET", headers={"last-event-id": last}).started()
        await again.until(lambda: 3 in numbers(again))
        assert numbers(again) == [2, 3]


# What is refused


class Odd:
    pass


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


CIRCLE: dict[str, Any] = {}
CIRCLE["circle"] = CIRCLE

REFUSED: list[tuple[Any, Any, str]] = [
    ("tools/list_changed", None, "is no notification"),
    ("", None, "is no notification"),
    (7, None, "is no notification"),
    ("ping", None, "is no notification"),
    ("notifications/progress", {"progressToken": 1, "progress": 1}, "belongs to the stream of a request"),
    ("notifications/cancelled", {"requestId": 1}, "belongs to the stream of a request"),
    ("notifications/initialized", None, "nothing that a server tells"),
    ("notifications/roots/list_changed", None, "nothing that a server tells"),
    ("notifications/subscriptions/acknowledged", {}, "nothing that a server tells"),
    (UPDATED, None, "params"),
    (UPDATED, {}, "params.uri: Field required"),
    (UPDATED, {"uri": 7}, "params.uri"),
    ("notifications/message", {"level": "loud", "data": 1}, "params.level"),
    (UPDATED, ["uri"], "of type list, but must be a mapping"),
    ("notifications/x", {"odd": Odd()}, "nothing that JSON can carry"),
    ("notifications/x", {"odd": b"bytes"}, "nothing that JSON can carry"),
    ("notifications/x", {"odd": float("nan")}, "nothing that JSON can carry"),
    ("notifications/x", {"odd": "\ud800"}, "nothing that JSON can carry"),
    ("notifications/x", {"odd": 10**5000}, "nothing that JSON can carry"),
    ("notifications/x", {("a", "tuple"): 1}, "nothing that JSON can carry"),
    ("notifications/x", {"odd": nested(900)}, "nothing that JSON can carry"),
    ("notifications/x", CIRCLE, "nothing that JSON can carry"),
    ("notifications/x", {"much": "x" * MAX_NOTIFICATION}, f"at most {MAX_NOTIFICATION} may be sent"),
]


@pytest.mark.parametrize(("method", "params", "says"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
async def test_what_a_server_may_not_tell_is_refused_and_not_sent(
    client: Client, method: Any, params: Any, says: str
) -> None:
    stream = await listening(client)
    session = client.runtime.session(client.session or "")
    with pytest.raises(NotificationRefused, match=says) as refused:
        await session.notify(method, params)
    assert isinstance(refused.value, UnderstudyError)
    assert len(str(refused.value)) < 1000
    await session.notify_tools_changed()
    await stream.until(lambda: told(stream))
    assert told(stream) == [("notifications/tools/list_changed", None)]


@pytest.mark.parametrize("id", ["A" * 32, "", "no such id", "\xff", "x" * 5000, 7, None])
async def test_a_session_that_is_not_there_is_said_to_be_not_found(client: Client, id: Any) -> None:
    with pytest.raises(SessionNotFound, match="never opened, ended, expired") as error:
        await client.runtime.session(id).notify_tools_changed()
    assert isinstance(error.value, LookupError)
    assert len(str(error.value)) < 300


async def test_a_session_that_was_ended_is_not_found(client: Client) -> None:
    session = client.runtime.session(client.session or "")
    await session.notify_tools_changed()
    assert (await client.send("DELETE")).status == 200
    with pytest.raises(SessionNotFound):
        await session.notify_tools_changed()


async def test_another_tenants_session_is_as_unknown_as_none() -> None:
    def resolve(request: Any) -> TenantContext:
        return TenantContext("acme", "ada")

    async with hosting(make_server(), tenants=resolve) as client:
        await client.open()
        stream = await listening(client)
        runtime, id = client.runtime, client.session or ""
        with pytest.raises(SessionNotFound) as foreign:
            await runtime.session(id, tenant="bits").notify_resource_updated("stage://theirs")
        with pytest.raises(SessionNotFound) as unknown:
            await runtime.session("A" * 32, tenant="bits").notify_resource_updated("stage://theirs")
        assert str(foreign.value).replace(id, "ID") == str(unknown.value).replace("A" * 32, "ID")
        await runtime.session(id, tenant="acme").notify_resource_updated("stage://ours")
        await stream.until(lambda: told(stream))
        assert told(stream) == [(UPDATED, {"uri": "stage://ours"})]


async def test_a_session_by_handle_has_no_stream_and_the_refusal_names_the_bus() -> None:
    async with hosting_modern(make_server()) as client:
        handle = await client.handle()
        with pytest.raises(NoStandingStream, match=r"runtime\.publish") as refused:
            await client.runtime.session(handle).notify_tools_changed()
        assert isinstance(refused.value, NotificationRefused)
        assert handle not in str(refused.value)


async def test_a_node_that_stops_says_that_the_client_was_not_told() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        await put_to_sleep(client.runtime, client.session)
        await client.runtime.drain()
        with pytest.raises(SessionUnavailable, match="its client was not told") as error:
            await client.runtime.session(client.session or "").notify_tools_changed()
        assert not error.value.outcome_unknown
        assert error.value.retry_after > 0


async def test_a_runtime_that_does_not_run_says_so() -> None:
    runtime = Runtime(make_server())
    session = runtime.session("A" * 32)
    for _ in range(2):
        with pytest.raises(NotStarted):
            await session.notify_tools_changed()
        with pytest.raises(NotStarted):
            await runtime.publish(ToolsListChanged())
        async with runtime:
            with pytest.raises(SessionNotFound):
                await session.notify_tools_changed()


async def test_of_too_many_at_once_each_arrives_or_is_refused(client: Client) -> None:
    stream = await listening(client)
    session = client.runtime.session(client.session or "")
    async with asyncio.timeout(PATIENCE):
        outcomes = await asyncio.gather(
            *(session.notify("notifications/n", {"n": number}) for number in range(500)), return_exceptions=True
        )
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert 0 < len(refused) <= 500 - 200
    for error in refused:
        assert isinstance(error, SessionUnavailable)
        assert not error.outcome_unknown
    sent = [number for number, outcome in enumerate(outcomes) if outcome is None]
    await stream.until(lambda: len(stream.messages) >= len(sent))
    await session.notify("notifications/last")
    await stream.until(lambda: stream.messages[-1]["method"] == "notifications/last")
    assert sorted(params["n"] for _, params in told(stream)[:-1]) == sent


# Inside a call


def chatty(kept: list[TurnSession] | None = None) -> MCPServer:
    server = MCPServer("chatty", log_level="CRITICAL")

    @server.tool()
    async def tell(uri: str, session: Session) -> str:
        if kept is not None:
            kept.append(session)
        await session.notify_resource_updated(uri)
        await session.notify("notifications/tools/list_changed")
        return "told"

    @server.tool()
    async def tell_and_fail(session: Session) -> str:
        session.state["told"] = True
        await session.notify_prompts_changed()
        raise RuntimeError("afterwards")

    @server.tool()
    async def tell_wrong(session: Session) -> str:
        await session.notify("notifications/progress", {"progressToken": 1, "progress": 1})
        return "told"

    return server


async def test_a_tool_tells_in_the_same_words_and_on_the_same_stream() -> None:
    async with hosting(chatty()) as client:
        await client.open()
        stream = await listening(client)
        call = await client.begin_tool("tell", {"uri": "chat://1"}).answered()
        assert [message for message in call.messages if "method" in message] == []
        await stream.until(lambda: len(stream.messages) == 2)
        assert told(stream) == [(UPDATED, {"uri": "chat://1"}), ("notifications/tools/list_changed", None)]


async def test_what_a_tool_has_told_stands_though_it_fails() -> None:
    async with hosting(chatty()) as client:
        await client.open()
        stream = await listening(client)
        assert (await client.begin_tool("tell_and_fail").answered()).result["isError"]
        await stream.until(lambda: told(stream))


async def test_what_a_tool_may_not_tell_is_an_error_of_the_tool() -> None:
    async with hosting(chatty()) as client:
        await client.open()
        failed = (await client.begin_tool("tell_wrong").answered()).result
        assert failed["isError"]
        assert "belongs to the stream of a request" in failed["content"][0]["text"]


async def test_a_session_object_tells_nothing_after_its_turn() -> None:
    kept: list[TurnSession] = []
    async with hosting(chatty(kept)) as client:
        await client.open()
        await client.tool("tell", {"uri": "chat://1"})
        with pytest.raises(UnderstudyError, match=r"use runtime\.session\(id\)\.notify"):
            await kept[0].notify_tools_changed()


async def test_a_tool_of_a_session_by_handle_is_sent_to_the_bus() -> None:
    async with hosting_modern(chatty()) as client:
        handle = await client.handle()
        failed = (await client.begin_tool("tell", {"uri": "chat://1", "session": handle}).answered()).result
        assert failed["isError"]
        assert "ctx.notify_resource_updated" in failed["content"][0]["text"]


# The bus


async def test_what_is_published_reaches_who_listens() -> None:
    async with hosting_modern(make_server()) as client:
        stream = await listen(client, "stage://a")
        await client.runtime.publish(ResourceUpdated("stage://other"))
        await client.runtime.publish(ResourceUpdated("stage://a"))
        await client.runtime.publish(ToolsListChanged())
        await stream.until(lambda: len(heard(stream)) == 2)
        assert heard(stream) == ["stage://a", "tools/list_changed"]
        with pytest.raises(NotificationRefused, match="one server serves all tenants"):
            await client.runtime.publish(ToolsListChanged(), tenant="acme")


async def test_what_is_published_for_one_tenant_no_other_hears() -> None:
    def resolve(request: Any) -> TenantContext:
        return TenantContext(request.headers["authorization"], "somebody")

    async with hosting_modern(lambda tenant: make_server(), tenants=resolve) as client:
        streams = {name: await listen(client.twin(authorization=name)) for name in ("acme", "bits")}
        with pytest.raises(NotificationRefused, match="name the tenant"):
            await client.runtime.publish(ToolsListChanged())
        for name, stream in streams.items():
            await client.runtime.publish(ToolsListChanged(), tenant=name)
            await stream.until(lambda stream=stream: heard(stream))
        assert [heard(stream) for stream in streams.values()] == [["tools/list_changed"]] * 2


async def test_where_everybody_is_anonymous_no_tenant_need_be_named() -> None:
    async with hosting_modern(lambda tenant: make_server()) as client:
        stream = await listen(client)
        await client.runtime.publish(ToolsListChanged())
        await stream.until(lambda: heard(stream))


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ("tools", "is no event"),
        (None, "is no event"),
        (ToolsListChanged, "is no event"),
        (ResourceUpdated(7), "params.uri"),  # type: ignore[arg-type]
        (ResourceUpdated("\ud800"), "nothing that JSON can carry"),
        (ResourceUpdated("x" * (MAX_URI + 1)), f"at most {MAX_URI}"),
    ],
)
async def test_what_is_no_event_is_not_published(event: Any, says: str) -> None:
    async with Runtime(make_server()) as runtime:
        with pytest.raises(NotificationRefused, match=says):
            await runtime.publish(event)


async def test_a_server_whose_bus_is_out_of_reach_is_not_published_on() -> None:
    async with Runtime(Server("low")) as runtime:
        with pytest.raises(NotificationRefused, match="is no MCPServer"):
            await runtime.publish(ToolsListChanged())
