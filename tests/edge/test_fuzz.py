"""10,000 requests that are nearly right: each gets one answer, none of it a fault of ours, and nothing is left behind.

    UNDERSTUDY_FUZZ_SEED=7 UNDERSTUDY_FUZZ_REQUESTS=100000 pytest tests/edge/test_fuzz.py

plays other requests than usual, or a failed run again.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections import Counter
from random import Random
from typing import Any

import pytest
from edge.call import Connections, HTTPCall, scope
from edge.client import ModernClient, connected, hosting
from edge.fuzzer import Fuzzed, Fuzzer
from edge.server import Stage, make_server
from support.patience import PATIENCE
from understudy.runtime import Runtime

SEED = int(os.environ.get("UNDERSTUDY_FUZZ_SEED", "20260728"))
REQUESTS = int(os.environ.get("UNDERSTUDY_FUZZ_REQUESTS", "10000"))
OURS = ("understudy.stores", "understudy.actors", "understudy.runtime")


def send(connections: Connections, request: Fuzzed) -> HTTPCall:
    call = HTTPCall(scope(request.method, request.path, request.headers), request.parts)
    connections.start(call)
    if request.leaves:
        asyncio.get_running_loop().call_soon(call.disconnect)
    return call


async def seen_through(call: HTTPCall) -> HTTPCall:
    """Once it is answered. A stream that would stay open is left after a while."""
    turns = 0
    async with asyncio.timeout(PATIENCE):
        while not call.returned:
            await asyncio.sleep(0 if turns < 200 else 0.01)
            turns += 1
            if call.status == 200 and call.kind == "text/event-stream" and turns > 60:
                call.disconnect()
    if call.error is not None:
        raise call.error
    return call


def check(call: HTTPCall, request: Fuzzed) -> None:
    streams = call.kind == "text/event-stream"
    if request.leaves and not call.status:
        return
    assert 200 <= call.status < 500 or call.status == 503, (call.status, call.body)
    assert call.complete or streams
    if streams:
        assert call.status == 200
        call.events  # noqa: B018  (parses them)
    elif call.kind == "application/json" and request.path.startswith("/mcp"):
        assert call.json["jsonrpc"] == "2.0"
        if call.status >= 400:
            assert call.json["error"]["message"]
    if call.status in (429, 503):
        assert call.header("retry-after") or call.json.get("ready") is False
    if call.status == 405:
        assert call.header("allow")


def remember(fuzzer: Fuzzer, call: HTTPCall) -> None:
    """Ids that came in answers are used in later requests."""
    if call.status != 200:
        return
    if (id := call.header("mcp-session-id")) is not None:
        fuzzer.sessions = [*fuzzer.sessions[-7:], id]
    if call.kind == "text/event-stream":
        fuzzer.events = [*fuzzer.events[-7:], *(event.id for event in call.events[-1:] if event.id)]
    elif b"expires_in_seconds" in call.body and "structuredContent" in call.json.get("result", {}):
        fuzzer.handles = [*fuzzer.handles[-7:], call.result["structuredContent"]["session"]]


async def settle(runtime: Runtime) -> None:
    """End all sessions and let the kept streams' time pass: what is left then has no reason to be there."""
    registry: Any = runtime._node.registry
    async with asyncio.timeout(PATIENCE):
        # Before they end: none may count a call as running that was answered long ago.
        while any(cell.task or cell.shared_count or cell.actor.calls_in_flight for cell in registry._cells.values()):
            await asyncio.sleep(0.01)
    store: Any = runtime._node.store
    while page := (await store.list()).records:
        for record in page:
            await registry.end(record.address)
    for address in list(registry._cells):
        await registry.end(address)
    streams: Any = runtime._node.resumable.table
    clock = streams._left._clock
    streams._left._clock = lambda: clock() + 3600.0
    streams.sweep()
    streams._left._clock = clock
    # Streams that nobody came back for stay in the log for as long as it keeps them.
    store.events._clock = lambda: time.time() + 3600.0
    await store.events.expire(limit=100_000)
    store.events._clock = time.time
    await runtime._node.resumable.flush(10)
    runtime._node.relay._sweep()
    async with asyncio.timeout(PATIENCE):
        while runtime.stats()["stateless_calls_running"] or runtime.stats()["listening_streams"]:
            await asyncio.sleep(0.01)
    for _ in range(20):
        await asyncio.sleep(0)


def left_behind(runtime: Runtime) -> Counter[str]:
    """What may not grow: our objects by class, tasks, and the sizes of the tables."""
    gc.collect()
    found = Counter(
        f"{type(thing).__module__}.{type(thing).__qualname__}"
        for thing in gc.get_objects()
        if str(type(thing).__module__).startswith(OURS)
    )
    # Spellings of `Accept` that are remembered, 256 at most.
    del found["understudy.runtime.wire.media.Accepted"]
    edge: Any = runtime.edge
    stats = runtime.stats()
    found["tasks"] = len(asyncio.all_tasks())
    for name in ("sessions_live", "sessions_waiting", "sessions_refused_addresses"):
        found[name] = int(stats[name])
    for name in ("stateless_calls_running", "listening_streams"):
        found[name] = int(stats[name])
    for name in ("streams_sessions", "streams_kept", "streams_kept_bytes"):
        found[name] = int(stats[name])
    for leg in (edge._handshake, edge._modern):
        found["waiting for a first message"] += len(leg._posts._deferral)
        found["waiting for a body"] += len(leg._posts._bodies._patience) + len(leg._posts._bodies._late)
    found["waking"] = len(edge._handshake._sessions._waking)
    return found


async def test_ten_thousand_odd_requests_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    print(f"UNDERSTUDY_FUZZ_SEED={SEED}")
    stage = Stage()
    stage.go_on.set()
    statuses: Counter[int] = Counter()
    logging.getLogger("mcp").setLevel(logging.CRITICAL + 1)
    async with (
        hosting(make_server(stage), max_sessions=200) as client,
        connected(client.runtime.app, ModernClient) as modern,
    ):
        runtime = client.runtime
        for warm_up in (True, False):
            fuzzer = Fuzzer(Random(SEED))
            played = 0
            while played < (300 if warm_up else REQUESTS):
                while len(fuzzer.sessions) < 3:
                    await client.open()
                    fuzzer.sessions.append(client.session or "")
                while len(fuzzer.handles) < 2:
                    fuzzer.handles.append(await modern.handle())
                requests = [fuzzer.request() for _ in range(fuzzer.random.choice([1, 1, 2, 8]))]
                calls = [send(client._connections, request) for request in requests]
                for request, call in zip(requests, calls, strict=True):
                    played += 1
                    try:
                        check(await seen_through(call), request)
                    except BaseException:
                        print(f"request {played}: {request}")
                        raise
                    remember(fuzzer, call)
                    statuses[call.status] += not warm_up
                    if (call.status == 200 and request.method == "DELETE") or played % 50 == 0:
                        fuzzer.sessions = fuzzer.sessions[1:]
                        fuzzer.handles = fuzzer.handles[1:]
            caplog.clear()
            await settle(runtime)
            if warm_up:
                before = left_behind(runtime)
        grown = left_behind(runtime) - before
        print(statuses)
        assert not grown
        assert statuses[200] > REQUESTS / 5, "or the requests were too odd to reach anything"
        assert {400, 404, 405, 406, 415, 202} <= statuses.keys()
        await client.open()
        assert [await client.tool("increment") for _ in range(3)] == [1, 2, 3]
        assert await modern.tool("increment", {"session": await modern.handle()}) == 1
