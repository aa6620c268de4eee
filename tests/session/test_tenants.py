"""no-wrong-tenant: a session answers to the principal that opened it; to anybody else it does not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations
from session.visitor import Host, Kept, Stream, Visitor, hosted
from starlette.requests import Request
from understudy.actors.session import SessionSnapshot
from understudy.actors.session.state import unpack_state
from understudy.runtime import Session, TenantContext, Unauthenticated
from understudy.stores import Address

CREDENTIALS = {
    "ada": TenantContext(tenant="acme", principal="ada", plan="gold", scopes=frozenset({"read"})),
    "ada again": TenantContext(tenant="acme", principal="ada", plan="silver", claims={"session": 2}),
    "eve": TenantContext(tenant="acme", principal="eve"),
    "bob": TenantContext(tenant="globex", principal="bob"),
    "ada of globex": TenantContext(tenant="globex", principal="ada"),
}
STRANGERS = ["eve", "bob", "ada of globex"]


def resolve(request: Request) -> TenantContext:
    try:
        return CREDENTIALS[request.headers["authorization"]]
    except KeyError:
        raise Unauthenticated from None


def bank(name: str = "bank") -> MCPServer:
    server = MCPServer(name)

    @server.tool()
    async def deposit(amount: int, session: Session) -> int:
        session.state["balance"] = session.state.get("balance", 0) + amount
        return session.state["balance"]

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def balance(session: Session) -> int:
        return session.state.get("balance", 0)

    @server.tool()
    async def who(session: Session) -> list[str]:
        tenant = session.tenant
        return [tenant.tenant, tenant.principal, str(tenant.plan), str(dict(tenant.claims))]

    @server.tool()
    async def of_server() -> str:
        return name

    return server


@pytest.fixture
async def host():
    async with hosted(bank(), tenants=resolve) as host:
        yield host


Way = Callable[[Host, Visitor], Stream]


def _post(message: dict[str, Any]) -> Way:
    return lambda host, visitor: host.begin({"jsonrpc": "2.0", **message}, visitor.headers())


def _send(method: str, **headers: str) -> Way:
    return lambda host, visitor: host.begin(None, visitor.headers(**headers), method=method)


def _call(tool: str, **arguments: Any) -> dict[str, Any]:
    return {"id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


HANDSHAKE_WAYS: dict[str, Way] = {
    "a call": _post(_call("deposit", amount=1)),
    "a read-only call": _post(_call("balance")),
    "ping": _post({"id": 1, "method": "ping"}),
    "tools/list": _post({"id": 1, "method": "tools/list"}),
    "logging/setLevel": _post({"id": 1, "method": "logging/setLevel", "params": {"level": "info"}}),
    "an unknown method": _post({"id": 1, "method": "no/such"}),
    "a notification": _post({"method": "notifications/roots/list_changed"}),
    "notifications/initialized": _post({"method": "notifications/initialized"}),
    "a cancellation": _post({"method": "notifications/cancelled", "params": {"requestId": 1}}),
    "progress": _post({"method": "notifications/progress", "params": {"progressToken": "1-1", "progress": 1}}),
    "an answer": _post({"id": "1-1", "result": {}}),
    "an error": _post({"id": "1-1", "error": {"code": 1, "message": "no"}}),
    "GET": _send("GET"),
    "GET with Last-Event-ID": _send("GET", **{"last-event-id": "abc.1-1"}),
    "DELETE": _send("DELETE"),
}


async def seen(stream: Stream) -> tuple[Any, ...]:
    """All that a client can see of an answer."""
    await stream.ended.wait()
    return stream.status, sorted(stream.headers.items()), stream.body


@pytest.mark.parametrize("asleep", [False, True], ids=["awake", "asleep"])
@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("way", HANDSHAKE_WAYS)
async def test_to_a_stranger_a_session_looks_as_one_that_never_was(host, way, stranger, asleep):
    owner = await host.visit(credential="ada")
    await owner.ask("deposit", amount=5)
    if asleep:
        await host.sleep(owner)
    unknown = Visitor(host, credential=stranger, session=Address.new("session").id)
    foreign = Visitor(host, credential=stranger, session=owner.session)
    expected = await seen(HANDSHAKE_WAYS[way](host, unknown))
    assert expected[0] == 404
    assert await seen(HANDSHAKE_WAYS[way](host, foreign)) == expected
    assert await owner.ask("balance") == 5


@pytest.mark.parametrize("asleep", [False, True], ids=["awake", "asleep"])
@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("tool", ["deposit", "balance", "close_session"])
async def test_to_a_stranger_a_handle_is_as_good_as_made_up(host, tool, stranger, asleep):
    owner = await host.visit("modern", credential="ada")
    await owner.ask("deposit", amount=5)
    if asleep:
        await host.sleep(owner)
    answers = []
    for session in (Address.new("session").id, owner.session):
        thief = Visitor(host, "modern", credential=stranger, session=session)
        answers.append(await seen(thief.call(tool, amount=1)))
    assert answers[0] == answers[1]
    assert answers[0][0] == 200
    assert b"Unknown session" in answers[0][2]
    assert await owner.ask("balance") == 5


@pytest.mark.parametrize("way", HANDSHAKE_WAYS)
async def test_a_handle_is_no_session_id_not_even_for_its_owner(host, way):
    owner = await host.visit("modern", credential="ada")
    await owner.ask("deposit", amount=5)
    unknown = Visitor(host, credential="ada", session=Address.new("session").id)
    as_id = Visitor(host, credential="ada", session=owner.session)
    expected = await seen(HANDSHAKE_WAYS[way](host, unknown))
    assert await seen(HANDSHAKE_WAYS[way](host, as_id)) == expected
    assert await owner.ask("balance") == 5


async def test_a_call_of_a_stranger_that_waits_behind_the_owners_is_refused(host):
    owner = await host.visit(credential="ada")
    await host.sleep(owner)
    # Nobody is awake yet to tell the two apart when they arrive.
    first = owner.call("deposit", amount=1)
    second = Visitor(host, credential="eve", session=owner.session).call("deposit", amount=10)
    assert await first.value() == 1
    await second.outcome()
    assert second.status == 404
    assert await owner.ask("balance") == 1


async def test_the_stranger_first_does_not_open_the_session_to_itself(host):
    owner = await host.visit(credential="ada")
    await host.sleep(owner)
    first = Visitor(host, credential="eve", session=owner.session).call("deposit", amount=10)
    second = owner.call("deposit", amount=1)
    await first.outcome()
    assert first.status == 404
    assert await second.value() == 1


async def test_the_tenant_of_a_call_is_what_its_own_credential_says(host, era):
    visitor = await host.visit(era, credential="ada")
    assert await visitor.ask("who") == ["acme", "ada", "gold", "{}"]
    again = Visitor(host, era, credential="ada again", session=visitor.session)
    assert await again.ask("who") == ["acme", "ada", "silver", "{'session': 2}"]
    assert await visitor.ask("who") == ["acme", "ada", "gold", "{}"]


async def test_the_owner_is_known_in_another_life_of_the_process(era):
    store = Kept()
    async with hosted(bank(), tenants=resolve, store=store) as host:
        visitor = await host.visit(era, credential="ada")
        await visitor.ask("deposit", amount=5)
    async with hosted(bank(), tenants=resolve, store=store) as host:
        thief = Visitor(host, era, credential="eve", session=visitor.session)
        call = thief.call("deposit", amount=1)
        await call.outcome()
        assert call.status == (404 if era == "handshake" else 200)
        owner = Visitor(host, era, credential="ada", session=visitor.session)
        assert await owner.ask("balance") == 5


async def test_a_record_carries_its_tenant(host, era):
    visitor = await host.visit(era, credential="bob")
    await visitor.ask("deposit", amount=5)
    record = await host.runtime._node.store.load(visitor.address)
    assert record.tenant == "globex"
    kept = SessionSnapshot.unpack(record.snapshot)
    assert (kept.tenant, kept.principal) == ("globex", "bob")
    assert unpack_state(kept.state) == {"balance": 5}


async def test_a_factory_makes_servers_by_tenant(era):
    async with hosted(lambda tenant: bank(f"bank of {tenant.tenant}"), tenants=resolve) as host:
        for credential, tenant in (("ada", "acme"), ("bob", "globex"), ("eve", "acme")):
            visitor = await host.visit(era, credential=credential)
            await visitor.ask("deposit", amount=1)
            assert await visitor.call("of_server", stateless=True).value() == f"bank of {tenant}"
            await host.sleep(visitor)
            assert await visitor.ask("deposit", amount=1) == 2


async def test_without_a_credential_there_is_no_session(host, era):
    visitor = Visitor(host, era)
    stream = visitor.begin("ping" if era == "modern" else "initialize", {})
    await stream.ended.wait()
    assert stream.status == 401
    assert stream.headers["www-authenticate"] == "Bearer"
