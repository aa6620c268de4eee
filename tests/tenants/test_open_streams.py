"""Open streams end with their credential, at whatever node, and what was under way is there when the client is back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cluster.household import household
from edge.call import HTTPCall
from edge.client import Client, ModernClient, connected, hosting
from edge.server import Stage, make_server
from starlette.requests import Request
from understudy.actors.task_owner import TaskOwner
from understudy.actors.testing import ManualClock, settle
from understudy.runtime import (
    ApiKey,
    ApiKeys,
    CredentialUnchecked,
    Forbidden,
    Runtime,
    TenantContext,
    Unauthenticated,
    new_api_key,
)
from understudy.runtime.edge.open_streams import OpenStreams

ADA = "Bearer ada"
NOON = 1000.0
STEPS = {"before": 1, "after": 1}


class Bearers:
    """A resolver whose credentials come, change and go, and who is asked counts."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {ADA: TenantContext("acme", "ada"), "Bearer bob": TenantContext("acme", "bob")}
        self.asked = 0

    def __call__(self, request: Request) -> TenantContext:
        self.asked += 1
        told = self.known.get(request.headers.get("authorization") or "")
        if told is None:
            raise Unauthenticated
        if isinstance(told, Exception):
            raise told
        return told


class House:
    """What decides on the streams of a node, by a clock of the test's."""

    def __init__(self, runtime: Runtime, bearers: Bearers) -> None:
        self.clock = ManualClock()
        self.wall = NOON
        self.bearers = bearers
        self.streams = OpenStreams(bearers, clock=self.clock, wall=lambda: self.wall)
        edge: Any = runtime.edge
        edge._open_streams = self.streams

    async def pass_time(self, seconds: float) -> None:
        while seconds > 0:
            step = min(seconds, 20.0)
            self.wall += step
            await self.clock.advance(step)
            seconds -= step


@asynccontextmanager
async def running(*runtimes: Runtime, bearers: Bearers) -> AsyncIterator[list[House]]:
    async with TaskOwner() as tasks:
        houses = [House(runtime, bearers) for runtime in runtimes]
        work = [tasks.spawn(house.streams.run()) for house in houses]
        try:
            yield houses
        finally:
            for each in work:
                each.cancel()


@asynccontextmanager
async def one_house(kind: type[Client] = Client) -> AsyncIterator[tuple[Any, House, Stage]]:
    bearers, stage = Bearers(), Stage()
    async with (
        Runtime(make_server(stage), tenants=bearers) as runtime,
        running(runtime, bearers=bearers) as (house,),
        connected(runtime.app, kind) as client,
    ):
        client.headers["authorization"] = ADA
        yield client, house, stage
        stage.go_on.set()


async def ended(call: HTTPCall) -> None:
    """Its end is one that a client takes for an end, between two events."""
    await call.until(lambda: call.complete)
    await call.done()
    assert call.error is None
    assert not call.body or call.body.endswith(b"\n\n")


