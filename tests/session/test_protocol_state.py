"""What the protocol keeps for a session, through its sleep and through another life of the process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mcp.server.lowlevel import Server
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ClientCapabilities,
    EmptyResult,
    ListToolsResult,
    PaginatedRequestParams,
    RootsCapability,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    Tool,
    UnsubscribeRequestParams,
)
from session.visitor import Host, RPCError, Visitor, hosted
from understudy.actors.session import SESSION, SessionSnapshot
from understudy.runtime import Runtime

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated as of 2026-07-28")

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


class Refusing(Exception):
    pass


def lowlevel() -> Server[Any]:
    async def list_tools(ctx: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        names = ("client", "log_here", "log_aside", "changed")
        return ListToolsResult(tools=[Tool(name=name, input_schema={"type": "object"}) for name in names])

    async def call_tool(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
        session = ctx.session
        text = "done"
        if params.name == "client":
            roots = session.check_client_capability(ClientCapabilities(roots=RootsCapability(list_changed=True)))
            info = session.client_params.client_info
            text = json.dumps([info.name, info.version, session.protocol_version, roots])
        elif params.name == "changed":
            await session.send_tool_list_changed()
            await session.send_resource_updated("demo://a")
        else:
            related = ctx.request_id if params.name == "log_here" else None
            for level in LEVELS:
                await session.send_log_message(level, f"at {level}", related_request_id=related)
        return CallToolResult(content=[TextContent(type="text", text=text)])

    async def set_level(ctx: Any, params: SetLevelRequestParams) -> EmptyResult:
        return EmptyResult()

    async def subscribe(ctx: Any, params: SubscribeRequestParams) -> EmptyResult:
        if params.uri == "demo://refused":
            raise Refusing("no such resource")
        return EmptyResult()

    async def unsubscribe(ctx: Any, params: UnsubscribeRequestParams) -> EmptyResult:
        return EmptyResult()

    return Server(
        "protocol",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_set_logging_level=set_level,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=unsubscribe,
    )


async def snapshot(host: Any, visitor: Visitor) -> SessionSnapshot:
    record = await host.runtime._node.store.load(visitor.address)
    assert record is not None
    return SessionSnapshot.unpack(record.snapshot)


async def levels_of(visitor: Visitor, tool: str = "log_here") -> list[str]:
    call = visitor.call(tool)
    levels = []
    while "method" in (message := await call.message()):
        levels.append(message["params"]["level"])
    return levels


@pytest.fixture(params=["asleep", "another process"])
def gap(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Goes on with a session after a gap: its sleep, or another runtime on the same file."""
    store = f"sqlite:///{tmp_path}/sessions.db"

    async def run(before: Any, after: Any) -> None:
        async with hosted(lowlevel(), store=store) as host:
            visitor = await host.visit()
            await before(host, visitor)
            if request.param == "asleep":
                await host.sleep(visitor)
                await after(host, visitor)
        if request.param == "another process":
            async with hosted(lowlevel(), store=store) as host:
                await after(host, Visitor(host, session=visitor.session))

    return run


async def _nothing(host: Any, visitor: Visitor) -> None:
    pass


async def test_who_the_client_is_and_what_it_can_do_is_kept(gap):
    async def after(host: Any, visitor: Visitor) -> None:
        assert json.loads(await visitor.ask("client")) == ["visitor", "1", "2025-11-25", True]

    await gap(_nothing, after)


async def test_an_older_revision_is_kept(tmp_path):
    async with hosted(lowlevel()) as host:
        visitor = Visitor(host)
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "old", "version": "0"}}
        stream = visitor.begin("initialize", params)
        assert (await stream.result())["protocolVersion"] == "2025-06-18"
        visitor.session = stream.headers["mcp-session-id"]
        await host.sleep(visitor)
        assert json.loads(await visitor.ask("client")) == ["old", "0", "2025-06-18", False]


async def test_the_log_level_is_kept(gap):
    async def before(host: Any, visitor: Visitor) -> None:
        await visitor.request("logging/setLevel", {"level": "error"})

    async def after(host: Any, visitor: Visitor) -> None:
        assert (await snapshot(host, visitor)).log_level == "error"
        assert await levels_of(visitor) == ["error", "critical", "alert", "emergency"]

    await gap(before, after)


async def test_subscriptions_are_kept(gap):
    async def before(host: Any, visitor: Visitor) -> None:
        for uri in ("demo://a", "demo://b", "demo://a", "demo://c"):
            await visitor.request("resources/subscribe", {"uri": uri})
        await visitor.request("resources/unsubscribe", {"uri": "demo://b"})
        await visitor.request("resources/unsubscribe", {"uri": "demo://never"})

    async def after(host: Any, visitor: Visitor) -> None:
        assert (await snapshot(host, visitor)).subscriptions == ("demo://a", "demo://c")
        await visitor.request("resources/subscribe", {"uri": "demo://d"})
        assert (await snapshot(host, visitor)).subscriptions == ("demo://a", "demo://c", "demo://d")

    await gap(before, after)


async def test_what_the_server_refuses_is_not_kept():
    async with hosted(lowlevel()) as host:
        visitor = await host.visit()
        with pytest.raises(RPCError):
            await visitor.request("resources/subscribe", {"uri": "demo://refused"})
        with pytest.raises(RPCError):
            await visitor.request("logging/setLevel", {"level": "loud"})
        kept = await snapshot(host, visitor)
        assert (kept.subscriptions, kept.log_level) == ((), None)


