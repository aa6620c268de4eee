"""A tool has its tenant's helpers wherever its code runs, and never another's, in both eras and at every node."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastmcp
import httpx
import pytest
from cluster.household import household
from edge.client import Client, ModernClient, hosting, hosting_modern
from edge.test_session_ids import by_bearer
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, ListToolsResult, NotificationParams, TextContent, Tool
from nats.aio.client import Client as NatsClient
from support.patience import PATIENCE
from understudy.runtime import (
    NoSession,
    Runtime,
    Session,
    TenantContext,
    WrongTenant,
    current_tenant,
)

ERAS = ["handshake", "modern"]


async def secrets_of(tenant: TenantContext) -> dict[str, str]:
    return {"TOKEN": f"token-of-{tenant.tenant}-{tenant.principal}"}


@asynccontextmanager
async def shop(era: str, server: object, folder: Path, **options: Any) -> AsyncGenerator[Callable[..., Awaitable[Any]]]:
    """Yields `(who, method or tool, arguments) -> value`, over sessions that are open."""
    async with (hosting if era == "handshake" else hosting_modern)(
        server, tenants=by_bearer, files=folder / "files", secrets=secrets_of, **options
    ) as client:
        clients: dict[str, Client | ModernClient] = {}

        async def call(who: str, tool: str, **arguments: Any) -> Any:
            if who not in clients:
                clients[who] = client.twin(authorization=f"Bearer {who}")
                if era == "handshake":
                    await clients[who].open()
            return await clients[who].tool(tool, arguments)

        call.clients = clients  # type: ignore[attr-defined]
        yield call


async def touch() -> str:
    """Uses every helper; what it finds is the caller's and what it leaves is for him."""
    tenant = current_tenant()
    found = str(tenant.cache.get("mark")), await tenant.secrets.reveal("TOKEN")
    mine = f"{tenant.tenant}"
    tenant.cache.set("mark", mine)
    if await tenant.files.exists("mark"):
        assert await tenant.files.read_text("mark") == mine
    await tenant.files.write("mark", mine)
    assert found[0] in ("None", mine)
    return f"{found[0]} {found[1]}"


def everywhere() -> MCPServer:
    server = MCPServer("everywhere", log_level="CRITICAL")
    kept: dict[str, Any] = {}

    @server.tool()
    async def plain() -> str:
        return await touch()

    @server.tool()
    async def in_task() -> str:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(touch())
        return task.result()

    @server.tool()
    def in_thread() -> str:
        assert threading.current_thread() is not threading.main_thread()
        tenant = current_tenant()
        tenant.files.blocking.write("mark", tenant.tenant)
        tenant.cache.set("mark", tenant.tenant)
        return tenant.files.blocking.read_text("mark")

    @server.tool()
    async def in_session(session: Session) -> str:
        assert session.tenant is current_tenant()
        return await touch()

    @server.tool()
    async def keep() -> str:
        tenant = current_tenant()
        await tenant.files.write("kept", f"of {tenant.tenant}")
        kept.update(context=tenant, cache=tenant.cache, files=tenant.files, secrets=tenant.secrets)
        return "kept"

    @server.tool()
    async def steal() -> int:
        """Tries whatever an earlier call of another party has left lying about."""
        refused = 0
        attempts: list[Callable[[], Any]] = [
            lambda: kept["context"].cache,
            lambda: kept["context"].files,
            lambda: kept["context"].secrets,
            lambda: kept["context"].connection(),
            lambda: kept["cache"].get("mark"),
            lambda: kept["cache"].set("mark", "poison"),
            lambda: kept["files"].read("kept"),
            lambda: kept["files"].blocking.read("kept"),
            lambda: kept["files"].write("kept", "poison"),
            lambda: kept["secrets"].get("TOKEN"),
            lambda: kept["secrets"].reveal_all(),
            lambda: TenantContext("acme", "ann").secrets,
        ]
        for attempt in attempts:
            try:
                got = attempt()
                await got
            except WrongTenant:
                refused += 1
        return refused

    @server.tool()
    async def leave_task() -> str:
        """A task that outlives its call goes on as its own tenant."""
        go_on = asyncio.Event()

        async def later() -> None:
            await go_on.wait()
            kept["later"] = await touch()

        kept["task"] = asyncio.get_running_loop().create_task(later())
        kept["go_on"] = go_on
        return "left"

    @server.tool()
    async def hear_of_it() -> str:
        kept["go_on"].set()
        await kept["task"]
        return kept["later"]

    @server.prompt()
    async def ask() -> str:
        return await touch()

    @server.resource("it://all")
    async def it() -> str:
        return await touch()

    @server.resource("it://{name}")
    async def one(name: str) -> str:
        return await touch()

    return server


