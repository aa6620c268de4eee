"""Surfaces and their changes in a cluster: at the owner, at another node, at one that was cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
from chaos.proxy import Proxy
from cluster.household import Member, household
from cluster.test_bus import until
from mcp.server.mcpserver import Context, MCPServer
from nats.errors import ConnectionClosedError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from surfaces.shops import RICH, bearer, mcpserver, resolve
from surfaces.test_hidden_is_unknown import OPENED, asked
from understudy.actors.packing import pack
from understudy.runtime import Session, TenantContext
from understudy.runtime.cluster.errors import ClusterError
from understudy.runtime.cluster.tenant_journal import KEPT, TENANTS, TenantJournal

LISTS = [f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")]


class Plans:
    """What a node's resolver believes, which is what was true when it last forgot."""

    truth: dict[str, str]

    def __init__(self, truth: dict[str, str]) -> None:
        self.truth = truth
        self.believed: dict[str, str] = {}
        self.forgotten: list[str | None] = []

    def __call__(self, request: Any) -> TenantContext:
        context = resolve(request)
        plan = self.believed.setdefault(context.tenant, self.truth.get(context.tenant, "free"))
        return replace(context, plan=plan)

    def forget(self, tenant: str | None) -> None:
        self.forgotten.append(tenant)
        if tenant is None:
            self.believed.clear()
        else:
            self.believed.pop(tenant, None)


class Town:
    """Nodes that host a factory, and what they believe."""

    def __init__(self) -> None:
        self.truth: dict[str, str] = {}
        self.plans: dict[int, Plans] = {}
        self.made = 0

    def resolver(self, number: int) -> Plans:
        return self.plans.setdefault(number, Plans(self.truth))

    def factory(self, tenant: TenantContext) -> MCPServer:
        self.made += 1
        name = f"{self.made} for {tenant.plan}"
        server = MCPServer("town", log_level="CRITICAL")

        @server.tool()
        async def made_for(session: Session, ctx: Context) -> str:
            session.state["calls"] = session.state.get("calls", 0) + 1
            return f"{name}: {session.tenant.plan}, call {session.state['calls']}"

        return server

    @asynccontextmanager
    async def nodes(self, nats_url: str, count: int = 3, **options: Any) -> AsyncIterator[list[Member]]:
        options = {"tenants": self.resolver, "server": lambda stage: self.factory, **options}
        async with household(nats_url, count, **options) as members:
            for plans in self.plans.values():
                plans.forgotten.clear()
            yield members


def headers(tenant: str) -> dict[str, str]:
    return bearer(tenant)


async def test_what_is_hidden_is_as_unknown_at_every_node_as_at_the_owner(nats_url: str) -> None:
    def server(_: Any) -> MCPServer:
        return mcpserver()

    async with household(nats_url, 2, server=server, tenants=lambda number: resolve) as (one, other):
        client = one.client()
        client.headers = dict(RICH)
        await client.open()
        assert await client.tool("refund", {"order": 1}) == "refunded 1"
        answers: list[list[Any]] = []
        for node in (one, other):
            same = node.same(client)
            same.headers = bearer()
            told: list[Any] = []
            for number, (method, params, more) in list(enumerate(asked(), 100))[::3]:
                if params.get("name") == "add":
                    # It changes something, and would find it changed the second time.
                    continue
                call = await same.ask(method, params, id=number, headers=more)
                told.append((method, params, call.status, OPENED.sub(b"", call.messages[-1].__repr__().encode())))
            answers.append(told)
        assert answers[0] == answers[1]
        assert one.owns(client.session)
        rich = other.same(client)
        assert await rich.tool("refund", {"order": 2}) == "refunded 2"


