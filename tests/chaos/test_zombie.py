"""A node that hangs in the middle of a turn, is given up, and comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from chaos.cluster import ChaosCluster
from chaos.load import Fate, Spray, open_sessions
from chaos.sleepers import gauge
from support.nats import nats_missing

pytestmark = pytest.mark.skipif(nats_missing() is not None, reason=nats_missing() or "")


async def test_a_zombie_that_wakes_in_the_middle_of_a_turn_writes_nothing(tmp_path: Path):
    async with ChaosCluster(tmp_path, lease="1s") as cluster:
        zombie, other, third = cluster.nodes
        with Spray(cluster.ports) as spray:
            clients = await open_sessions(spray, 4, at=zombie.name)
            for client in clients:
                assert (await spray.call(client, "increment", node=other.name)).value == 1
            slow = asyncio.gather(
                *(
                    spray.call(client, "slowly_increment", node=node, seconds=1.0)
                    for client, node in zip(clients, (zombie.name, zombie.name, other.name, other.name), strict=True)
                )
            )
            await asyncio.sleep(0.5)
            zombie.pause()
            try:
                # Whoever is asked first waits for the lease; then the sessions live elsewhere.
                for client in clients:
                    taken = await spray.until_told(client, "whoami", node=other.name)
                    assert taken["node"] in (other.name, third.name)
                    assert (await spray.call(client, "increment", node=third.name)).value == 2
            finally:
                zombie.resume()
            for client, call in zip(clients, await slow, strict=True):
                # It ran, and what it changed was refused; or nobody knows, as its node was gone.
                assert call.fate in (Fate.REFUSED, Fate.UNKNOWN), call
                assert await spray.until_told(client, "count") == 2
                # The zombie serves what others own now, and by what they know.
                assert (await spray.call(client, "count", node=zombie.name)).value == 2
                assert (await spray.call(client, "increment", node=zombie.name)).value == 3
            assert await gauge(cluster, "understudy_cluster_lease_losses_total") == 1
        assert cluster.complaints() == []


async def test_a_node_that_missed_losing_its_sessions_finds_out_within_a_lease(tmp_path: Path):
    async with ChaosCluster(tmp_path, nodes=2, lease="2s", proxied=True) as cluster:
        deaf, other = cluster.nodes
        assert deaf.proxy is not None
        with Spray(cluster.ports) as spray:
            clients = await open_sessions(spray, 4, at=deaf.name)
            for client in clients:
                assert (await spray.call(client, "increment", node=other.name)).value == 1
            deaf.proxy.cut()
            # Nobody is found there, so the sessions are taken at once; and it is back before its lease is over.
            for client in clients:
                assert await spray.until_told(client, "whoami", node=other.name) == {
                    "node": other.name,
                    "session": client.session,
                }
                assert (await spray.call(client, "increment", node=other.name)).value == 2
            deaf.proxy.restore()
            await asyncio.sleep(cluster.lease)
            for client in clients:
                # From memory it would still be 1.
                assert (await spray.call(client, "count", node=deaf.name)).value == 2
                assert (await spray.call(client, "increment", node=deaf.name)).value == 3
        assert cluster.complaints() == []