@pytest.mark.parametrize("era", ERAS)
async def test_tools_tasks_threads_prompts_and_resources_have_their_own(era: str, tmp_path: Path) -> None:
    async with shop(era, everywhere(), tmp_path) as call:
        for tool in ("plain", "in_task", "in_thread"):
            for who in ("acme/ann", "evil/eve", "acme/bob"):
                tenant, principal = who.split("/")
                said = await call(who, tool)
                assert said == tenant or said.endswith(f" token-of-{tenant}-{principal}")
        for who, client in call.clients.items():  # type: ignore[attr-defined]
            tenant, principal = who.split("/")
            arguments = {"session": await client.handle()} if isinstance(client, ModernClient) else {}
            mine = f"{tenant} token-of-{tenant}-{principal}"
            assert await client.tool("in_session", arguments) == mine
            prompt = (await client.ask("prompts/get", {"name": "ask"})).result
            assert prompt["messages"][0]["content"]["text"] == mine
            for uri in ("it://all", "it://one"):
                assert (await client.ask("resources/read", {"uri": uri})).result["contents"][0]["text"] == mine


@pytest.mark.parametrize("era", ERAS)
async def test_what_a_call_leaves_lying_about_is_worth_nothing_to_another(era: str, tmp_path: Path) -> None:
    async with shop(era, everywhere(), tmp_path) as call:
        await call("acme/ann", "keep")
        for thief in ("evil/eve", "evil/ann", "acme/bob", "ACME/ann"):
            assert await call(thief, "steal") == 12
        await call("acme/ann", "leave_task")
        assert await call("evil/eve", "hear_of_it") == "None token-of-acme-ann"


@pytest.mark.parametrize("era", ERAS)
async def test_a_factory_and_its_tools_have_their_tenants(era: str, tmp_path: Path) -> None:
    async def factory(tenant: TenantContext) -> MCPServer:
        token = await tenant.secrets.reveal("TOKEN")
        server = MCPServer("made", log_level="CRITICAL")

        @server.tool()
        async def made_with() -> str:
            # The context that the factory was given is the same party's.
            tenant.cache.set("mark", "x")
            return f"{token} {await tenant.secrets.reveal('TOKEN')}"

        return server

    async with shop(era, factory, tmp_path) as call:
        for who in ("acme/ann", "evil/eve"):
            token = f"token-of-{who.replace('/', '-')}"
            assert await call(who, "made_with") == f"{token} {token}"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("kind", ["lowlevel", "fastmcp"])
async def test_other_servers_have_them_too(era: str, kind: str, tmp_path: Path) -> None:
    async def list_tools(*_: Any) -> ListToolsResult:
        current_tenant().cache.set("listed", 1)
        return ListToolsResult(tools=[Tool(name="plain", input_schema={"type": "object"})])

    async def call_tool(*_: Any) -> CallToolResult:
        said = await touch()
        return CallToolResult(content=[TextContent(type="text", text=said)], structured_content={"result": said})

    server: Any = Server("low", on_list_tools=list_tools, on_call_tool=call_tool)
    if kind == "fastmcp":
        server = fastmcp.FastMCP("fast")
        server.tool(touch, name="plain")
    async with shop(era, server, tmp_path) as call:
        for who in ("acme/ann", "evil/eve"):
            assert await call(who, "plain") == f"None token-of-{who.replace('/', '-')}"


