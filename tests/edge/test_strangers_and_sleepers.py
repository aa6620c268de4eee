"""no-wrong-tenant: a stranger neither wakes a session nor keeps it awake, whatever state its record is in."""

from __future__ import annotations

from typing import Any

import pytest
from edge.client import Client, ModernClient, hosting, put_to_sleep
from edge.server import make_server
from edge.test_session_ids import by_bearer
from understudy.actors.session.snapshot import SNAPSHOT_VERSION
from understudy.runtime import Runtime
from understudy.stores import Address, MemoryStore, Record, StoreUnavailable

ANN, BOB, EVE = "Bearer acme/ann", "Bearer acme/bob", "Bearer evil/eve"


class Counting:
    """A memory store that counts looks, claims and touches, and that may be out of reach."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.loads = self.claims = 0
        self.away = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def load(self, address: Address) -> Record | None:
        self.loads += 1
        if self.away:
            raise StoreUnavailable("away", retry_after=2.0, outcome_unknown=False)
        return await self.store.load(address)

    async def claim(self, address: Address, *, owner: str) -> Record:
        self.claims += 1
        return await self.store.claim(address, owner=owner)


def stats(runtime: Runtime) -> tuple[float, float]:
    numbers = runtime.stats()
    return numbers["sessions_turns_started"], numbers["sessions_activations"]


@pytest.mark.parametrize("stranger", [BOB, EVE])
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_stranger_wakes_nobody(stranger: str, method: str) -> None:
    store: Any = Counting()
    async with hosting(make_server(), tenants=by_bearer, store=store) as client:
        client.headers["authorization"] = ANN
        await client.open()
        await put_to_sleep(client.runtime, client.session)
        before = stats(client.runtime), store.claims
        other = client.same_session()
        other.headers["authorization"] = stranger
        body = other.message("tools/call", {"name": "increment", "arguments": {}}) if method == "POST" else b""
        assert (await other.send(method, body)).status == 404
        assert (stats(client.runtime), store.claims) == before
        assert await client.tool("increment") == 1


async def test_a_stranger_does_not_keep_a_session_awake() -> None:
    async with hosting(make_server(), tenants=by_bearer) as client:
        client.headers["authorization"] = ANN
        await client.open()
        registry: Any = client.runtime.edge and client.runtime._node.registry  # type: ignore[union-attr]
        cell = registry._cells[Address("session", client.session or "")]
        since = registry._host.idle[cell]
        other = client.same_session()
        other.headers["authorization"] = EVE
        for method in ("GET", "DELETE"):
            assert (await other.send(method)).status == 404
        assert (await other.ask("initialize", {})).status == 404
        assert registry._host.idle[cell] == since


@pytest.mark.parametrize(
    "snapshot", [b"", b"\xc1 damaged", b"\x81\xa1v\x63", bytes((0x81, 0xA1, 0x76, SNAPSHOT_VERSION + 1))]
)
async def test_to_another_tenant_a_damaged_session_is_unknown_too(snapshot: bytes) -> None:
    store = MemoryStore()
    address = Address.new("session")
    await store.create(address, tenant="acme", owner="n", snapshot=snapshot, ttl=60)
    async with hosting(make_server(), tenants=by_bearer, store=store) as client:
        client.session, client.revision = address.id, "2025-11-25"
        client.headers["authorization"] = EVE
        there = await client.ask("ping", id="m")
        client.session = Address.new("session").id
        never = await client.ask("ping", id="m")
        assert (there.status, there.headers, there.body) == (never.status, never.headers, never.body)
        assert there.status == 404
        client.session = address.id
        client.headers["authorization"] = ANN
        assert (await client.ask("ping")).status in (500, 503)


async def test_where_the_store_does_not_answer_nobody_is_told_that_a_session_never_was() -> None:
    store: Any = Counting()
    async with hosting(make_server(), tenants=by_bearer, store=store) as client:
        client.headers["authorization"] = ANN
        await client.open()
        await put_to_sleep(client.runtime, client.session)
        store.away = True
        answered = []
        for credential in (ANN, EVE):
            client.headers["authorization"] = credential
            answered.append(await client.ask("ping", id="m"))
        assert {call.status for call in answered} == {503}
        assert {call.header("retry-after") for call in answered} == {"2"}
        assert answered[0].body == answered[1].body
        store.away = False
        client.headers["authorization"] = ANN
        assert (await client.ask("ping")).status == 200


async def test_the_look_is_taken_once_for_a_session_that_wakes_and_never_without_tenants() -> None:
    for tenants, loads in ((by_bearer, 1), (None, 0)):
        store: Any = Counting()
        async with hosting(make_server(), tenants=tenants, store=store) as client:
            client.headers["authorization"] = ANN
            await client.open()
            await put_to_sleep(client.runtime, client.session)
            before = store.loads
            for count in (1, 2, 3):
                assert await client.tool("increment") == count
            assert store.loads - before == loads


async def test_by_handle_a_stranger_wakes_nobody_either() -> None:
    store: Any = Counting()
    async with hosting(make_server(), tenants=by_bearer, store=store) as handshake:
        client = ModernClient(handshake._connections)
        client.headers["authorization"] = ANN
        handle = await client.handle()
        await put_to_sleep(handshake.runtime, handle)
        before = stats(handshake.runtime)[1], store.claims
        for credential in (BOB, EVE):
            client.headers["authorization"] = credential
            for tool in ("increment", "close_session"):
                there = await client.begin_tool(tool, {"session": handle}, id="m").answered()
                never = await client.begin_tool(tool, {"session": Address.new("session").id}, id="m").answered()
                assert (there.status, there.body) == (never.status, never.body)
                assert there.result["isError"]
        # Those that never were are looked for, and not found.
        assert stats(handshake.runtime)[1] == before[0]
        client.headers["authorization"] = ANN
        assert await client.tool("increment", {"session": handle}) == 1
        assert isinstance(handshake, Client)
