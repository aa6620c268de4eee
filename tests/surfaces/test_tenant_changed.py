"""`tenant_changed` at one node: what is forgotten, made anew and told."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import Any, cast

import pytest
from edge.client import Client, ModernClient, connected
from mcp.server.mcpserver import MCPServer
from session.servers import Log, server_called, until
from surfaces.shops import fastmcp, lowlevel, mcpserver, resolve
from understudy.actors.task_owner import TaskOwner
from understudy.runtime import (
    ApiKey,
    ApiKeys,
    ConfigurationError,
    NotStarted,
    ProtectedResource,
    Runtime,
    TenantContext,
    by_host,
    from_token_verifier,
    new_api_key,
)
from understudy.runtime.credentials.tenants import forget_tenant

LISTS = [f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")]


class Plans:
    """A resolver whose tenants may change their plan."""

    def __init__(self) -> None:
        self.plans: dict[str, str | None] = {}
        self.forgotten: list[str | None] = []

    def __call__(self, request: Any) -> TenantContext:
        context = resolve(request)
        return replace(context, plan=self.plans.get(context.tenant))

    def forget(self, tenant: str | None) -> None:
        self.forgotten.append(tenant)


def who(tenant: str = "acme", principal: str = "ada") -> dict[str, str]:
    return {"authorization": f"Bearer {tenant}/{principal}//billing"}


async def test_the_servers_of_a_tenants_sessions_are_made_anew_and_those_of_others_stay() -> None:
    log = Log()

    def factory(tenant: TenantContext) -> MCPServer:
        name = f"{tenant.tenant} {len(log.entered)}"
        return server_called(name, lifespan=log.lifespan(name))

    async with Runtime(factory, tenants=Plans()) as runtime, connected(runtime.app) as acme:
        globex = acme.twin()
        for client, tenant in ((acme, "acme"), (globex, "globex")):
            client.headers = who(tenant)
            await client.open()
            assert await client.tool("count") == 1
        stream = await acme.start("GET").started()
        other = await globex.start("GET").started()
        await runtime.tenant_changed("acme")
        assert log.left == []
        await until(lambda: len(stream.messages) == 3)
        assert [message["method"] for message in stream.messages] == LISTS
        assert await acme.tool("name_of_server") == "acme 2"
        assert await acme.tool("count") == 2
        await until(lambda: log.left == ["acme 0"])
        assert await globex.tool("name_of_server") == "globex 1"
        assert [message for message in other.messages if message["method"] in LISTS] == []


async def test_a_session_whose_server_is_being_made_gets_one_that_knows_of_the_change() -> None:
    making, gate, made = asyncio.Event(), asyncio.Event(), 0

    async def factory(tenant: TenantContext) -> MCPServer:
        nonlocal made
        made += 1
        name = f"server {made}"
        making.set()
        await gate.wait()
        return server_called(name)

    async with Runtime(factory, tenants=Plans()) as runtime, connected(runtime.app) as client:
        client.headers = who()
        async with TaskOwner() as tasks:
            tasks.spawn(client.open())
            await making.wait()
            await runtime.tenant_changed("acme")
            gate.set()
        assert await client.tool("name_of_server") == "server 2"


async def test_a_modern_surface_is_made_anew_too() -> None:
    log = Log()

    def factory(tenant: TenantContext) -> MCPServer:
        return server_called(f"{len(log.entered)}", lifespan=log.lifespan(f"{len(log.entered)}"))

    async with Runtime(factory, tenants=Plans()) as runtime, connected(runtime.app, ModernClient) as client:
        client.headers = who()
        for _ in range(2):
            await client.ask("tools/list")
        assert log.entered == ["0"]
        await runtime.tenant_changed("acme")
        for _ in range(2):
            await client.ask("tools/list")
        assert log.entered == ["0", "1"]
        gc.collect()
        await until(lambda: log.left == ["0"])


@pytest.mark.parametrize("make", [mcpserver, lowlevel, fastmcp])
async def test_clients_of_one_shared_server_are_told_if_they_are_the_tenants(make: Any) -> None:
    async with Runtime(make(), tenants=Plans()) as runtime, connected(runtime.app) as client:
        streams: dict[str, Any] = {}
        for tenant in ("acme", "globex"):
            one = client.twin()
            one.headers = who(tenant)
            await one.open()
            streams[tenant] = await one.start("GET").started()
        await runtime.tenant_changed("acme")
        wanted = LISTS[:1] if make is lowlevel else LISTS
        await until(lambda: len(streams["acme"].messages) == len(wanted))
        assert [message["method"] for message in streams["acme"].messages] == wanted
        assert streams["globex"].messages == []


async def test_who_listens_in_the_modern_era_is_told_what_he_asked_for() -> None:
    async with Runtime(mcpserver(), tenants=Plans()) as runtime, connected(runtime.app, ModernClient) as client:
        wanted = {"notifications": {"toolsListChanged": True}}
        acme, globex = (
            client.begin("subscriptions/listen", wanted, headers=who(tenant)) for tenant in ("acme", "globex")
        )
        for stream in (acme, globex):
            await stream.message("notifications/subscriptions/acknowledged")
        await runtime.tenant_changed("acme")
        await acme.message(LISTS[0])
        assert len(acme.messages) == 2
        assert len(globex.messages) == 1


async def test_streams_whose_credential_allows_other_things_end_and_those_of_others_go_on() -> None:
    plans = Plans()
    async with Runtime(mcpserver(), tenants=plans) as runtime, connected(runtime.app, ModernClient) as client:
        wanted = {"notifications": {"resourceSubscriptions": ["shop://ledger"], "toolsListChanged": True}}
        acme, globex = (
            client.begin("subscriptions/listen", wanted, headers=who(tenant)) for tenant in ("acme", "globex")
        )
        for stream in (acme, globex):
            await stream.message("notifications/subscriptions/acknowledged")
        plans.plans = {"acme": "free", "globex": None}
        await runtime.tenant_changed("acme")
        await runtime.tenant_changed("globex")
        await acme.done()
        await globex.message(LISTS[0])
        await asyncio.sleep(0)
        assert not globex.returned


async def test_tools_for_is_asked_again() -> None:
    names = {"search"}
    asked = 0

    def tools_for(tenant: TenantContext) -> set[str]:
        nonlocal asked
        asked += 1
        return set(names)

    async with (
        Runtime(mcpserver(), tenants=resolve, tools_for=tools_for) as runtime,
        connected(runtime.app, ModernClient) as client,
    ):
        client.headers = who()

        async def listed() -> list[str]:
            return [tool["name"] for tool in (await client.ask("tools/list")).result["tools"]]

        assert await listed() == ["search"]
        names.add("nested")
        assert await listed() == ["search"]
        await runtime.tenant_changed("globex")
        assert await listed() == ["search"]
        assert asked == 1
        await runtime.tenant_changed("acme")
        assert await listed() == ["search", "nested"]
        assert asked == 2


# Resolvers and hooks


async def test_resolvers_forget_through_those_that_are_around_them() -> None:
    plans = Plans()

    class Verifier:
        async def verify_token(self, token: str) -> None: ...

        def forget(self, tenant: str | None) -> None:
            plans.forgotten.append(tenant)

    around = ProtectedResource(
        by_host(plans, pattern="{tenant}.example.com"), url="https://a.b/mcp", authorization_servers=["https://c.d"]
    )
    forget_tenant(around, "acme")
    forget_tenant(from_token_verifier(cast("Any", Verifier())), None)
    assert plans.forgotten == ["acme", None]
    forget_tenant(resolve, "acme")
    forget_tenant(None, "acme")


async def test_a_key_file_is_looked_at_at_once(tmp_path: Any) -> None:
    key, other = new_api_key(), new_api_key()
    file = tmp_path / "keys.toml"

    def write(*keys: str) -> None:
        lines = [f'"sha256:{ApiKey.of(one, ADA).sha256}" = {{tenant = "acme", principal = "ada"}}' for one in keys]
        file.write_text("\n".join(lines) + "\n")

    write(key)
    async with (
        Runtime(mcpserver(), tenants=ApiKeys.from_file(file, check_every=3600.0)) as runtime,
        connected(runtime.app, ModernClient) as client,
    ):
        client.headers = {"authorization": f"Bearer {key}"}
        assert (await client.ask("tools/list")).status == 200
        write(other)
        assert (await client.ask("tools/list")).status == 200
        await runtime.tenant_changed("acme")
        assert (await client.ask("tools/list")).status == 401


ADA = TenantContext("acme", "ada")


async def test_hooks_are_told_and_one_that_fails_keeps_nobody_from_hearing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.runtime.edge.tenant_news.HOOK_TIMEOUT", 0.01)
    heard: list[Any] = []

    async def later(tenant: str | None) -> None:
        await asyncio.sleep(0)
        heard.append(("later", tenant))

    def broken(tenant: str | None) -> None:
        raise RuntimeError("on request")

    async def hanging(tenant: str | None) -> None:
        await asyncio.Event().wait()

    runtime = Runtime(mcpserver(), tenants=Plans())
    with pytest.raises(NotStarted):
        await runtime.tenant_changed("acme")
    for hook in (broken, hanging, later):
        runtime.on_tenant_changed(hook)
    remove = runtime.on_tenant_changed(lambda tenant: heard.append(tenant))
    async with runtime:
        await runtime.tenant_changed("acme")
        assert heard == [("later", "acme"), "acme"]
        remove()
        remove()
        await runtime.tenant_changed("globex")
        assert heard[2:] == [("later", "globex")]
        for wrong in ("", None, 5):
            with pytest.raises(ConfigurationError, match="name the tenant"):
                await runtime.tenant_changed(cast("Any", wrong))
        assert runtime.stats()["tenant_changes_total"] == 2
    assert "a hook of tenant changes failed" in caplog.text
    assert "took longer than 0.01 s" in caplog.text


async def test_news_beyond_what_may_wait_count_as_news_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.edge.tenant_news.MOST_WAITING", 2)
    heard: list[Any] = []
    async with Runtime(mcpserver(), tenants=Plans()) as runtime, connected(runtime.app, Client):
        runtime.on_tenant_changed(heard.append)
        news = cast("Any", runtime)._node.news
        for name in ("a", "b", "c", "d"):
            news.heard(name)
        await until(lambda: heard == [None])
        news.heard("a")
        news.heard("a")
        await until(lambda: heard == [None, "a"])
