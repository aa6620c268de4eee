"""A node that meets very many tenants: what each of them leaves is in tables that have a bound."""

from __future__ import annotations

import gc
import tracemalloc
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from limits.nodes import node
from mcp.server.mcpserver import MCPServer
from starlette.requests import Request
from understudy.actors.session.messages import Call
from understudy.actors.session.tenants.cache_bounds import CacheBounds
from understudy.actors.session.tenants.caches import TenantCaches
from understudy.actors.testing import ManualClock
from understudy.bench.asgi import Caller
from understudy.bench.clients import (
    HANDSHAKE_VERSION,
    HEADERS,
    MODERN_VERSION,
    HandshakeClient,
    PreparedCall,
    modern_meta,
)
from understudy.runtime import Limits, Runtime, Session, SessionLimits, TenantContext, current_tenant
from understudy.runtime.limits import MemoryCounters, usage
from understudy.stores import Address

MANY = 150
BOUNDED = frozenset({
    "MemoryCounters._records",
    "Redactor._known",
    "SecretKeeper._known",
    "SessionUses.uses",
    "Surfaces._known",
    "Surfaces._same",
    "TenantCaches._shelves",
    "TenantNumbers._known",
    "Usage._tenants",
    "_Alike.spellings",
})  # fmt: skip
"""By class and attribute: tables that have something of tenants and principals that came and went, up to the bounds in
runtime/README.md."""

server = MCPServer("shop", log_level="ERROR")


@server.tool()
async def touch() -> str:
    tenant = current_tenant()
    tenant.cache.set("key", "value")
    return (await tenant.secrets.get("TOKEN")).reveal()[:1]


@server.tool()
def block() -> str:
    return current_tenant().principal


@server.tool()
async def count(session: Session) -> int:
    session.state["n"] = session.state.get("n", 0) + 1
    return session.state["n"]


def by_headers(request: Request) -> TenantContext:
    return TenantContext(request.headers["x-tenant"], request.headers["x-principal"], plan="pro")


async def secrets_of(tenant: TenantContext) -> dict[str, str]:
    return {"TOKEN": f"the secret of {tenant.tenant} {tenant.principal}"}


def lengths() -> dict[int, tuple[Any, int]]:
    gc.collect()
    # Not those of this test: what it looks at would be among what it finds.
    kinds = (dict, set, list, deque)
    return {id(each): (each, len(each)) for each in gc.get_objects() if isinstance(each, kinds)}


def owner(container: Any) -> str:
    """The attribute that a container is the value of."""
    for referrer in gc.get_referrers(container):
        holders = gc.get_referrers(referrer) if type(referrer) is dict else [referrer]
        for holder in holders:
            attributes: dict[str, Any] = dict(getattr(holder, "__dict__", {}))
            for kind in type(holder).__mro__:
                slots: Any = kind.__dict__.get("__slots__", ())
                attributes |= {name: getattr(holder, name, None) for name in slots if not name.startswith("__")}
            for name, value in attributes.items():
                if value is container and f"{type(holder).__name__}.{name}" != "Usage._session_uses":
                    return f"{type(holder).__name__}.{name}"
    return f"a {type(container).__name__} of {len(container)}, such as {list(container)[:1]!s:.200}"


def parties(many: int) -> Iterator[dict[str, str]]:
    """Tenants of one principal each, and as many principals of one tenant."""
    for number in range(many):
        yield {"x-tenant": f"tenant-{number}", "x-principal": "ada"}
        yield {"x-tenant": "acme", "x-principal": f"principal-{number}"}


async def visit(app: Any, party: dict[str, str], *, opens: bool) -> None:
    for tool in ("touch", *(("block",) if opens else ())):
        modern = {"mcp-protocol-version": MODERN_VERSION, "mcp-method": "tools/call", "mcp-name": tool}
        call = PreparedCall(tool, {}, meta=modern_meta())
        answer = await Caller(app, {**HEADERS, **modern, **party}).send(call.body())
        assert b'"isError":false' in answer.body, answer.body
    named = {"mcp-session-id": Address.new("session").id, "mcp-protocol-version": HANDSHAKE_VERSION}
    unknown = await Caller(app, {**HEADERS, **named, **party}).send(PreparedCall("count", {}).body())
    assert unknown.status == 404
    if opens:
        client = await HandshakeClient.open(app, party)
        await client.call(PreparedCall("count", {}))
        await client.close()


async def test_all_that_a_tenant_leaves_at_a_node_is_in_tables_with_a_bound() -> None:
    """bounded: no table is forgotten here, as it is the garbage collector that lists them."""
    most = 2**40
    limits = Limits(
        calls_per_minute=most,
        read_only_calls_per_minute=most,
        calls_in_flight=most,
        streams=most,
        result_bytes_per_minute=most,
        per_session=SessionLimits(calls_per_minute=most),
    )
    runtime = Runtime(
        server,
        store="memory://",
        allowed_hosts=["localhost:8000"],
        tenants=by_headers,
        limits=limits,
        secrets=secrets_of,
        tools_for=lambda tenant: {"*"},
        audit=lambda entry: None,
    )
    async with runtime:
        for party in ({"x-tenant": f"first-{number}", "x-principal": "p"} for number in range(5)):
            await visit(runtime.app, party, opens=True)
        before = lengths()
        for number, party in enumerate(parties(MANY)):
            await visit(runtime.app, party, opens=number % 20 < 2)
        grown = [
            owner(container)
            for key, (container, length) in lengths().items()
            if container is not before and length - (before[key][1] if key in before else 0) >= MANY * 0.9
        ]
        del before
    assert set(grown) - BOUNDED == set()
    # What it looks for it finds.
    assert {"Usage._tenants", "SecretKeeper._known", "TenantCaches._shelves"} <= set(grown)


async def test_tenants_that_are_always_at_work_leave_room_for_those_who_come_and_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage, "MAX_TENANTS", 200)
    clock = ManualClock()
    async with node("a.1", Limits(calls_in_flight=5), MemoryCounters(), clock) as it:
        # As many as are looked at in one go, and known for longest.
        busy = [await it.enter(TenantContext(f"busy-{number}", "p")) for number in range(usage.LOOK_AT)]
        for number in range(200 - usage.LOOK_AT):
            assert await it.call(TenantContext(f"idle-{number}", "p")) is None
        await clock.advance(5.0)
        for number in range(50):
            tenant = TenantContext(f"new-{number}", "p")
            refused = [await it.call(tenant) for _ in range(2)]
            assert refused[-1] is None
        assert it.limiter.stats()["limits_tenants"] == 200
        assert all(isinstance(call, Call) for call in busy)


def test_many_tenants_that_keep_little_stay_within_the_room_of_all() -> None:
    caches = TenantCaches(CacheBounds(max_bytes=10_000, max_total_bytes=2**20))
    tracemalloc.start()
    try:
        for number in range(5000):
            assert caches.set(f"tenant-{number}", "key", number, None, None)
            assert caches.get(f"tenant-{number}", "key", None) == number
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken < 2 * 2**20
    assert 1000 < caches.stats()["tenants"] < 2000
    for number in range(5000):
        caches.forget(f"tenant-{number}")
    assert caches.set("one", "key", b"x" * 9000, None, None)
    assert caches.stats()["tenants"] == 1