async def test_a_program_that_calls_itself_does_not_mix_up_who_asks(tmp_path: Path) -> None:
    """A tool of one tenant's posts to the same app as another: in one process, with one set of context variables."""
    server = MCPServer("self", log_level="CRITICAL")
    heard: list[str] = []

    @server.tool()
    async def visit(who: str) -> str:
        transport = httpx.ASGITransport(runtime.app)
        headers = {"authorization": f"Bearer {who}", "accept": "application/json, text/event-stream"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as http:
            opened = await http.post("/mcp", json=INITIALIZE)
            session = {"mcp-session-id": opened.headers["mcp-session-id"]}
            note = {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}
            await http.post("/mcp", json=note, headers=session)
            name = {"name": "plain", "arguments": {}}
            request = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": name}
            answered = (await http.post("/mcp", json=request, headers=session)).text
        # A plain body, or an event if it took long.
        inner = json.loads(answered[answered.index("{") :].split("\n", 1)[0])
        return f"{inner['result']['structuredContent']['result']} / {await touch()}"

    @server.tool()
    async def plain() -> str:
        return await touch()

    async def on_roots(*_: Any) -> None:
        heard.append(await current_tenant().secrets.reveal("TOKEN"))

    lowlevel: Any = server._lowlevel_server
    lowlevel.add_notification_handler("notifications/roots/list_changed", NotificationParams, on_roots)
    async with hosting(server, tenants=by_bearer, files=tmp_path / "files", secrets=secrets_of) as client:
        runtime = client.runtime
        client.headers["authorization"] = "Bearer acme/ann"
        await client.open()
        said = await client.tool("visit", {"who": "evil/eve"})
        assert said == "None token-of-evil-eve / None token-of-acme-ann"
        assert heard == ["token-of-evil-eve"]


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


async def test_outside_of_calls_there_is_nobody() -> None:
    with pytest.raises(NoSession):
        current_tenant()


@pytest.mark.parametrize("era", ERAS)
async def test_when_a_tenant_changes_its_cache_and_its_secrets_are_read_anew(era: str, tmp_path: Path) -> None:
    asked: list[str] = []

    def source(tenant: TenantContext) -> dict[str, str]:
        asked.append(tenant.tenant)
        return {"TOKEN": f"token-{len(asked)}"}

    server = MCPServer("s", log_level="CRITICAL")

    @server.tool()
    async def look() -> str:
        tenant = current_tenant()
        made = await tenant.cache.get_or_make("made", lambda: len(asked))
        return f"{made} {await tenant.secrets.reveal('TOKEN')}"

    async with (hosting if era == "handshake" else hosting_modern)(server, tenants=by_bearer, secrets=source) as client:
        client.headers["authorization"] = "Bearer acme/ann"
        if era == "handshake":
            await client.open()
        assert [await client.tool("look"), await client.tool("look")] == ["0 token-1", "0 token-1"]
        await client.runtime.tenant_changed("other")
        assert await client.tool("look") == "0 token-1"
        await client.runtime.tenant_changed("acme")
        assert await client.tool("look") == "1 token-2"


async def test_the_node_that_runs_a_call_asks_for_the_secret_itself_and_none_crosses(nats_url: str) -> None:
    asked: list[str] = []

    def make(_: Any) -> MCPServer:
        server = MCPServer("s", log_level="CRITICAL")

        @server.tool()
        async def use(session: Session) -> int:
            session.state["uses"] = session.state.get("uses", 0) + 1
            return len(await session.tenant.secrets.reveal("TOKEN"))

        return server

    def source(tenant: TenantContext) -> dict[str, str]:
        asked.append(tenant.tenant)
        return {"TOKEN": "token-that-stays"}

    carried: list[bytes] = []
    spy = NatsClient()
    await spy.connect(nats_url)

    async def hear(message: Any) -> None:
        carried.append(message.data)

    await spy.subscribe(">", cb=hear)
    try:
        async with household(nats_url, server=make, secrets=source, tenants=lambda _: by_bearer) as (owner, other):
            client = owner.client()
            client.headers["authorization"] = "Bearer acme/ann"
            await client.open()
            assert (
                await owner.same(client).tool("use") == await other.same(client).tool("use") == len("token-that-stays")
            )
            assert asked == ["acme"]
            assert other.runtime.stats()["tenant_secrets_loads_total"] == 0
            assert owner.runtime.stats()["tenant_secrets_loads_total"] == 1
            async with asyncio.timeout(PATIENCE):
                while not any(b"initialize" in data or len(data) > 200 for data in carried):
                    await asyncio.sleep(0.01)
        assert not any(b"token-that-stays" in data for data in carried)
    finally:
        await spy.close()


async def test_the_runtime_can_be_started_again(tmp_path: Path) -> None:
    runtime = Runtime(everywhere(), files=tmp_path / "files", secrets=secrets_of)
    for _ in range(2):
        async with runtime:
            assert runtime.stats()["tenant_cache_entries"] == 0
