"""The app inside other apps, and the pages for operators beside the endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import Client, connected, hosting
from edge.server import Stage, make_server
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from understudy.runtime import ConfigurationError, NotStarted, Runtime
from understudy.stores import FaultyStore, MemoryStore, StoreUnavailable


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def starlette(runtime: Runtime, prefix: str) -> Starlette:
    routes = [Route("/hello", hello), Mount(prefix, app=runtime.app)]
    return Starlette(routes=routes, lifespan=runtime.lifespan)


def fastapi(runtime: Runtime, prefix: str) -> FastAPI:
    app = FastAPI(lifespan=runtime.lifespan)
    app.add_api_route("/hello", hello)
    app.mount(prefix, runtime.app)
    return app


@asynccontextmanager
async def started(app: Any) -> AsyncGenerator[None]:
    """Drive the lifespan as an HTTP server does."""
    to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    async with asyncio.TaskGroup() as tasks:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        tasks.create_task(app(scope, to_app.get, from_app.put))
        await to_app.put({"type": "lifespan.startup"})
        message = await from_app.get()
        assert message["type"] == "lifespan.startup.complete", message
        yield
        await to_app.put({"type": "lifespan.shutdown"})
        assert (await from_app.get())["type"] == "lifespan.shutdown.complete"


async def works(client: Client) -> None:
    await client.open()
    assert await client.tool("increment") == 1
    stream = await client.start("GET").started()
    await client.tool("announce")
    await stream.message("notifications/tools/list_changed")
    assert (await client.send("DELETE")).status == 200


@pytest.mark.parametrize("make", [starlette, fastapi])
@pytest.mark.parametrize(
    ("prefix", "path"), [("/", "/mcp"), ("", "/mcp"), ("/tools", "/tools/mcp"), ("/mcp", "/mcp/mcp")]
)
async def test_mounted_in_an_app_it_runs_with_the_apps_lifespan(make: Any, prefix: str, path: str) -> None:
    app = make(Runtime(make_server()), prefix)
    async with started(app), connected(app, path=path) as client:
        await works(client)
        assert (await client.send("GET", path="/hello")).body.strip(b'"') == b"hello"
        assert (await client.send("GET", path=prefix.rstrip("/") + "/healthz")).body == b"alive\n"


@pytest.mark.parametrize("make", [starlette, fastapi])
async def test_the_endpoint_may_be_the_mount_itself(make: Any) -> None:
    app = make(Runtime(make_server(), path="/"), "/mcp")
    async with started(app), connected(app, path="/mcp/") as client:
        await works(client)


async def test_two_runtimes_in_one_app_share_nothing() -> None:
    one, other = Runtime(make_server()), Runtime(make_server())

    @asynccontextmanager
    async def both(app: Any) -> AsyncGenerator[None]:
        async with one, other:
            yield

    app = Starlette(routes=[Mount("/one", app=one.app), Mount("/other", app=other.app)], lifespan=both)
    async with started(app), connected(app, path="/one/mcp") as client:
        await client.open()
        assert (await client.ask("ping", path="/one/mcp")).status == 200
        assert (await client.ask("ping", path="/other/mcp")).status == 404


async def test_a_mounted_app_whose_lifespan_was_forgotten_says_so() -> None:
    runtime = Runtime(make_server())
    app = Starlette(routes=[Mount("/", app=runtime.app)])
    async with started(app), connected(app) as client:
        call = client.begin("ping")
        with pytest.raises(NotStarted, match=r"lifespan=runtime\.lifespan"):
            await call.done()
        health = await client.send("GET", path="/healthz")
        assert health.status == 200
        ready = await client.send("GET", path="/readyz")
        assert (ready.status, ready.json["reasons"]) == (503, ["not started"])


async def test_served_alone_it_runs_with_its_own_lifespan_and_can_be_started_again() -> None:
    runtime = Runtime(make_server())
    for _ in range(2):
        async with started(runtime.app), connected(runtime.app) as client:
            await works(client)
        assert runtime.edge is None


async def test_a_lifespan_does_not_stop_what_it_did_not_start() -> None:
    async with Runtime(make_server()) as runtime:
        async with started(runtime.app):
            pass
        async with connected(runtime.app) as client:
            await works(client)
        with pytest.raises(ConfigurationError, match="running already"):
            await runtime.__aenter__()


async def test_a_start_that_fails_is_told_to_the_http_server() -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    store.fail_next("ping", StoreUnavailable("the disk is gone", outcome_unknown=False))
    runtime = Runtime(make_server(), store=store)
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await runtime.app({"type": "lifespan"}, receive, send)
    assert said == [{"type": "lifespan.startup.failed", "message": "the disk is gone"}]
    assert runtime.edge is None


async def test_a_websocket_is_closed() -> None:
    async with hosting(make_server()) as client:
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        await client.runtime.app({"type": "websocket", "path": "/mcp", "headers": []}, receive, send)
        assert [message["type"] for message in said] == ["websocket.close"]


# Pages


async def page(client: Client, path: str, method: str = "GET") -> HTTPCall:
    return await client.send(method, path=path)


async def test_the_pages_are_there() -> None:
    async with hosting(make_server(), node_id="n1") as client:
        assert (await page(client, "/healthz")).body == b"alive\n"
        ready = await page(client, "/readyz")
        assert (ready.status, ready.json) == (200, {"ready": True, "node": "n1", "reasons": []})
        await client.open()
        metrics = await page(client, "/metrics")
        assert metrics.kind.startswith("text/plain")
        assert b"understudy_sessions_live 1.0" in metrics.body
        lost = await page(client, "/nowhere")
        assert (lost.status, b"/mcp" in lost.body) == (404, True)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_the_pages_are_only_read(path: str) -> None:
    async with hosting(make_server()) as client:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            call = await page(client, path, method)
            assert (call.status, call.header("allow")) == (405, "GET, HEAD")
        assert (await page(client, path, "HEAD")).status == 200


async def test_a_node_whose_store_is_out_of_reach_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.node._READY_TIMEOUT", 0.05)
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(), store=store) as client:
        for fault, reason in (("refuse", "out of reach"), ("lose", "out of reach"), ("hang", "did not answer")):
            store.fail_next("ping", fault)
            ready = await page(client, "/readyz")
            assert ready.status == 503
            assert ready.json["ready"] is False
            assert reason in ready.json["reasons"][0]
        assert (await page(client, "/healthz")).status == 200
        assert (await page(client, "/readyz")).status == 200


async def test_a_node_that_drains_is_not_ready_and_takes_no_sessions() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        standing = await client.start("GET").started()
        running = client.begin_tool("hold")
        await stage.began.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(client.runtime.drain(10))
            await standing.answered()
            ready = await page(client, "/readyz")
            assert (ready.status, ready.json["reasons"]) == (503, ["draining"])
            assert (await page(client, "/healthz")).status == 200
            opening = await client.twin().ask(
                "initialize",
                {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}},
            )
            assert opening.status == 503
            assert int(opening.header("retry-after") or 0) >= 1
            stage.go_on.set()
        assert (await running.answered()).value == 1, "what ran is finished"
