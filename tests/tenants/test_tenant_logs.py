"""Log lines and spans say whose call they are about."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio.to_thread
import pytest
from cluster.household import household
from edge.client import hosting, hosting_modern
from edge.server import Stage, make_server
from mcp.server.mcpserver import MCPServer
from starlette.requests import Request
from support.server import ROOT
from understudy.actors.session import TenantContext
from understudy.runtime.streams.stream_log import StreamLog
from understudy.runtime.telemetry.asker import ASKER
from understudy.runtime.telemetry.logs import JSONFormatter, TextFormatter
from understudy.stores import MemoryEventLog

own = logging.getLogger("shop")


def who(request: Request) -> TenantContext:
    tenant, _, principal = request.headers["authorization"].removeprefix("Bearer ").partition("/")
    return TenantContext(tenant, principal)


@contextmanager
def logged(formatter: logging.Formatter | None = None) -> Iterator[list[dict[str, Any]]]:
    """The lines of the logger `shop`, as `serve` would write them; text is under `text`."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter or JSONFormatter())
    lines: list[dict[str, Any]] = []
    own.addHandler(handler)
    own.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        own.removeHandler(handler)
        text = stream.getvalue().splitlines()
        lines += [{"text": line} if formatter else json.loads(line) for line in text]


def shop(stage: Stage | None = None) -> MCPServer:
    server = make_server(stage)

    @server.tool()
    async def sell() -> str:
        own.info("in the tool")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(told_later())
        await anyio.to_thread.run_sync(own.info, "in its thread")
        return "sold"

    return server


async def told_later() -> None:
    own.info("in its task")


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_what_a_call_logs_says_whose_it_is(era: str) -> None:
    with logged() as lines:
        async with (hosting if era == "handshake" else hosting_modern)(shop(), tenants=who) as client:
            client.headers |= {"authorization": "Bearer acme/ann", "x-request-id": "r-1"}
            if era == "handshake":
                await client.open()
            await client.tool("sell")
            client.headers |= {"authorization": "Bearer rival/bob", "x-request-id": "r-2"}
            if era == "handshake":
                await client.open()
            await client.tool("sell")
    told = [(line["msg"], line["tenant"], line["principal"], line["request_id"]) for line in lines]
    words = ("in the tool", "in its task", "in its thread")
    assert told == [(word, "acme", "ann", "r-1") for word in words] + [(word, "rival", "bob", "r-2") for word in words]


async def test_the_owner_of_a_forwarded_call_logs_whose_it_is(nats_url: str) -> None:
    with logged() as lines:
        async with household(nats_url, 2, server=shop, tenants=lambda number: who) as (one, two):
            client = one.client()
            client.headers |= {"authorization": "Bearer acme/ann"}
            await client.open()
            await two.same(client).tool("sell", headers={"x-request-id": "r-9"})
    assert {(line["tenant"], line["principal"], line["request_id"]) for line in lines} == {("acme", "ann", "r-9")}


async def test_the_anonymous_tenant_is_not_named_and_nobody_is_outside_of_requests() -> None:
    with logged() as lines:
        async with hosting(shop()) as client:
            await client.open()
            await client.tool("sell")
        own.info("afterwards")
    assert not any("tenant" in line or "principal" in line for line in lines)
    assert len(lines) == 4


async def test_a_tenants_name_cannot_forge_a_line() -> None:
    name = "acme\n12:00:00.000 INFO    understudy: all is well\x1b[2J\u202e" + "x" * 500
    context = TenantContext(name, "ann\n{}")
    for formatter in (TextFormatter(), JSONFormatter()):
        token = ASKER.set(context)
        with logged(formatter) as lines:
            own.info("sold")
        ASKER.reset(token)
        (line,) = lines
        assert "\x1b" not in line["text"]
        assert "\u202e" not in line["text"]
        assert len(line["text"]) < 600


async def test_who_writes_the_streams_of_all_logs_in_nobodys_name() -> None:
    seen: list[TenantContext | None] = []

    async def work() -> None:
        seen.append(ASKER.get())

    async with StreamLog(MemoryEventLog(), writer=lambda: "me") as log:
        ASKER.set(TenantContext("acme", "ann"))
        log.spawn(work())
        await asyncio.sleep(0)
    ASKER.set(None)
    assert seen == [None]


SPANS = """
import asyncio, json
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, Tracer, TracerProvider

seen = []

class Span(NonRecordingSpan):
    def __init__(self, name, attributes):
        super().__init__(SpanContext(1, 1, False))
        self.kept = {"name": name, **(attributes or {})}
        seen.append(self.kept)
    def set_attribute(self, key, value):
        self.kept[key] = value

class Made(Tracer):
    def start_span(self, name, context=None, kind=None, attributes=None, *more, **options):
        return Span(name, attributes)
    def start_as_current_span(self, name, context=None, kind=None, attributes=None, *more, **options):
        return trace.use_span(self.start_span(name, attributes=attributes), end_on_exit=True)

class Provider(TracerProvider):
    def get_tracer(self, *given, **options):
        return Made()

trace.set_tracer_provider(Provider())

from edge.client import hosting, hosting_modern
from tenants.test_tenant_logs import shop, who

async def main():
    for hosted in (hosting, hosting_modern):
        async with hosted(shop(), tenants=who) as client:
            client.headers["authorization"] = "Bearer acme/ann"
            if hosted is hosting:
                await client.open()
            await client.tool("sell")
    print(json.dumps([span for span in seen if span["name"] == "tools/call sell"]))

asyncio.run(main())
"""


def test_a_span_says_whose_call_it_is_and_not_who_made_it() -> None:
    # In a process of its own: a tracer provider can be installed once.
    done = subprocess.run(
        [sys.executable, "-c", SPANS], cwd=ROOT / "tests", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    spans = json.loads(done.stdout.splitlines()[-1])
    assert [span["understudy.tenant"] for span in spans] == ["acme", "acme"]
    assert not any("ann" in str(value) for span in spans for value in span.values())
