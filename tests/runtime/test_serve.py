"""`serve`: binding, draining before stopping, signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.client import Client
from starlette.types import ASGIApp
from support import ServerProcess
from support.certificates import self_signed
from support.patience import PATIENCE
from understudy.actors.session.tenants.cache_bounds import CacheBounds
from understudy.runtime import Fairness
from understudy.runtime.commands.child import LIFELINE
from understudy.runtime.commands.config import ConfigError, ServeOptions
from understudy.runtime.commands.http_servers import GRACE, HTTP_SERVERS, TLS, Stop
from understudy.runtime.commands.serve import (
    BindError,
    StopSignals,
    bind,
    default_store,
    make_runtime,
    serve_until_stopped,
)
from understudy.runtime.commands.serve import serve as run_serve
from understudy.runtime.commands.target import Target
from understudy.stores import EventLogBounds

DEMO = "understudy.runtime.demo:server"

Serve = Callable[..., ServerProcess]


class FakeNode:
    def __init__(self, said: list[str]) -> None:
        self.said = said
        self.drain_error: Exception | None = None

    @property
    def app(self) -> ASGIApp:
        async def app(scope: Any, receive: Any, send: Any) -> None: ...

        return app

    def end_listening(self) -> None:
        self.said.append("end listening")

    async def drain(self, timeout: float = 30.0) -> None:
        self.said.append(f"drain {timeout:g}")
        await asyncio.sleep(0)
        self.said.append("drained")
        if self.drain_error is not None:
            raise self.drain_error


def server(said: list[str], error: Exception | None = None, ends: bool = False) -> Any:
    async def run(app: ASGIApp, sock: socket.socket, tls: TLS | None, stop: asyncio.Event) -> None:
        said.append("serving")
        if error is not None:
            raise error
        if ends:
            return
        await stop.wait()
        said.append("stopped")

    return run


def test_binding_to_a_port_in_use_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            BindError, match=f"cannot listen on 127.0.0.1 port {port}: address already in use; stop what"
        ):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "not.a.host.invalid", "1.2.3.4.5"])
def test_binding_to_an_address_that_is_not_ours_names_it(host: str) -> None:
    with pytest.raises(BindError, match=host):
        bind(host, 0)


def test_port_0_takes_a_free_one() -> None:
    with bind("127.0.0.1", 0) as sock:
        assert sock.getsockname()[1] > 0
        socket.create_connection(sock.getsockname(), timeout=1).close()


async def test_the_node_drains_while_the_server_still_carries_answers() -> None:
    said: list[str] = []
    asked = asyncio.Event()
    with bind("127.0.0.1", 0) as sock:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve_until_stopped(FakeNode(said), server(said), sock, None, asked, drain_timeout=7.0))
            await asyncio.sleep(0.01)
            asked.set()
    assert said == ["serving", "drain 7", "drained", "end listening", "stopped"]


async def test_the_server_stops_even_if_draining_fails() -> None:
    said: list[str] = []
    node, asked = FakeNode(said), asyncio.Event()
    node.drain_error = OSError("the store is gone")
    asked.set()
    with bind("127.0.0.1", 0) as sock, pytest.raises(OSError, match="the store is gone"):
        await serve_until_stopped(node, server(said), sock, None, asked)
    assert said[-1] == "stopped"


@pytest.mark.parametrize(("lame_duck", "others", "least"), [(0.3, True, 0.3), (600.0, False, 0.0), (0.0, True, 0.0)])
async def test_a_lame_duck_answers_on_until_its_time_is_over_or_it_is_the_last(
    lame_duck: float, others: bool, least: float
) -> None:
    said: list[str] = []
    asked = asyncio.Event()
    asked.set()
    began = time.monotonic()
    with bind("127.0.0.1", 0) as sock:
        async with asyncio.timeout(PATIENCE):
            await serve_until_stopped(
                FakeNode(said), server(said), sock, None, asked, lame_duck=lame_duck, has_successor=lambda: others
            )
    assert time.monotonic() - began >= least
    assert said[-3:] == ["drained", "end listening", "stopped"]


async def test_what_is_in_flight_has_what_the_drain_has_left_to_be_answered() -> None:
    """It may run at another node, or in no session: the drain has not waited for it."""
    given: list[float] = []
    said: list[str] = []

    async def run(app: ASGIApp, sock: socket.socket, tls: TLS | None, stop: asyncio.Event) -> None:
        await stop.wait()
        assert isinstance(stop, Stop)
        given.append(stop.grace)
        while said.count("end listening") < 3:
            await asyncio.sleep(0)

    asked = asyncio.Event()
    asked.set()
    with bind("127.0.0.1", 0) as sock:
        async with asyncio.timeout(PATIENCE):
            await serve_until_stopped(FakeNode(said), run, sock, None, asked, drain_timeout=600.0, lame_duck=0.1)
            await serve_until_stopped(FakeNode(said), run, sock, None, asked, drain_timeout=0.1)
    assert 600.0 - PATIENCE < given[0] <= 599.9
    assert given[1] == GRACE


def test_a_clusters_node_gets_its_options_and_keeps_sessions_in_the_clusters_nats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("understudy.runtime.runtime.Runtime", lambda server, **given: (server, given))
    monkeypatch.setenv("UNDERSTUDY_NATS_TOKEN", "to/ken")
    options = ServeOptions(
        cluster="shop",
        nats="nats://127.0.0.1:1",
        node="n1",
        lease=5.0,
        link_version=1,
        unsigned_contexts="accept",
        host="0.0.0.0",
        path="/x",
    )
    made: Any = make_runtime(Target("m:a", "the server", None), "memory://", options, 9000)
    cluster = made[1]["cluster"]
    assert (cluster.name, cluster.lease, cluster.link_versions, cluster.versions) == ("shop", 5.0, (1, 1), (1, 1))
    assert (made[1]["node_id"], cluster.settings.token) == ("n1", "to/ken")
    assert cluster.url == f"http://{socket.gethostname()}:9000/x"
    assert default_store(Target("m:a", "s", None), options) == "nats://to%2Fken@127.0.0.1:1/understudy-shop"


async def test_a_server_that_breaks_or_ends_by_itself_is_an_error() -> None:
    breaks, ends = server([], error=ValueError("bad certificate")), server([], ends=True)
    with bind("127.0.0.1", 0) as sock:
        with pytest.raises(ValueError, match="bad certificate"):
            await serve_until_stopped(FakeNode([]), breaks, sock, None, asyncio.Event())
        with pytest.raises(RuntimeError, match="ended by itself"):
            await serve_until_stopped(FakeNode([]), ends, sock, None, asyncio.Event())


def test_an_http_server_that_is_not_installed_is_told_before_anything_is_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("understudy.runtime.commands.http_servers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--http granian needs the package granian: pip install granian"):
        run_serve(DEMO, ServeOptions(http="granian", host="not.a.host.invalid"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_asks_to_stop(number: signal.Signals) -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), number)
        async with asyncio.timeout(PATIENCE):
            await signals.asked.wait()


def test_a_process_that_does_not_stop_in_its_time_is_ended() -> None:
    stubborn = """
