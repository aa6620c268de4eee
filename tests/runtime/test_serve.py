"""`serve`: binding, draining before stopping, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import Any

import pytest
from starlette.types import ASGIApp
from understudy.runtime.child import LIFELINE
from understudy.runtime.http_servers import TLS
from understudy.runtime.serve import BindError, StopSignals, bind, serve_until_stopped


class FakeNode:
    def __init__(self, said: list[str]) -> None:
        self.said = said
        self.drain_error: Exception | None = None

    @property
    def app(self) -> ASGIApp:
        async def app(scope: Any, receive: Any, send: Any) -> None: ...

        return app

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
    assert said == ["serving", "drain 7", "drained", "stopped"]


async def test_the_server_stops_even_if_draining_fails() -> None:
    said: list[str] = []
    node, asked = FakeNode(said), asyncio.Event()
    node.drain_error = OSError("the store is gone")
    asked.set()
    with bind("127.0.0.1", 0) as sock, pytest.raises(ExceptionGroup) as caught:
        await serve_until_stopped(node, server(said), sock, None, asked)
    assert caught.value.subgroup(OSError) is not None
    assert said[-1] == "stopped"


async def test_a_server_that_breaks_or_ends_by_itself_is_an_error() -> None:
    with bind("127.0.0.1", 0) as sock:
        for run in (server([], error=ValueError("bad certificate")), server([], ends=True)):
            with pytest.raises(ExceptionGroup) as caught:
                await serve_until_stopped(FakeNode([]), run, sock, None, asyncio.Event())
            assert caught.value.subgroup((ValueError, RuntimeError)) is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_asks_to_stop(number: signal.Signals) -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), number)
        async with asyncio.timeout(1):
            await signals.asked.wait()


async def test_the_end_of_the_starting_process_asks_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = os.pipe()
    monkeypatch.setenv(LIFELINE, str(theirs))
    with StopSignals() as signals:
        assert LIFELINE not in os.environ
        await asyncio.sleep(0.01)
        assert not signals.asked.is_set()
        os.close(ours)
        async with asyncio.timeout(1):
            await signals.asked.wait()
