"""What the servers of many sessions share: the parsed parts of their tools, and nothing of what the tools do."""

from __future__ import annotations

import functools
import gc
import weakref
from typing import Annotated, Any

import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.tools import Tool
from pydantic import AfterValidator, BaseModel
from session.visitor import hosted
from understudy.actors.session.servers import Servers
from understudy.actors.session.sharing import _metadata, _settings
from understudy.runtime import Session, TenantContext

pytestmark = pytest.mark.usefixtures("tools_parsed_anew")

ACME = TenantContext(tenant="acme", principal="ada")
GLOBEX = TenantContext(tenant="globex", principal="bob")


class Order(BaseModel):
    item: str
    amount: int = 1


def shop(owner: str, limit: int = 10) -> MCPServer:
    server = MCPServer("shop")

    @server.tool()
    async def order(order: Order, session: Session) -> str:
        """Order something."""
        return f"{owner} sells {order.amount} {order.item}"

    @server.tool()
    async def most(count: int = limit) -> int:
        return count

    @server.tool()
    async def most_by_name(*, count: int = limit) -> int:
        return count

    return server


def tools(server: MCPServer) -> dict[str, Tool]:
    return server._tool_manager._tools


async def both(factory: Any, one: TenantContext = ACME, other: TenantContext = ACME) -> list[dict[str, Tool]]:
    """The tools of two sessions' servers, kept alive."""
    made: list[MCPServer] = []

    def keep(tenant: TenantContext) -> MCPServer:
        made.append(factory(tenant))
        return made[-1]

    async with Servers(keep) as servers:
        await servers.for_session(one)
        await servers.for_session(other)
    return [tools(server) for server in made]


async def test_equal_tools_share_what_was_parsed_of_them():
    one, other = await both(lambda tenant: shop("Ada"))
    for name in ("order", "most", "most_by_name"):
        assert other[name] is not one[name]
        assert other[name].fn is not one[name].fn
        assert other[name].fn_metadata is one[name].fn_metadata
        assert other[name].parameters is one[name].parameters


async def test_what_they_close_over_is_each_ones_own(era):
    names = iter(["Ada", "Bob", "Eve", "Kim"])
    async with hosted(lambda tenant: shop(next(names))) as host:
        visitors = [await host.visit(era) for _ in range(2)]
        said = {await visitor.ask("order", order={"item": "tea", "amount": 2}) for visitor in visitors}
        assert len(said) == 2
        assert all(text.endswith(" sells 2 tea") for text in said)
        assert len({text.split()[0] for text in said}) == 2


async def test_tools_with_other_defaults_are_not_shared():
    limits = iter([10, 20])
    one, other = await both(lambda tenant: shop("Ada", next(limits)))
    for name in ("most", "most_by_name"):
        assert other[name].fn_metadata is not one[name].fn_metadata
        assert other[name].parameters["properties"]["count"]["default"] == 20
    assert other["order"].fn_metadata is one["order"].fn_metadata


@pytest.mark.filterwarnings("ignore:Default value")
@pytest.mark.parametrize("kind", ["positional", "keyword only", "behind a decorator"])
async def test_a_default_that_the_schema_does_not_show_stays_each_tenants_own(kind):
    def make(tenant: TenantContext) -> MCPServer:
        server = MCPServer("shop")
        hidden: Any = _Hidden(tenant.tenant)

        async def positional(of: Any = hidden) -> str:
            return str(of)

        async def keyword_only(*, of: Any = hidden) -> str:
            return str(of)

        @functools.wraps(keyword_only)
        async def decorated(*args: Any, **options: Any) -> str:
            return await keyword_only(*args, **options)

        fn = {"positional": positional, "keyword only": keyword_only, "behind a decorator": decorated}[kind]
        server.add_tool(fn, name="owner")
        return server

    one, other = await both(make, ACME, GLOBEX)
    assert await _call(one["owner"]) == "acme"
    assert await _call(other["owner"]) == "globex"


class _Hidden:
    def __init__(self, owner: str) -> None:
        self.owner = owner

    def __str__(self) -> str:
        return self.owner


async def _call(tool: Tool) -> str:
    return await tool.run({}, Context())


async def test_a_validator_that_closes_over_something_stays_each_ones_own():
    def make(tenant: TenantContext) -> MCPServer:
        server = MCPServer("shop")

        def stamp(value: str) -> str:
            return f"{value} of {tenant.tenant}"

        async def item(name: Any) -> str:
            return name

        item.__annotations__["name"] = Annotated[str, AfterValidator(stamp)]
        server.add_tool(item, name="item")
        return server

    one, other = await both(make, ACME, GLOBEX)
    assert await one["item"].run({"name": "tea"}, Context()) == "tea of acme"
    assert await other["item"].run({"name": "tea"}, Context()) == "tea of globex"


async def test_nothing_of_a_session_stays_when_it_is_gone():
    gc.collect()
    before = len(_metadata), len(_settings)
    kept: list[Any] = []

    def make(tenant: TenantContext) -> MCPServer:
        class Local(BaseModel):
            item: str

        server = shop("Ada")

        async def local(order: Any) -> str:
            return "ordered"

        local.__annotations__["order"] = Local
        server.add_tool(local, name="local")
        kept.append(weakref.ref(local))
        return server

    async with hosted(make) as host:
        visitors = [await host.visit() for _ in range(3)]
        for visitor in visitors:
            assert "local" in await visitor.tools()
            await host.sleep(visitor)
        del visitor, visitors
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3
    assert (len(_metadata), len(_settings)) == before


async def test_the_one_server_of_everybody_is_left_as_it_is():
    server = shop("Ada")
    before = {name: (tool.fn_metadata, tool.parameters) for name, tool in tools(server).items()}
    settings = server.settings
    async with hosted(server):
        pass
    assert {name: (tool.fn_metadata, tool.parameters) for name, tool in tools(server).items()} == before
    assert server.settings is settings