import asyncio, os, signal, time
from understudy.runtime.commands.serve import StopSignals
async def main():
    with StopSignals(longest=0.2) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.asked.wait()
        time.sleep(60)
asyncio.run(main())
"""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", stubborn], timeout=30, check=False)
    assert done.returncode == 1
    assert time.monotonic() - started < 20


async def test_the_end_of_the_starting_process_asks_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = os.pipe()
    monkeypatch.setenv(LIFELINE, str(theirs))
    with StopSignals() as signals:
        assert LIFELINE not in os.environ
        await asyncio.sleep(0.01)
        assert not signals.asked.is_set()
        os.close(ours)
        async with asyncio.timeout(PATIENCE):
            await signals.asked.wait()


def test_every_option_reaches_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.runtime.Runtime", lambda server, **given: (server, given))
    options = ServeOptions(
        path="/x",
        event_log="off",
        event_log_age=60.0,
        event_log_size=2**20,
        session_ttl=1.0,
        idle_after=2.0,
        max_sessions=3,
        max_body=4,
        allowed_hosts=("a.example",),
        allowed_origins=("https://a.example",),
        tenant_labels=7,
        credential_check=9.0,
        tenant_cache=1000,
        tenant_cache_total=2000,
        blocking_threads=3,
    )
    made: Any = make_runtime(Target("m:a", "the server", None), "memory://", options, 8000)
    assert made == (
        "the server",
        {
            "path": "/x",
            "store": "memory://",
            "next_store": None,
            "former_store": None,
            "event_log": "off",
            "event_bounds": EventLogBounds(max_age=60.0, max_total_bytes=2**20),
            "session_ttl": 1.0,
            "idle_after": 2.0,
            "max_sessions": 3,
            "max_body": 4,
            "allowed_hosts": ("a.example",),
            "allowed_origins": ("https://a.example",),
            "tenant_labels": 7,
            "credential_check": 9.0,
            "cache": CacheBounds(max_bytes=1000, max_total_bytes=2000),
            "fairness": Fairness(blocking_threads=3),
        },
    )
    localhost_only: Any = make_runtime(Target("m:a", "s", None), "memory://", ServeOptions(), 8000)
    assert (localhost_only[1]["allowed_hosts"], localhost_only[1]["allowed_origins"]) == (None, None)


@pytest.mark.parametrize("name", list(HTTP_SERVERS))
async def test_sigterm_lets_the_call_in_flight_finish_and_loses_nothing(
    name: str, serve: Serve, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path / 'sessions.db'}"
    async with serve(DEMO, "--http", name, "--store", store) as server:
        async with Client(server.url, mode="legacy", read_timeout_seconds=PATIENCE) as client:
            assert await value(client, "increment") == 1
            begun = asyncio.Event()

            async def report(*_: object) -> None:
                begun.set()

            async with asyncio.TaskGroup() as tasks:
                arguments = {"steps": 4, "seconds": 0.4}
                call = tasks.create_task(client.call_tool("countdown", arguments, progress_callback=report))
                await begun.wait()
                server.terminate()
                assert await asyncio.to_thread(server.wait, PATIENCE) == 0
            assert call.result().structured_content == {"result": "lift-off"}
            await server.astart()
            assert await value(client, "increment") == 2
        assert "Traceback" not in server.output
        assert "every finished turn is saved" in server.output


async def test_a_second_signal_ends_the_process_at_once(serve: Serve) -> None:
    async with serve(DEMO, "--store", "memory://", fresh=True) as server, httpx.AsyncClient() as client:
        head = {"accept": "application/json, text/event-stream"}
        call = {"name": "countdown", "arguments": {"steps": 1, "seconds": 60}}
        opened = await client.post(server.url, headers=head, json=INITIALIZE)
        head["mcp-session-id"] = opened.headers["mcp-session-id"]
        body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}
        async with client.stream("POST", server.url, headers=head, json=body) as response:
            assert response.status_code == 200
            server.terminate()
            await asyncio.to_thread(said, server, "finishing turns")
            ready = await client.get(f"{server.base_url}/readyz")
            assert (ready.status_code, ready.json()["reasons"]) == (503, ["draining"])
            server.terminate()
            assert await asyncio.to_thread(server.wait, 5) == 128 + signal.SIGTERM


async def test_without_a_store_sessions_are_kept_in_a_private_file_that_is_named(serve: Serve, tmp_path: Path) -> None:
    server = serve(DEMO, env={"XDG_STATE_HOME": str(tmp_path)}, fresh=True)
    async with server, Client(server.url, mode="legacy") as client:
        assert await value(client, "increment") == 1
        files = await asyncio.to_thread(lambda: sorted((tmp_path / "understudy").iterdir()))
        assert f"sessions are kept in sqlite:///{files[0]} for 24h after their last use" in server.output
        assert files[0].name.startswith("demo-server-")
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        await server.akill()
        await server.astart()
        assert await value(client, "increment") == 2


async def test_json_logs_are_json_to_the_last_line_and_name_the_node(serve: Serve) -> None:
    async with serve(DEMO, "--store", "memory://", "--log-format", "json", fresh=True) as server:
        async with Client(server.url, mode="legacy") as client:
            await client.call_tool("fail")
        assert await server.astop() == 0
        lines = [json.loads(line) for line in server.output.splitlines()]
    assert {"ts", "level", "logger", "msg"} <= set(lines[0])
    assert [line["msg"] for line in lines][-1] == "stopped: every finished turn is saved"
    assert lines[-1]["node"]


async def test_https_is_served_with_the_certificate_given(serve: Serve, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    tls = ("--tls-cert", str(cert), "--tls-key", str(key))
    async with serve(DEMO, "--store", "memory://", *tls, ready=None) as server:
        url = server.url.replace("http://", "https://")
        context = ssl.create_default_context(cafile=str(cert))
        async with httpx.AsyncClient(verify=context, http2=True) as client:
            opened = await client.post(url, headers={"accept": "application/json, text/event-stream"}, json=INITIALIZE)
        assert (opened.status_code, opened.http_version) == (200, "HTTP/2")
        assert f"at {url} " in server.output


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--port", "{taken}"], 1, "address already in use"),
        (["--port", "0", "--store", "floppy://a"], 2, "floppy"),
        (["--port", "0", "--store", "sqlite:///{directory}"], 1, "{directory}"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line_and_an_exit_code(
    args: list[str], code: int, words: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = {"taken": taken.getsockname()[1], "directory": tmp_path}
        command = [sys.executable, "-m", "understudy.runtime", "serve", DEMO, "--log-level", "error"]
        command += [arg.format(**names) for arg in args]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert words.format(**names) in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


async def value(client: Client, tool: str) -> object:
    result = await client.call_tool(tool)
    assert result.structured_content is not None, result.content
    return result.structured_content["result"]


def said(server: ServerProcess, words: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while words not in server.output:
        assert time.monotonic() < deadline, server.output
        time.sleep(0.02)
