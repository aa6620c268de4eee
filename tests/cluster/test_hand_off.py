"""A drain that is taken back, or given up, leaves what has not moved as it was."""

from __future__ import annotations

import asyncio

from cluster.household import household
from edge.call import PATIENCE
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
