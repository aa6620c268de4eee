"""The `TenantResolver` seam at the edge: what the resolver says, and what happens when it says something else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import Client, hosting, hosting_modern, initialize_params
from edge.server import make_server
from starlette.requests import Request
from understudy.runtime import Forbidden, TenantContext, Unauthenticated

ANN = TenantContext("acme", "ann")


def sync_resolver(request: Request) -> TenantContext:
    match request.headers.get("authorization"):
        case None:
            raise Unauthenticated(challenge='Bearer resource_metadata="https://a.example/meta"')
        case "Bearer good":
            return ANN
        case "Bearer poor":
            raise Forbidden("this plan has no sessions")
        case _:
            raise Unauthenticated("the token is worth nothing")


async def async_resolver(request: Request) -> TenantContext:
    return sync_resolver(request)


class ResolverObject:
    async def __call__(self, request: Request) -> TenantContext:
        return sync_resolver(request)


def initialize(client: Client, **headers: str) -> HTTPCall:
    return client.begin("initialize", initialize_params(), headers=headers)


RESOLVERS = pytest.mark.parametrize("resolver", [sync_resolver, async_resolver, ResolverObject()])


@RESOLVERS
async def test_no_credential_is_challenged(resolver: Any) -> None:
    async with hosting(make_server(), tenants=resolver) as client:
        for method in ("POST", "GET", "DELETE", "BREW"):
            call = await client.send(method, b"no JSON at all")
            assert call.status == 401
            assert call.header("www-authenticate") == 'Bearer resource_metadata="https://a.example/meta"'
            assert call.json["error"]["code"] == -32600
            assert call.json["id"] is None


@RESOLVERS
async def test_a_bad_credential_is_challenged_and_a_poor_one_forbidden(resolver: Any) -> None:
    async with hosting(make_server(), tenants=resolver) as client:
        bad = await initialize(client, authorization="Bearer bad").answered()
        assert (bad.status, bad.header("www-authenticate")) == (401, "Bearer")
        assert bad.json["error"]["message"] == "the token is worth nothing"
        poor = await initialize(client, authorization="Bearer poor").answered()
        assert (poor.status, poor.header("www-authenticate")) == (403, None)
        assert poor.json["error"]["message"] == "this plan has no sessions"


@RESOLVERS
async def test_a_good_credential_is_served_and_asked_for_each_time(resolver: Any) -> None:
    async with hosting(make_server(), tenants=resolver) as client:
        client.headers["authorization"] = "Bearer good"
        await client.open()
        assert await client.tool("increment") == 1
        del client.headers["authorization"]
        assert (await client.begin_tool("increment").answered()).status == 401
        client.headers["authorization"] = "Bearer good"
        assert await client.tool("increment") == 2


async def test_the_credential_is_asked_for_before_the_body_is_read_and_after_the_host() -> None:
    asked: list[str] = []

    def resolver(request: Request) -> TenantContext:
        asked.append(request.method)
        raise Unauthenticated

    def never() -> Any:
        raise AssertionError("the body was read")
        yield b""

    async with hosting(make_server(), tenants=resolver) as client:
        assert (await client.send(headers={"host": "evil.example"})).status == 421
        assert (await client.send(headers={"origin": "https://evil.example"})).status == 403
        assert asked == []
        assert (await client.send(body=never())).status == 401
        assert asked == ["POST"]


async def reads_the_body(request: Request) -> TenantContext:
    await request.body()
    return ANN


FAULTY: list[Callable[[Request], Any]] = [
    lambda request: None,
    lambda request: "acme",
    lambda request: {"tenant": "acme", "principal": "ann"},
    lambda request: TenantContext,
    lambda request: 1 / 0,
    lambda request: request.headers["authorization"],
    reads_the_body,
]


@pytest.mark.parametrize("fault", FAULTY)
async def test_a_resolver_that_fails_is_a_servers_error_and_kills_nothing(
    fault: Callable[[Request], Any], caplog: pytest.LogCaptureFixture
) -> None:
    faulty = [False]

    def resolver(request: Request) -> Any:
        return fault(request) if faulty[0] else ANN

    async with hosting(make_server(), tenants=resolver) as client:
        await client.open()
        assert await client.tool("increment") == 1
        faulty[0] = True
        with caplog.at_level(logging.ERROR, "understudy.runtime.edge.edge"):
            call = await client.begin_tool("increment").answered()
        assert call.status == 500
        assert call.header("www-authenticate") is None
        assert call.json == {
            "jsonrpc": "2.0",
            "id": None,
            "error": {"code": -32603, "message": "The credential could not be checked"},
        }
        assert [record.message for record in caplog.records] == ["the tenant resolver failed"]
        assert caplog.records[0].exc_info is not None
        faulty[0] = False
        assert await client.tool("increment") == 2


async def test_the_credential_is_asked_for_in_the_modern_era_too() -> None:
    async with hosting_modern(make_server(), tenants=sync_resolver) as client:
        call = await client.ask("tools/list")
        assert call.status == 401
        assert (call.header("www-authenticate") or "").startswith("Bearer resource_metadata=")
        client.headers["authorization"] = "Bearer good"
        assert (await client.ask("tools/list")).status == 200
