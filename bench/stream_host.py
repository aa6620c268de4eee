"""One side of `understudy bench streams` or `noisy`, behind a real HTTP server: `python -m
understudy.bench.stream_host JSON`.

It says on its standard output which port it serves, and then answers each line of its standard input with one of JSON:
`cpu` with the processor time it has used, `resident` with its resident size. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from typing import Any, Literal

from ..runtime import Runtime
from ..runtime.commands.http_servers import HTTP_SERVERS
from ..runtime.commands.serve import bind
from ..runtime.edge import sse
from ..runtime.wire.http import SSE_HEADERS, disconnected
from .asgi import ASGIApp
from .noisy_loop import by_name
from .probe import resident_bytes
from .sdk_event_store import InMemoryEventStore
from .servers import ten_tools
from .sides import sdk_app
from .talkative import talkative_server

__all__ = ["BARE", "FAIR", "SDK", "UNDERSTUDY", "UNFAIR", "open_side"]

UNDERSTUDY, SDK, BARE = "understudy", "sdk", "bare"
FAIR, UNFAIR = "fair", "unfair"
"""understudy with tenants, who are what their credential says, with and without fair queues."""
HOST = "127.0.0.1"
_PLENTY = 1_000_000


def open_side(side: str, store: str = "memory://") -> AbstractAsyncContextManager[ASGIApp]:
    """The app of one side. All but the bare one host the same server."""
    return _SIDES[side](store)


@asynccontextmanager
async def _understudy(store: str) -> AsyncGenerator[ASGIApp]:
    runtime = Runtime(talkative_server(), store=store, max_sessions=_PLENTY)
    async with runtime:
        yield runtime.app


@asynccontextmanager
async def _sdk(store: str) -> AsyncGenerator[ASGIApp]:
    async with sdk_app(talkative_server(), json_response=False, event_store=InMemoryEventStore()) as app:

        async def entry(scope: Any, receive: Any, send: Any) -> None:
            # uvicorn takes a bound method for ASGI 2.
            await app(scope, receive, send)

        yield entry


@asynccontextmanager
async def _bare(store: str) -> AsyncGenerator[ASGIApp]:
    yield _wait_for_the_end


async def _wait_for_the_end(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """The least that an app can do for an open stream: its head, one event, then nothing until the client leaves."""
    await send({"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)})
    await send({"type": "http.response.body", "body": b"retry: 3000\ndata: \n\n", "more_body": True})
    await disconnected(receive)


def _tenants(fairness: Literal["equal", "off"]) -> Callable[[str], AbstractAsyncContextManager[ASGIApp]]:
    @asynccontextmanager
    async def side(store: str) -> AsyncGenerator[ASGIApp]:
        server = ten_tools(sessions=True)
        runtime = Runtime(server, store=store, max_sessions=_PLENTY, tenants=by_name, fairness=fairness)
        async with runtime:
            # As `understudy serve` does: otherwise each full collection walks all that start-up has made.
            gc.collect()
            gc.freeze()
            yield runtime.app

    return side


_SIDES: dict[str, Callable[[str], AbstractAsyncContextManager[ASGIApp]]] = {
    UNDERSTUDY: _understudy,
    SDK: _sdk,
    BARE: _bare,
    FAIR: _tenants("equal"),
    UNFAIR: _tenants("off"),
}


async def main(side: str, http: str, store: str = "memory://", keep_alive: float | None = None) -> None:
    if keep_alive is not None:
        # No option of the runtime: here it only serves to see a node at rest without them.
        assert "KEEP_ALIVE" in sse.__dict__, "the runtime keeps this bound elsewhere by now"
        sse.__dict__["KEEP_ALIVE"] = keep_alive
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    stop = asyncio.Event()
    async with open_side(side, store) as app, asyncio.TaskGroup() as tasks:
        sock = bind(HOST, 0)
        port = sock.getsockname()[1]
        tasks.create_task(HTTP_SERVERS[http](app, sock, None, stop))
        _say(port)
        while command := (await commands.readline()).strip():
            if command == b"resident":
                _say(resident_bytes())
            elif command == b"collect":
                gc.collect()
                _say(None)
            else:
                _say(time.process_time())
        stop.set()


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop that `understudy serve` takes."""
    if find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main(**json.loads(sys.argv[1])))
