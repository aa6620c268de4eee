"""The other process of `understudy bench forward`: `python -m understudy.bench.counterpart JSON`.

It answers in three ways at once: raw nats-py requests, calls over a bare link, and, as a node of a cluster, what the
node in the measuring process forwards to it. So all that is compared has the same two processes at its ends. It says on
its standard output where each is reached, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

from nats.aio.msg import Msg

from ..runtime.cluster import ClusterOptions
from ..runtime.cluster.nats_api import subscribe
from ..runtime.link import InboundCall, Link, Seals
from ..runtime.link.nats_wire import NatsWire
from .clients import HandshakeClient
from .local_nats import connected, connected_raw
from .servers import ten_tools
from .sides import understudy_app

__all__ = ["LINK_PREFIX", "LINK_SEALS", "REPLY", "REPLY_HEADERS", "SESSIONS", "SUBJECT", "cluster_app_options"]

SUBJECT = "bench.raw"
LINK_PREFIX = "bench.bare"
LINK_SEALS = Seals("bench", [b"what is measured guards nothing."])
SESSIONS = 64
"""That the node in the counterpart has."""
OWNER = "owner.1"
"""The incarnation at this end of the bare link."""
REPLY = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {
            "content": [{"type": "text", "text": "The order is packed and leaves the house tomorrow, on Tuesday."}],
            "structuredContent": {"state": "packed", "leaves": "2026-07-28"},
            "isError": False,
        },
    }
).encode()
REPLY_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(REPLY)).encode())]


def cluster_app_options(nats: str, node: str) -> dict[str, Any]:
    """What makes an app of `understudy_app` a node of the benchmark's cluster."""
    return {
        "store": f"{nats}/bench-sessions",
        "node_id": node,
        "cluster": ClusterOptions("bench-forward", nats),
    }


async def answer_raw(message: Msg) -> None:
    """What a service does that uses nats-py by itself."""
    await message.respond(REPLY)


async def answer_call(call: InboundCall) -> None:
    """The least that a node can do with a forwarded call."""
    await call.receive()
    await call.send({"type": "http.response.start", "status": 200, "headers": REPLY_HEADERS})
    await call.send({"type": "http.response.body", "body": REPLY})


async def main() -> None:
    arguments = json.loads(sys.argv[1])
    nats: str = arguments["nats"]
    async with AsyncExitStack() as stack:
        raw = await stack.enter_async_context(connected_raw(nats))
        await subscribe(raw, SUBJECT, answer_raw)
        client = await stack.enter_async_context(connected(nats))
        wire = NatsWire(client, prefix=LINK_PREFIX)
        await stack.enter_async_context(Link(wire, me=OWNER, serve=answer_call, seals=LINK_SEALS))
        app = await stack.enter_async_context(
            understudy_app(ten_tools(sessions=True), **cluster_app_options(nats, "owner"))
        )
        sessions = [(await HandshakeClient.open(app)).session_id for _ in range(SESSIONS)]
        await raw.flush()
        await client.flush()
        print(json.dumps({"link": OWNER, "sessions": sessions}), flush=True)
        await _until_told(arguments.get("profile"))


async def _until_told(profile: str | None) -> None:
    """Until standard input ends. With `profile`, what is done between its first line and its end is profiled, into
    that file."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    if profile is None:
        await reader.read()
        return
    await reader.readline()
    profiler = cProfile.Profile()
    profiler.enable()
    await reader.readline()
    profiler.disable()
    profiler.dump_stats(profile)
    await reader.read()


if __name__ == "__main__":
    asyncio.run(main())
