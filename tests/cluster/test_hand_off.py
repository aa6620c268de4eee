"""A drain that is taken back, or given up, leaves what has not moved as it was."""

from __future__ import annotations

import asyncio

import pytest
from cluster.household import household
from support.patience import PATIENCE
from understudy.actors.task_owner import TaskOwner
from understudy.stores import Address


async def test_a_drain_that_is_taken_back_leaves_a_busy_session_usable(nats_url: str) -> None:
    async with household(nats_url) as (here, there), asyncio.timeout(PATIENCE), TaskOwner() as tasks:
        client = here.client()
        await client.open()
        address = Address("session", client.session or "")
        held = client.begin_tool("hold")
        await here.stage.began.wait()
        cluster = here.runtime.cluster
        assert cluster is not None
        draining = tasks.spawn(cluster.drain())
        while not cluster.ownership.handing_off(address):
            await asyncio.sleep(0)
        draining.cancel()
        await asyncio.wait((draining,))
        cluster.undrain()
        here.stage.go_on.set()
        assert (await held.answered()).value == 1
        assert not cluster.ownership.handing_off(address)
        assert await there.same(client).tool("increment") == 1
        assert await client.tool("increment") == 2


async def test_what_waits_for_a_hand_off_at_a_node_that_leaves_has_not_run_and_runs_elsewhere(nats_url: str) -> None:
    """never-run-twice, and no-silent-loss: a rolling restart must not put in doubt what has not begun."""
    async with household(nats_url) as (here, there), asyncio.timeout(PATIENCE), TaskOwner() as tasks:
        client = here.client()
        await client.open()
        address = Address("session", client.session or "")
        client.begin_tool("hold")
        await here.stage.began.wait()
        cluster = here.runtime.cluster
        assert cluster is not None
        draining = tasks.spawn(cluster.drain())
        while not cluster.ownership.handing_off(address):
            await asyncio.sleep(0)
        elsewhere = there.same(client)
        waiting = elsewhere.begin_tool("increment")
        while not cluster.counts.forwards_served:
            await asyncio.sleep(0.01)
        await cluster.leave()
        draining.cancel()
        assert (await waiting.answered()).value == 1
        here.stage.go_on.set()


@pytest.mark.parametrize("revision", ["2025-11-25", "2025-06-18", "2025-03-26"])
@pytest.mark.parametrize("at_owner", [True, False])
async def test_a_stream_that_has_said_nothing_moves_with_the_call_that_waits(
    nats_url: str, at_owner: bool, revision: str
) -> None:
    async with household(nats_url) as (here, there), asyncio.timeout(PATIENCE), TaskOwner() as tasks:
        client = here.client()
        await client.open(revision)
        held = client.begin_tool("hold")
        await here.stage.began.wait()
        waiting = await (client if at_owner else there.same(client)).begin_tool("increment").started()
        cluster = here.runtime.cluster
        assert cluster is not None
        draining = tasks.spawn(cluster.drain())
        here.stage.go_on.set()
        assert (await waiting.answered()).value == 1
        assert (await held.answered()).value == 1
        await draining
        assert not here.owns(client.session)
