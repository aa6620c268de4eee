"""RFC 9728: where a client learns who gives tokens."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from mcp.shared.auth import ProtectedResourceMetadata
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from tenants.asking import tenants_server
from understudy.runtime import ConfigurationError, ProtectedResource, Runtime, TenantContext, Unauthenticated

PATH = "/.well-known/oauth-protected-resource/mcp"


def nobody(request: Request) -> TenantContext:
    raise Unauthenticated


async def nobody_later(request: Request) -> TenantContext:
    raise Unauthenticated(challenge='Basic realm="x"')


def resource(tenants: Any = nobody, **options: Any) -> ProtectedResource:
    given = {"url": "https://mcp.example.com/mcp", "authorization_servers": ["https://auth.example.com"], **options}
    return ProtectedResource(tenants, **given)


def browser(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def test_the_metadata_is_served_where_a_refusal_says() -> None:
    described = resource(required_scopes=["use"], name="Shop", documentation="https://docs.example.com/")
    async with Runtime(tenants_server(), tenants=described) as runtime, browser(runtime.app) as http:
        refused = await http.post("/mcp", json={})
        assert refused.status_code == 401
        assert f'resource_metadata="https://mcp.example.com{PATH}"' in refused.headers["www-authenticate"]
        answer = await http.get(PATH)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.headers["access-control-allow-origin"] == "*"
        # As the SDK's client reads it.
        told = ProtectedResourceMetadata.model_validate_json(answer.content)
        assert str(told.resource) == "https://mcp.example.com/mcp"
        assert [str(server) for server in told.authorization_servers] == ["https://auth.example.com"]
        assert (told.scopes_supported, told.resource_name) == (["use"], "Shop")
        assert (await http.options(PATH)).status_code == 204
        refused = await http.post(PATH)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_nothing_is_served_where_no_authorization_server_is_named() -> None:
    async with Runtime(tenants_server(), tenants=nobody) as runtime, browser(runtime.app) as http:
        assert (await http.get(PATH)).status_code == 404
        assert (await http.post("/mcp", json={})).headers["www-authenticate"] == "Bearer"


async def test_an_application_that_mounts_the_runtime_serves_the_metadata_at_its_root() -> None:
    described = resource(url="https://mcp.example.com/deep/mcp")
    runtime = Runtime(tenants_server(), tenants=described)
    app = Starlette(routes=[*described.routes, Mount("/deep", app=runtime.app)], lifespan=runtime.lifespan)
    async with app.router.lifespan_context(app), browser(app) as http:
        path = "/.well-known/oauth-protected-resource/deep/mcp"
        assert path in (await http.post("/deep/mcp", json={})).headers["www-authenticate"]
        assert (await http.get(path)).json()["resource"] == "https://mcp.example.com/deep/mcp"


async def test_a_challenge_of_another_scheme_stays_as_it_is() -> None:
    async with Runtime(tenants_server(), tenants=resource(nobody_later)) as runtime, browser(runtime.app) as http:
        assert (await http.post("/mcp", json={})).headers["www-authenticate"] == 'Basic realm="x"'


@pytest.mark.parametrize(
    "options",
    [
        {"url": "mcp.example.com"},
        {"url": "https://mcp.example.com/mcp?x=1"},
        {"url": 'https://mcp.example.com/"'},
        {"authorization_servers": []},
        {"authorization_servers": "https://auth.example.com"},
        {"authorization_servers": ["ftp://auth.example.com"]},
        {"required_scopes": ["a b"]},
        {"documentation": "here"},
    ],
)
def test_what_could_not_be_served_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        resource(**options)