async def test_interleaved_sessions_keep_it_too():
    async with hosted(lowlevel(), turns="interleaved") as host:
        visitor = await host.visit()
        uris = [f"demo://{number}" for number in range(20)]
        await asyncio.gather(*(visitor.request("resources/subscribe", {"uri": uri}) for uri in uris))
        await visitor.request("logging/setLevel", {"level": "info"})
        kept = await snapshot(host, visitor)
        assert (set(kept.subscriptions), kept.log_level) == (set(uris), "info")


async def test_there_is_a_limit_to_subscriptions():
    runtime = Runtime(lowlevel())
    async with runtime, Host(runtime) as host:
        runtime._node.registry._kinds[SESSION].max_subscriptions = 2
        visitor = await host.visit()
        for uri in ("demo://a", "demo://b", "demo://a"):
            await visitor.request("resources/subscribe", {"uri": uri})
        with pytest.raises(RPCError, match="this session has 2 subscriptions, its limit"):
            await visitor.request("resources/subscribe", {"uri": "demo://c"})
        await visitor.request("resources/unsubscribe", {"uri": "demo://a"})
        await visitor.request("resources/subscribe", {"uri": "demo://c"})


# Log messages below the level


async def test_until_a_level_is_set_every_log_message_is_sent():
    async with hosted(lowlevel()) as host:
        visitor = await host.visit()
        assert await levels_of(visitor) == list(LEVELS)


@pytest.mark.parametrize("number", range(len(LEVELS)))
async def test_on_the_stream_of_a_call_only_what_the_level_allows_is_sent(number):
    async with hosted(lowlevel()) as host:
        visitor = await host.visit()
        await visitor.request("logging/setLevel", {"level": LEVELS[number]})
        assert await levels_of(visitor) == list(LEVELS[number:])


async def test_on_the_standalone_stream_only_what_the_level_allows_is_sent():
    async with hosted(lowlevel()) as host:
        visitor = await host.visit()
        stream = await visitor.listen()
        await visitor.request("logging/setLevel", {"level": "alert"})
        assert await levels_of(visitor, "log_aside") == []
        assert [(await stream.message())["params"]["level"] for _ in range(2)] == ["alert", "emergency"]


async def test_the_level_is_each_sessions_own():
    async with hosted(lowlevel()) as host:
        one, other = await host.visit(), await host.visit()
        await one.request("logging/setLevel", {"level": "emergency"})
        assert await levels_of(one) == ["emergency"]
        assert await levels_of(other) == list(LEVELS)


# The standalone stream


async def test_the_standalone_stream_outlives_the_sleep_of_its_session():
    async with hosted(lowlevel()) as host:
        visitor = await host.visit()
        stream = await visitor.listen()
        await visitor.ask("changed")
        assert (await stream.message())["method"] == "notifications/tools/list_changed"
        assert (await stream.message())["method"] == "notifications/resources/updated"
        await host.sleep(visitor)
        assert not stream.ended.is_set()
        await visitor.ask("changed")
        assert (await stream.message())["method"] == "notifications/tools/list_changed"


async def test_without_a_standalone_stream_its_messages_are_dropped():
    async with hosted(lowlevel()) as host:
        visitor = await host.visit()
        assert await visitor.ask("changed") == "done"


# A snapshot that cannot be read


async def test_client_parameters_that_are_damaged_are_an_error_and_the_record_stays():
    async with hosted(lowlevel()) as host:
        visitor = await host.visit()
        await host.sleep(visitor)
        store = host.runtime._node.store
        good = (await store.load(visitor.address)).snapshot
        bad = SessionSnapshot.unpack(good)
        bad.client = b'{"clientInfo": 7}'
        record = await store.claim(visitor.address, owner="test")
        await store.save(visitor.address, epoch=record.epoch, version=record.version + 1, snapshot=bad.pack(), ttl=3600)
        call = visitor.call("client")
        with pytest.raises(RPCError, match="-32603: The session's stored state cannot be read"):
            await call.value()
        assert (await store.load(visitor.address)).snapshot == bad.pack()


@pytest.mark.parametrize(
    ("damage", "status", "message"),
    [
        (lambda packed: packed[:-3], 500, "The session's stored state cannot be read"),
        (lambda packed: b"not msgpack at all", 500, "The session's stored state cannot be read"),
        (lambda packed: b"\x81\xa1v\x63", 503, "The session cannot be served by this version"),
    ],
    ids=["truncated", "garbage", "newer"],
)
async def test_a_snapshot_that_cannot_be_read_is_a_clear_error_and_kills_nothing(damage, status, message):
    async with hosted(lowlevel()) as host:
        visitor, other = await host.visit(), await host.visit()
        await host.sleep(visitor)
        store = host.runtime._node.store
        record = await store.claim(visitor.address, owner="test")
        bad = damage(record.snapshot)
        await store.save(visitor.address, epoch=record.epoch, version=record.version + 1, snapshot=bad, ttl=3600)
        call = visitor.call("client")
        with pytest.raises(RPCError, match=message):
            await call.value()
        assert call.status == status
        assert (await store.load(visitor.address)).snapshot == bad
        assert await other.ask("changed") == "done"
