"""any-node: what this node may not run goes to the node that may, and the client cannot tell."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import Client, ModernClient, hosting, hosting_modern, initialize_params, put_to_sleep
from edge.fleet import Fleet, Node, fleet_of
from edge.server import Stage, make_server
from edge.test_streams import progress
from mcp.server.lowlevel import Server
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool
from support.patience import PATIENCE
from support.permits import Permits
from understudy.actors.session import announcement
from understudy.actors.task_owner import TaskOwner
from understudy.runtime import current_session
from understudy.runtime.edge import modern, sse
from understudy.runtime.wire.inbound import Inbound
from understudy.runtime.wire.routing import Leg, Placement
from understudy.stores import Address


class Stages:
    """Two nodes with the same server, and what their tools wait for."""

    def __init__(self, fleet: Fleet, here: Node, there: Node, stages: list[Stage]) -> None:
        self.fleet = fleet
        self.here = here
        self.there = there
        self.stages = stages

    def go_on(self) -> None:
        for stage in self.stages:
            stage.go_on.set()

    @property
    def runs(self) -> list[int]:
        return [stage.runs for stage in self.stages]


@pytest.fixture
async def two() -> AsyncIterator[Stages]:
    stages = [Stage(), Stage()]
    async with fleet_of(*(make_server(stage) for stage in stages)) as (fleet, here, there):
        yield Stages(fleet, here, there, stages)


def address_of(client: Client) -> Address:
    return Address("session", client.session or "")


async def waits(node: Node, calls: int = 1) -> None:
    """Until so many calls wait for their turn."""
    async with asyncio.timeout(PATIENCE):
        while node.registry.stats()["waiting"] < calls:
            await asyncio.sleep(0)


# Calls that wait


@pytest.mark.parametrize("streams", [False, True], ids=["before anything was sent", "after the stream has begun"])
async def test_a_call_that_waits_is_answered_by_the_node_that_the_session_moves_to(two: Stages, streams: bool) -> None:
    client = two.here.client()
    await client.open()
    holding = client.begin_tool("hold")
    await two.stages[0].began.wait()
    waiting = client.begin_tool("increment")
    await waits(two.here)
    if streams:
        await waiting.started()
        assert waiting.events[0].retry is not None, "primed"
    async with TaskOwner() as tasks:
        moving = tasks.spawn(two.fleet.move(address_of(client), two.there))
        await asyncio.sleep(0.02)
        two.go_on()
        assert (await holding.answered()).value == 1, "what ran has been finished"
        assert (await waiting.answered()).value == 1
        assert await moving is True
    assert waiting.kind == ("text/event-stream" if streams else "application/json")
    assert two.here.attempts[-2:] == ["Elsewhere", "answered"]
    assert two.there.attempts == ["answered"]
    assert await client.tool("increment") == 2
    assert (await two.fleet.store.load(address_of(client))).owner == "node-2"
    # Of the streams here at most the one of the call that ran here may be come back to.
    assert two.here.runtime.stats()["streams_kept"] <= 1


async def test_the_stream_that_goes_on_elsewhere_has_one_head_one_end_and_every_message(two: Stages) -> None:
    client = two.here.client()
    await client.open()
    holding = client.begin_tool("hold")
    await two.stages[0].began.wait()
    two.stages[1].go_on.set()
    waiting = client.begin_tool("report", {"before": 3, "after": 2}, token="t")
    await waiting.started()
    two.stages[0].go_on.set()
    await two.fleet.move(address_of(client), two.there)
    await holding.answered()
    await waiting.answered()
    assert progress(waiting) == [1, 2, 3, 4, 5]
    assert waiting.value == "reported"
    assert two.runs == [1, 1]
    # It can be resumed where it was served.
    replayed = await client.send("GET", headers={"last-event-id": waiting.events[2].id})
    assert replayed.value == "reported"


async def test_many_that_wait_each_run_once_and_none_is_lost(two: Stages) -> None:
    client = two.here.client()
    await client.open()
    holding = client.begin_tool("hold")
    await two.stages[0].began.wait()
    waiting = [client.begin_tool("increment") for _ in range(20)]
    await waits(two.here, 20)
    await waiting[0].started()
    waiting += [client.begin_tool("increment") for _ in range(20)]
    await waits(two.here, 40)
    two.go_on()
    await two.fleet.move(address_of(client), two.there)
    await holding.answered()
    assert sorted([(await call.answered()).value for call in waiting]) == list(range(1, 41))
    assert await client.tool("count") == 40


async def test_a_reading_call_that_runs_is_finished_where_it_runs(two: Stages) -> None:
    client = two.here.client()
    await client.open()
    watching = client.begin_tool("watch")
    await two.stages[0].began.wait()
    async with TaskOwner() as tasks:
        moving = tasks.spawn(two.fleet.move(address_of(client), two.there))
        await asyncio.sleep(0.02)
        assert not moving.done()
        two.go_on()
        assert (await watching.answered()).value == "watched"
    assert two.runs == [1, 0]


async def test_a_call_in_a_lapsed_node_goes_to_the_next_owner(two: Stages) -> None:
    client = two.here.client()
    await client.open()
    holding = client.begin_tool("hold")
    await two.stages[0].began.wait()
    waiting = client.begin_tool("note", {"key": "k"})
    await waiting.started()
    two.here.lease = False
    two.here.registry.lapse()
    two.fleet.owners[address_of(client)] = two.there
    assert (await waiting.answered()).value == ["k"]
    assert await client.tool("note", {"key": "l"}) == ["k", "l"]
    two.go_on()
    # It ran where nobody may write any more: its change is not saved, and it is not repeated either.
    assert (await holding.answered()).failure["code"] == -32000
    assert two.runs == [1, 0]


async def test_the_answer_to_a_client_that_left_is_not_forced_on_another_node(two: Stages) -> None:
    client = two.here.client()
    await client.open()
    holding = client.begin_tool("hold")
    await two.stages[0].began.wait()
    waiting = await client.begin_tool("increment").started()
    waiting.disconnect()
    await waiting.done()
    back = await client.start("GET", headers={"last-event-id": waiting.events[0].id}).started()
    two.go_on()
    await two.fleet.move(address_of(client), two.there)
    await holding.answered()
    # Nobody is left who could send it on; whoever came back for it is told that it has not run.
    assert (await back.answered()).failure["message"] == "The session is not available now; nothing was changed"
    assert await client.tool("increment") == 1


# Everything else of the handshake era


async def test_every_request_of_a_session_may_come_to_any_node(two: Stages) -> None:
    owner = two.here.client()
    await owner.open()
    client = two.there.client()
    client.session, client.revision = owner.session, owner.revision
    assert await client.tool("increment") == 1
    assert (await client.notify("notifications/roots/list_changed")).status == 202
    asking = client.begin_tool("ask_name")
    question = await asking.message("elicitation/create")
    answer = {"action": "accept", "content": {"name": "Ann"}}
    assert (await client.respond(question["id"], answer)).status == 202
    assert (await asking.answered()).value == "Ann"
    assert (await client.send("DELETE")).status == 200
    assert (await client.ask("tools/list")).status == 404
    assert two.here.attempts.count("answered") >= 6
    assert two.runs == [0, 0]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("POST", {"method": "notifications/roots/list_changed"}),
        ("POST", {"id": 1, "result": {}}),
        ("POST", {"id": 1, "method": "tools/list"}),
        ("POST", {"id": 1, "method": "initialize", "params": initialize_params()}),
        ("GET", None),
        ("DELETE", None),
    ],
)
async def test_a_leg_says_elsewhere_before_anything_is_sent(two: Stages, method: str, message: Any) -> None:
    client = two.here.client()
    await client.open()
    await put_to_sleep(two.here.runtime, client.session)
    two.fleet.owners[address_of(client)] = two.there
    two.here.attempts.clear()
    # As if the router knew nothing.
    two.here.route = lambda inbound, address, run: Node.route(two.here, inbound, None, run)  # type: ignore[method-assign]
    body = json.dumps({"jsonrpc": "2.0", **message}).encode() if message is not None else b""
    call = client.start(method, body)
    await call.started()
    assert two.here.attempts == ["Elsewhere"]
    if method == "GET":
        call.disconnect()
    await call.done()
    assert two.there.attempts == ["answered"]
    assert address_of(client) not in two.here.registry


async def test_a_standalone_stream_goes_on_at_the_new_owner_without_the_clients_notice(two: Stages) -> None:
    client = two.here.client()
    await client.open()
    listening = await client.start("GET").started()
    await client.tool("announce")
    await listening.event(1)
    await two.fleet.move(address_of(client), two.there)
    async with asyncio.timeout(PATIENCE):
        while not two.there.streams.holds(address_of(client)):
            await asyncio.sleep(0)
    seen = len(listening.events)
    await client.tool("announce")
    await listening.event(seen)
    assert not listening.complete
    assert two.here.attempts.count("Elsewhere") == 1
    assert not two.here.streams.holds(address_of(client))
    await two.fleet.move(address_of(client), two.here)
    async with asyncio.timeout(PATIENCE):
        while not two.here.streams.holds(address_of(client)):
            await asyncio.sleep(0)
    seen = len(listening.events)
    await client.tool("announce")
    await listening.event(seen)
    listening.disconnect()
    await listening.done()


async def test_what_was_on_its_way_to_a_standalone_stream_arrives_before_it_goes_on(two: Stages) -> None:
    client = two.here.client()
    await client.open()
    listening = await client.start("GET").started()
    first = len(listening.events)
    exchange = two.here.streams.standalone(address_of(client))
    exchange.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    await two.fleet.move(address_of(client), two.there)
    event = await listening.event(first)
    assert event.message["method"] == "notifications/tools/list_changed"


# The modern era


@pytest.mark.parametrize("streams", [False, True], ids=["before anything was sent", "after the stream has begun"])
async def test_a_modern_call_that_waits_is_answered_by_the_new_owner(
    two: Stages, streams: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if streams:
        monkeypatch.setattr(modern, "JSON_PATIENCE", 0.01)
    client = two.here.modern()
    handle = await client.handle()
    address = Address("session", handle)
    holding = client.begin_tool("hold", {"session": handle})
    await two.stages[0].began.wait()
    waiting = client.begin_tool("increment", {"session": handle})
    await waits(two.here)
    if streams:
        await waiting.started()
    async with TaskOwner() as tasks:
        tasks.spawn(two.fleet.move(address, two.there))
        await asyncio.sleep(0.02)
        two.go_on()
        assert (await holding.answered()).value == 1
        assert (await waiting.answered()).value == 1
    assert waiting.kind == ("text/event-stream" if streams else "application/json")
    assert two.there.attempts == ["answered"]
    assert await client.tool("increment", {"session": handle}) == 2


async def test_a_client_that_leaves_cancels_its_call_wherever_that_waits(two: Stages) -> None:
    client = two.here.modern()
    handle = await client.handle()
    first = client.begin_tool("hold", {"session": handle})
    await two.stages[0].began.wait()
    waiting = client.begin_tool("hold", {"session": handle})
    await waits(two.here)
    two.stages[0].go_on.set()
    await two.fleet.move(Address("session", handle), two.there)
    await first.answered()
    await two.stages[1].began.wait()
    waiting.disconnect()
    await waiting.done()
    async with asyncio.timeout(PATIENCE):
        while not two.stages[1].cancelled:
            await asyncio.sleep(0)
    assert await client.tool("count", {"session": handle}) == 0


@pytest.mark.parametrize("tool", ["increment", "close_session"])
async def test_a_handle_that_only_the_body_names_is_found_too(two: Stages, tool: str) -> None:
    client = two.here.modern()
    handle = await client.handle()
    other = two.there.modern()
    encoded = f"=?base64?{base64.b64encode(handle.encode()).decode()}?="
    two.there.route = lambda inbound, address, run: Node.route(two.there, inbound, None, run)  # type: ignore[method-assign]
    call = other.begin_tool(tool, {"session": handle}, headers={"mcp-param-session": encoded})
    assert (await call.answered()).result["isError"] is False
    assert two.there.attempts == ["Elsewhere"]
    assert Address("session", handle) not in two.there.registry


async def test_a_lowlevel_server_whose_tools_are_not_known_yet_finds_the_owner() -> None:
    schema = {"type": "object", "properties": {"session": {"type": "string", "x-mcp-header": "Session"}}}

    def server() -> Server[Any]:
        async def list_tools(ctx: Any, params: Any) -> ListToolsResult:
            return ListToolsResult(tools=[Tool(name="count", input_schema=schema)])

        async def call_tool(ctx: Any, params: Any) -> CallToolResult:
            state = current_session().state
            state["count"] = state.get("count", 0) + 1
            return CallToolResult(content=[TextContent(type="text", text=str(state["count"]))])

        return Server("lowlevel", on_list_tools=list_tools, on_call_tool=call_tool)

    async with fleet_of(server(), server()) as (_, here, there):
        client = here.modern()
        await client.ask("tools/list", {})
        handle = await client.handle()
        # No listing has been asked of the other node: that the tool takes a handle is found out after the routing.
        there.route = lambda inbound, address, run: Node.route(there, inbound, None, run)  # type: ignore[method-assign]
        call = await there.modern().begin_tool("count", {"session": handle}).answered()
        assert call.result["content"][0]["text"] == "1"
        assert there.attempts == ["Elsewhere"]


# What the router is told


async def test_the_router_is_told_whom_the_headers_name(two: Stages) -> None:
    client = two.here.client()
    await client.open()
    mine = address_of(client)
    assert two.here.routed == [("POST", None), ("POST", mine)]
    two.here.routed.clear()
    other = two.here.client()
    for spelled in ("x" * 129, "with space", ""):
        other.session = spelled
        await other.ask("tools/list")
    assert two.here.routed == [("POST", None)] * 3
    two.here.routed.clear()
    modern_client = two.here.modern()
    handle = await modern_client.handle()
    spellings: list[Any] = [handle, f"=?base64?{base64.b64encode(handle.encode()).decode()}?=", "=?base64?\xff?=", None]
    for header in (*spellings, "=?base64?!?="):
        await modern_client.begin_tool("echo", {"value": 1}, headers={"mcp-param-session": header}).answered()
    named = Address("session", handle)
    assert [address for _, address in two.here.routed] == [None, named, named, None, None, None]


async def test_methods_that_nobody_serves_are_refused_without_a_router(two: Stages) -> None:
    client = two.here.client()
    await client.open()
    two.here.routed.clear()
    for method in ("PUT", "OPTIONS", "HEAD"):
        assert (await client.send(method)).status == 405
    assert two.here.routed == []


async def test_the_router_gets_the_body_as_it_came(two: Stages) -> None:
    bodies: list[bytes] = []

    async def route(inbound: Any, address: Any, run: Any) -> None:
        bodies.append(inbound.body)
        assert inbound.remote is False
        await run(inbound)

    two.here.route = route  # type: ignore[method-assign]
    client = two.here.client()
    garbage = b"{ not json"
    assert (await client.send(body=garbage)).failure["code"] == -32700
    assert (await client.send(body=[garbage, b" at all"])).status == 400
    assert (await client.send("GET", headers={"mcp-session-id": "x"})).status == 404
    assert bodies == [garbage, b"{ not json at all", b""]


# Room


async def fill(node: Node) -> Client:
    """Keep the only place of a node in use."""
    client = node.client()
    await client.open()
    node.registry.pin(address_of(client))
    return client


@pytest.mark.parametrize("reason", ["full", "draining", "door"])
async def test_a_session_that_has_no_room_here_is_opened_elsewhere(reason: str) -> None:
    async with fleet_of(make_server(), make_server(), max_sessions=1) as (fleet, here, there):
        if reason == "full":
            await fill(here)
        elif reason == "draining":
            await here.registry.drain(1)
        else:
            here.registry.close_door()
        client = here.client()
        await client.open()
        assert fleet.owners[address_of(client)] is there
        assert await client.tool("increment") == 1
        assert here.no_room == [None], "a new one has no address yet"
        await client.send("DELETE")
        by_handle = here.modern()
        handle = await by_handle.handle()
        assert here.no_room == [None, None]
        assert fleet.owners[Address("session", handle)] is there
        assert await by_handle.tool("increment", {"session": handle}) == 1


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_a_session_that_cannot_be_woken_here_wakes_elsewhere(two: Stages, era: str) -> None:
    client: Any = two.here.client() if era == "handshake" else two.here.modern()
    arguments = {}
    if era == "handshake":
        await client.open()
        session = client.session
    else:
        session = await client.handle()
        arguments = {"session": session}
    await put_to_sleep(two.here.runtime, session)
    two.here.registry.close_door()
    assert await client.tool("increment", arguments) == 1
    assert two.fleet.owners[Address("session", session)] is two.there
    assert two.here.no_room == [Address("session", session)]


async def refused_everything(client: Client, by_handle: ModernClient, session: str, handle: str) -> list[Any]:
    """What a client is told by a node that takes nothing."""
    client.session = None
    calls: list[HTTPCall] = [await client.ask("initialize", initialize_params(), id=1)]
    client.session, client.revision = session, "2025-11-25"
    calls.append(await client.ask("tools/list", id="two"))
    calls.append(await client.ask("initialize", initialize_params(), id=3))
    calls.append(await client.notify("notifications/roots/list_changed"))
    calls.append(await client.respond(1, {}))
    calls.append(await client.send("GET"))
    calls.append(await client.send("DELETE"))
    calls.append(await by_handle.begin_tool("open_session", id=4).answered())
    calls.append(await by_handle.begin_tool("increment", {"session": handle}, id=5).answered())
    calls.append(await by_handle.begin_tool("close_session", {"session": handle}, id=6).answered())
    return [(call.status, call.headers, call.body) for call in calls]


async def test_where_no_node_has_room_a_client_is_told_what_a_single_node_tells_it() -> None:
    async with fleet_of(make_server()) as (_, only):
        client, by_handle = only.client(), only.modern()
        await client.open()
        session, handle = client.session, await by_handle.handle()
        await only.registry.drain(1)
        told = await refused_everything(client, by_handle, session or "", handle)
    async with hosting(make_server()) as client, hosting_modern(make_server()) as by_handle:
        await client.open()
        session, handle = client.session, await by_handle.handle()
        for runtime in (client.runtime, by_handle.runtime):
            registry: Any = runtime._node.registry
            await registry.drain(1)
        alone = await refused_everything(client, by_handle, session or "", handle)
    assert told == alone
    assert {status for status, _, _ in alone} == {503}


async def test_a_node_that_may_not_act_and_has_no_router_says_503() -> None:
    permits = Permits()
    async with hosting(make_server(), placement=Placement(gate=permits)) as client:
        await client.open()
        permits.lease = False
        for method in ("POST", "GET", "DELETE"):
            call = await client.send(method, client.message("tools/list") if method == "POST" else b"")
            assert call.status == 503
            assert call.header("retry-after") == "1"
            assert call.json["error"]["message"] == "The session is not available now; nothing was changed"
        permits.lease = True
        assert await client.tool("increment") == 1


# Announcing


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_a_new_session_is_announced_before_its_client_learns_of_it(two: Stages, era: str) -> None:
    announcing, go_on = asyncio.Event(), asyncio.Event()
    saved: list[Any] = []

    async def announce(address: Address) -> None:
        saved.append(await two.fleet.store.load(address))
        announcing.set()
        await go_on.wait()

    two.fleet.announcing = announce
    client: Any = two.here.client() if era == "handshake" else two.here.modern()
    call = client.begin("initialize", initialize_params()) if era == "handshake" else client.begin_tool("open_session")
    await announcing.wait()
    assert saved[0] is not None
    await asyncio.sleep(0.05)
    assert call.status == 0
    go_on.set()
    await call.answered()
    named = call.header("mcp-session-id") or call.result.get("structuredContent", {}).get("session")
    assert two.fleet.announced == [Address("session", named)]


async def test_a_slow_opening_keeps_its_result_back_until_it_is_announced(two: Stages) -> None:
    async def slow_factory(tenant: Any) -> Any:
        await asyncio.sleep(0.2)
        return make_server()

    go_on = asyncio.Event()

    async def announce(_: Address) -> None:
        await go_on.wait()

    async with fleet_of(slow_factory) as (fleet, only):
        fleet.announcing = announce
        client = only.client()
        call = await client.begin("initialize", initialize_params()).started()
        assert call.kind == "text/event-stream"
        async with asyncio.timeout(PATIENCE):
            while not only.registry.stats()["saves"]:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert call.messages == []
        go_on.set()
        assert (await call.answered()).result["serverInfo"]["name"] == "stage"
        assert len(fleet.announced) == 1


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
async def test_an_announcement_that_does_not_succeed_opens_the_session_nevertheless(
    two: Stages, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcement, "PATIENCE", 0.02)

    async def announce(_: Address) -> None:
        if trouble == "fails":
            raise OSError("no NATS")
        await asyncio.Event().wait()

    two.fleet.announcing = announce
    client = two.here.client()
    await client.open()
    assert await client.tool("increment") == 1
    by_handle = two.here.modern()
    assert await by_handle.tool("increment", {"session": await by_handle.handle()}) == 1
    assert two.fleet.announced == []


async def test_an_opening_that_fails_is_not_announced(two: Stages) -> None:
    client = two.here.client()
    refused = await client.ask("initialize", {"protocolVersion": 7})
    assert "error" in refused.reply
    assert two.fleet.announced == []


# Keeping connections alive


async def test_only_the_node_that_holds_the_connection_keeps_it_alive(
    two: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.02)
    owner = two.here.client()
    await owner.open()
    client = two.there.client()
    client.session, client.revision = owner.session, owner.revision
    local, remote = [await one.begin_tool("watch").started() for one in (owner, client)]
    listening = await client.start("GET").started()
    before = local.comments
    await local.until(lambda: local.comments >= before + 5)
    assert (remote.comments, listening.comments) == (0, 0)
    two.go_on()
    for call in (local, remote):
        assert (await call.answered()).value == "watched"


# Calls that need not wait


@pytest.mark.parametrize(
    ("by_handle", "tool", "arguments"),
    [(False, "number", {"what": "1"}), (False, "notes", {}), (True, "count", {})],
    ids=["an exclusive turn", "a shared one", "by handle"],
)
async def test_a_forwarded_call_that_waits_for_nothing_is_answered_where_it_is_read(
    two: Stages, monkeypatch: pytest.MonkeyPatch, by_handle: bool, tool: str, arguments: dict[str, Any]
) -> None:
    client = two.there.modern() if by_handle else two.there.client()
    if by_handle:
        arguments = {"session": await client.handle()}
    else:
        await client.open()
    await client.tool(tool, arguments)
    steps: list[int] = []

    async def in_one_step(inbound: Inbound, leg: Leg | None) -> None:
        edge = two.there.runtime.edge
        assert edge is not None
        serving = edge.serve_inbound(replace(inbound, remote=leg is None))
        steps.append(len(steps))
        with pytest.raises(StopIteration):
            serving.send(None)

    monkeypatch.setattr(two.there, "run", in_one_step)
    at_the_other = two.here.modern() if by_handle else two.here.client()
    at_the_other.session, at_the_other.revision = client.session, client.revision
    await at_the_other.tool(tool, arguments)
    assert steps == [0]
    assert not two.here.attempts