async def test_all_nodes_resolve_a_tenant_anew_whichever_was_told(nats_url: str) -> None:
    town = Town()
    async with town.nodes(nats_url) as nodes:
        heard: dict[str, list[str | None]] = {node.name: [] for node in nodes}
        for node in nodes:
            node.runtime.on_tenant_changed(heard[node.name].append)
        clients: dict[str, Any] = {}
        streams: dict[str, Any] = {}
        for node, tenant in zip(nodes, ("acme", "acme", "globex"), strict=True):
            client = clients[node.name] = node.client()
            client.headers = headers(tenant)
            await client.open()
            # By way of another node, whose resolver is the one that is asked.
            streams[node.name] = await nodes[0].same(client).start("GET").started()
            assert (await client.tool("made_for")).endswith(": free, call 1")
        listening = (
            nodes[1]
            .modern()
            .begin("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, headers=headers("acme"))
        )
        await listening.message("notifications/subscriptions/acknowledged")
        town.truth["acme"] = town.truth["globex"] = "pro"
        made = town.made
        await nodes[2].runtime.tenant_changed("acme")
        await until(lambda: all("acme" in told for told in heard.values()))
        assert all(plans.forgotten == ["acme"] for plans in town.plans.values())
        assert town.made == made
        for number in (0, 1):
            for node in nodes:
                told = await node.same(clients[nodes[number].name]).tool("made_for")
                assert "for pro: pro, call" in told
            assert LISTS[-1] in [message.get("method") for message in streams[nodes[number].name].messages]
        assert town.made == made + 2
        assert (await clients["node-3"].tool("made_for")).endswith("for free: free, call 2")
        assert [m for m in streams["node-3"].messages if m.get("method") in LISTS] == []
        await until(lambda: listening.returned or LISTS[0] in [m.get("method") for m in listening.messages])


async def test_a_node_that_was_cut_off_hears_of_it_when_it_is_back(nats_url: str) -> None:
    town = Town()
    proxy = Proxy(int(nats_url.rpartition(":")[2])).start()
    try:
        away = {"nats": f"nats://127.0.0.1:{proxy.port}", "lease": 1.0}
        settings = lambda number: away if number == 2 else {"lease": 1.0}  # noqa: E731
        async with town.nodes(nats_url, 2, settings=settings) as (one, two):
            for tenant, node in (("acme", one), ("globex", two)):
                client = node.client()
                client.headers = headers(tenant)
                await client.open()
                assert (await node.same(client).tool("made_for")).endswith(": free, call 1")
            await two.modern().ask("tools/list", headers=headers("acme"))
            await asyncio.to_thread(proxy.cut)
            assert two.runtime.cluster is not None
            await until(lambda: not cast("Any", two.runtime.cluster).connected)
            town.truth["acme"] = "pro"
            with pytest.raises(ClusterError, match="Say it again when NATS answers"):
                await two.runtime.tenant_changed("globex")
            await one.runtime.tenant_changed("acme")
            town.plans[2].forgotten.clear()
            assert town.plans[1].forgotten == ["acme"]
            await asyncio.to_thread(proxy.restore)
            await until(lambda: town.plans[2].forgotten == ["acme"])
            assert town.plans[2].believed.get("acme") is None
    finally:
        proxy.stop()


# The journal


class Bucket:
    """As much of a key-value bucket as a journal needs; what is written at the same moment is refused."""

    def __init__(self) -> None:
        self.value: bytes | None = None
        self.revision = 0
        self.failing = False
        self.reads = 0

    async def get(self, name: str, *, validate_keys: bool) -> Any:
        assert name == TENANTS
        self.reads += 1
        if self.failing:
            raise ConnectionClosedError
        if self.value is None:
            raise KeyNotFoundError
        entry = cast("Any", type("Entry", (), {})())
        entry.value, entry.revision = self.value, self.revision
        await asyncio.sleep(0)
        return entry

    async def create(self, name: str, value: bytes, *, validate_keys: bool) -> None:
        await self.update(name, value, last=0, validate_keys=False)

    async def update(self, name: str, value: bytes, *, last: int, validate_keys: bool) -> None:
        if last != self.revision:
            raise KeyWrongLastSequenceError
        self.value, self.revision = value, self.revision + 1


async def journals(bucket: Any, count: int) -> list[tuple[TenantJournal, list[str | None]]]:
    made: list[tuple[TenantJournal, list[str | None]]] = []
    for _ in range(count):
        journal, heard = TenantJournal(), cast("list[str | None]", [])
        journal.changed = heard.append
        await journal.learn(bucket)
        assert heard == [None]
        heard.clear()
        made.append((journal, heard))
    return made


async def test_each_node_reads_what_the_others_have_written_and_not_its_own() -> None:
    bucket: Any = Bucket()
    (one, heard_by_one), (two, heard_by_two) = await journals(bucket, 2)
    await one.record(bucket, "acme")
    await one.record(bucket, "globex")
    await one.record(bucket, "acme")
    assert not await one.look(bucket)
    assert await two.look(bucket)
    assert not await two.look(bucket)
    assert (heard_by_one, heard_by_two) == ([], ["acme", "globex"])


async def test_of_many_who_write_at_once_each_is_heard() -> None:
    bucket: Any = Bucket()
    nodes = await journals(bucket, 4)
    async with asyncio.TaskGroup() as tasks:
        for number, (journal, _) in enumerate(nodes):
            tasks.create_task(journal.record(bucket, f"tenant {number}"))
    for number, (journal, heard) in enumerate(nodes):
        await journal.look(bucket)
        assert {f"tenant {other}" for other in range(4)} - {f"tenant {number}"} <= set(heard)


async def test_a_node_that_has_missed_more_than_is_kept_takes_all_to_have_changed() -> None:
    bucket: Any = Bucket()
    (one, _), (two, heard) = await journals(bucket, 2)
    for number in range(KEPT + 1):
        await one.record(bucket, f"{number}")
    await two.look(bucket)
    assert heard == [None]
    for number in range(KEPT):
        await one.record(bucket, f"{number}")
    await two.look(bucket)
    assert heard[1:] == [f"{number}" for number in range(KEPT)]


@pytest.mark.parametrize("damage", [b"", b"\xc1", pack([2, 1, []]), pack([1, "x", []]), pack([1, 2, [[1]]]), pack(5)])
async def test_a_journal_that_cannot_be_read_counts_as_a_change_of_all_and_is_written_anew(damage: bytes) -> None:
    bucket: Any = Bucket()
    (one, _), (two, heard) = await journals(bucket, 2)
    await one.record(bucket, "acme")
    await two.look(bucket)
    bucket.value = damage
    await two.look(bucket)
    await two.look(bucket)
    assert heard == ["acme", None]
    await one.record(bucket, "globex")
    await two.look(bucket)
    assert heard[2:] == ["globex"]


async def test_a_bucket_that_was_emptied_counts_as_a_change_of_all() -> None:
    bucket: Any = Bucket()
    (one, _), (two, heard) = await journals(bucket, 2)
    await one.record(bucket, "acme")
    await two.look(bucket)
    bucket.value, bucket.revision = None, 0
    await two.look(bucket)
    assert heard == ["acme", None]


async def test_what_could_not_be_written_is_said() -> None:
    bucket: Any = Bucket()
    ((journal, _),) = await journals(bucket, 1)
    bucket.failing = True
    with pytest.raises(ClusterError, match="tenant 'acme' has changed is known at this node"):
        await journal.record(bucket, "acme")
    with pytest.raises(ClusterError, match="1024 bytes"):
        await journal.record(bucket, "x" * 1025)