async def listening(client: ModernClient) -> HTTPCall:
    call = client.begin("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id="listen")
    await call.message("notifications/subscriptions/acknowledged")
    return call


# What ends them


async def test_a_standing_stream_ends_when_its_credential_expires_and_the_client_gets_401() -> None:
    async with one_house() as (client, house, _):
        house.bearers.known[ADA] = TenantContext("acme", "ada", expires=4e9)
        await client.open()
        house.wall = 4e9 - 10
        stream = await client.start("GET").started()
        await house.pass_time(9)
        assert not stream.complete
        await house.pass_time(2)
        await ended(stream)
        house.bearers.known[ADA] = None
        assert (await client.send("GET", headers={"last-event-id": stream.events[-1].id})).status == 401
        house.bearers.known[ADA] = TenantContext("acme", "ada")
        assert await client.tool("increment") == 1
        assert house.streams.stats()["streams_expired_total"] == 1


@pytest.mark.parametrize("verdict", [None, Forbidden(), TenantContext("acme", "eve"), TenantContext("evil", "ada")])
async def test_a_stream_ends_when_its_credential_is_another_ones_or_worth_nothing_any_more(verdict: Any) -> None:
    async with one_house() as (client, house, _):
        await client.open()
        stream = await client.start("GET").started()
        house.bearers.known[ADA] = verdict
        await house.pass_time(55)
        assert not stream.complete
        await house.pass_time(10)
        await ended(stream)
        assert house.streams.stats()["streams_revoked_total"] == 1


@pytest.mark.parametrize("fault", [CredentialUnchecked(), RuntimeError("the directory is away")])
async def test_a_credential_that_cannot_be_checked_keeps_its_streams(
    fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with one_house() as (client, house, _):
        await client.open()
        stream = await client.start("GET").started()
        house.bearers.known[ADA] = fault
        with caplog.at_level(logging.INFO):
            await house.pass_time(130)
        assert "cannot be checked now" in caplog.text
        assert not stream.complete
        house.bearers.known[ADA] = None
        await house.pass_time(61)
        await ended(stream)


async def test_a_resolver_that_never_answers_keeps_no_stream_past_its_expiry() -> None:
    async with one_house() as (client, house, _):
        house.bearers.known[ADA] = TenantContext("acme", "ada", expires=4e9)
        await client.open()
        house.wall = 4e9 - 100
        stream = await client.start("GET").started()

        async def never(request: Request) -> TenantContext:
            await asyncio.Event().wait()
            raise AssertionError

        house.streams._resolver = never
        await house.pass_time(99)
        assert not stream.complete
        await house.pass_time(2)
        await ended(stream)


async def test_a_credential_that_lasts_longer_now_keeps_its_streams() -> None:
    async with one_house() as (client, house, _):
        house.bearers.known[ADA] = TenantContext("acme", "ada", expires=4e9)
        await client.open()
        house.wall = 4e9 - 100
        stream = await client.start("GET").started()
        house.bearers.known[ADA] = TenantContext("acme", "ada", expires=4e9 + 1e6)
        await house.pass_time(1000)
        assert not stream.complete


async def test_others_streams_go_on() -> None:
    async with one_house() as (client, house, _):
        bob = client.twin(authorization="Bearer bob")
        streams = []
        for each in (client, bob):
            await each.open()
            streams.append(await each.start("GET").started())
        house.bearers.known[ADA] = None
        await house.pass_time(61)
        await ended(streams[0])
        assert not streams[1].complete
        await bob.begin_tool("announce").answered()
        await streams[1].message("notifications/tools/list_changed")


# What becomes of calls


@pytest.mark.parametrize("revoked", [False, True])
async def test_a_call_goes_on_to_its_end_and_its_result_is_there_for_who_comes_back(revoked: bool) -> None:
    async with one_house() as (client, house, stage):
        house.bearers.known[ADA] = TenantContext("acme", "ada", expires=4e9)
        await client.open()
        house.wall = 4e9 - 100
        call = client.begin_tool("report", STEPS, token="t")
        await call.message("notifications/progress")
        if revoked:
            house.bearers.known[ADA] = None
        await house.pass_time(61 if revoked else 101)
        await ended(call)
        assert not any("result" in message for message in call.messages)
        house.bearers.known[ADA] = TenantContext("acme", "ada")
        stage.go_on.set()
        again = await client.send("GET", headers={"last-event-id": call.events[-1].id})
        assert again.result["content"][0]["text"] == "reported"


async def test_a_call_that_nobody_could_come_back_for_outlives_its_credential_by_itself() -> None:
    """A stream of an earlier revision, or of the modern era, is the only way to its outcome."""
    for kind, revision in ((Client, "2025-06-18"), (ModernClient, None)):
        async with one_house(kind) as (client, house, stage):
            house.bearers.known[ADA] = TenantContext("acme", "ada", expires=4e9)
            if revision is not None:
                await client.open(revision)
            house.wall = 4e9 - 100
            call = client.begin_tool("report", STEPS, token="t")
            await call.message("notifications/progress")
            await house.pass_time(200)
            assert not call.complete
            stage.go_on.set()
            await call.done()
            assert call.result["content"][0]["text"] == "reported"


async def test_a_modern_call_whose_credential_is_revoked_is_cancelled() -> None:
    async with one_house(ModernClient) as (client, house, stage):
        call = client.begin_tool("report", STEPS, token="t")
        await call.message("notifications/progress")
        house.bearers.known[ADA] = None
        await house.pass_time(61)
        await ended(call)
        assert (stage.running, stage.cancelled, stage.finished) == (0, 1, 0)


async def test_who_only_listens_ends_with_the_credential_in_the_modern_era_too() -> None:
    async with one_house(ModernClient) as (client, house, _):
        house.bearers.known[ADA] = TenantContext("acme", "ada", expires=4e9)
        house.wall = 4e9 - 10
        stream = await listening(client)
        await house.pass_time(11)
        await ended(stream)
        assert client.headers
        assert house.streams.stats()["streams_watched"] == 0


# At the edge of a cluster


async def test_a_stream_that_another_node_serves_ends_at_the_node_that_the_client_reached(nats_url: str) -> None:
    bearers = Bearers()
    async with (
        household(nats_url, 2, tenants=lambda number: bearers) as nodes,
        running(*(node.runtime for node in nodes), bearers=bearers) as (_, far),
    ):
        client = nodes[0].client()
        client.headers["authorization"] = ADA
        await client.open()
        other = nodes[1].same(client)
        standing = await other.start("GET").started()
        call = other.begin_tool("report", STEPS, token="t")
        await call.message("notifications/progress")
        assert not nodes[1].owns(client.session)
        bearers.known[ADA] = None
        await far.pass_time(61)
        await ended(standing)
        await ended(call)
        bearers.known[ADA] = TenantContext("acme", "ada")
        nodes[0].stage.go_on.set()
        again = await other.send("GET", headers={"last-event-id": call.events[-1].id})
        assert again.result["content"][0]["text"] == "reported"
        assert (await other.start("GET").started()).status == 200


# What it costs


async def test_a_credential_is_asked_about_once_however_many_streams_it_has() -> None:
    async with one_house() as (client, house, _):
        clients = [client.twin(authorization=ADA) for _ in range(20)]
        for each in clients:
            await each.open()
            await each.start("GET").started()
        assert house.streams.stats()["streams_watched_credentials"] == 1
        before = house.bearers.asked
        await house.pass_time(61)
        assert house.bearers.asked - before == 1


async def test_without_open_streams_nothing_is_kept_and_no_timer_runs() -> None:
    async with one_house() as (client, house, _):
        await client.open()
        assert await client.tool("increment") == 1
        await settle()
        assert house.clock.timers == 0
        stream = await client.start("GET").started()
        stream.disconnect()
        await stream.done()
        await house.pass_time(5)
        stats = house.streams.stats()
        assert (stats["streams_watched"], stats["streams_watched_credentials"], house.clock.timers) == (0, 0, 0)


async def test_a_key_taken_out_of_the_list_ends_the_streams_that_were_opened_with_it() -> None:
    ada, bob = new_api_key(), new_api_key()
    both = [ApiKey.of(ada, TenantContext("acme", "ada")), ApiKey.of(bob, TenantContext("acme", "bob"))]
    keys = ApiKeys(both)
    async with hosting(make_server(), tenants=keys) as client, TaskOwner() as tasks:
        clock = ManualClock()
        edge: Any = client.runtime.edge
        edge._open_streams = streams = OpenStreams(keys, clock=clock)
        work = tasks.spawn(streams.run())
        held = []
        for key in (ada, bob):
            one = client.twin(authorization=f"Bearer {key}")
            await one.open()
            held.append(await one.start("GET").started())
        keys.replace(both[1:])
        streams.check_soon("globex")
        await clock.advance(2)
        assert not held[0].complete
        streams.check_soon("acme")
        await clock.advance(2)
        await ended(held[0])
        assert not held[1].complete
        work.cancel()


async def test_the_runtime_looks_by_itself() -> None:
    bearers = Bearers()
    async with hosting(make_server(), tenants=bearers, credential_check=0.01) as client:
        client.headers["authorization"] = ADA
        await client.open()
        stream = await client.start("GET").started()
        assert client.runtime.stats()["streams_watched"] == 1
        bearers.known[ADA] = None
        await ended(stream)
        assert b"understudy_streams_revoked_total 1.0" in client.runtime.metrics()[0]


async def test_a_client_that_takes_nothing_does_not_hold_up_the_end_of_others() -> None:
    async with one_house() as (client, house, _):
        await client.open()
        other = client.twin(authorization=ADA)
        await other.open()
        client.start("GET", reads=False)
        stream = await other.start("GET").started()
        house.bearers.known[ADA] = None
        await house.pass_time(61)
        await ended(stream)
