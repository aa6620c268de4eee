"""What keeps a node from its cluster: one clear line that says what to do, and exit code 1."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from chaos.cluster import TARGET, ChaosCluster
from chaos.http import fetch
from chaos.load import HANDSHAKE, MODERN, Fate, Spray, open_sessions
from nats.js import JetStreamContext
from nats.js.errors import APIError
from support.forked_process import UNBUFFERED, run_process
from support.nats import fresh_name, nats_missing
from support.patience import PATIENCE
from support.server import ROOT, UNDERSTUDY
from understudy.runtime.commands.nats_server import NatsServer
from understudy.stores.nats.client import NatsClient
from understudy.stores.nats.connection import close, connect, jetstream
from understudy.stores.nats.settings import NatsSettings

pytestmark = pytest.mark.skipif(nats_missing() is not None, reason=nats_missing() or "")

NatsServers = Callable[..., NatsServer]


async def serve(*args: str, **env: str) -> tuple[int, str]:
    """Exit code and words of a node that should not come up."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UNDERSTUDY_")}
    command = [*UNDERSTUDY, TARGET, "--port", "0", *args]
    code, output, said = await run_process(command, cwd=ROOT, env={**kept, **UNBUFFERED, **env})
    assert output == ""
    return code, said


async def refusal(*args: str, code: int = 1, **env: str) -> str:
    """The one line that says why."""
    ended, said = await serve("--log-level", "error", *args, **env)
    assert ended == code, said
    (line,) = said.splitlines()
    assert line.startswith("understudy: ")
    return line


async def test_no_server(free_port: int):
    line = await refusal("--cluster", "shop", "--nats", f"nats://127.0.0.1:{free_port}")
    assert f"no NATS server at nats://127.0.0.1:{free_port}: start one, or correct the URL (--nats" in line


async def test_a_wrong_password(nats_servers: NatsServers):
    async with nats_servers(user="shop", password="right") as server:
        line = await refusal("--cluster", "shop", "--nats", server.url.replace("://", "://shop:wrong@"))
        assert "refused our credentials: check user and password" in line
        assert "wrong@" not in line
        line = await refusal("--cluster", "shop", "--nats", server.url)
        assert "refused our credentials" in line


async def test_a_nats_without_jetstream(nats_servers: NatsServers):
    async with nats_servers(jetstream=False) as server:
        line = await refusal("--cluster", "shop", "--nats", server.url)
        assert "runs without JetStream: start nats-server with -js" in line


async def test_a_store_of_one_process(nats_url: str):
    line = await refusal("--cluster", "shop", "--nats", nats_url, "--store", "memory://", code=2)
    assert "memory:// is one node's own" in line
    assert "name a store that all nodes reach" in line


async def test_a_file_in_a_cluster_of_several_machines(tmp_path: Path):
    line = await refusal(
        *("--cluster", "shop", "--nats", "nats://nats.example:4222"), *("--store", f"sqlite:///{tmp_path}/s.db"), code=2
    )
    assert "is a file of one machine" in line


async def test_a_file_that_is_not_the_others_file(tmp_path: Path):
    # A node that a busy machine holds up for longer than its lease has no say.
    async with ChaosCluster(tmp_path, nodes=1, store="sqlite", lease="30s") as cluster:
        common = ("--cluster", cluster.name, "--nats", cluster.nats.url, "--node", "node-2", "--lease", "30s")
        line = await refusal(*common, "--store", f"sqlite:///{tmp_path}/other.db", code=2)
        assert "keeps sessions in another store" in line
        assert "give all nodes one that each of them reaches" in line


async def test_the_id_of_a_node_that_lives(tmp_path: Path):
    async with ChaosCluster(tmp_path, nodes=1) as cluster:
        node = cluster.nodes[0]
        line = await refusal("--cluster", cluster.name, "--nats", cluster.nats.url, "--node", node.name)
        assert f"'{node.name}' is in use by process {node.pid}" in line
        assert "give each node an id of its own" in line


async def test_a_full_disk_at_start(nats_servers: NatsServers):
    async with nats_servers(max_file_store=1) as server:
        line = await refusal("--cluster", "shop", "--nats", server.url)
        assert re.search(r"no room|insufficient storage", line), line
        assert re.search(r"free its disk|max_file_store", line), line


async def test_a_disk_that_fills_up_is_told_of_and_when_there_is_room_again_all_goes_on(
    tmp_path: Path, nats_servers: NatsServers
):
    async with (
        nats_servers(max_file_store=4 * 2**20) as server,
        ChaosCluster(tmp_path, nodes=2, nats=server, lease="1s") as cluster,
        connected(server) as connection,
    ):
        with Spray(cluster.ports) as spray:
            clients = await open_sessions(spray, 4)
            assert [(await spray.call(client, "increment")).value for client in clients] == [1] * 4
            filler = await jetstream(connection)
            await filler.add_stream(name="filler", subjects=["filler"])
            await fill_up(filler)
            refused = await asyncio.gather(*(spray.call(client, "increment") for client in clients))
            assert {call.fate for call in refused} == {Fate.REFUSED}, refused
            async with asyncio.timeout(PATIENCE):
                while "NATS has no room" not in (said := await readiness(cluster)):
                    await asyncio.sleep(0.1)
            assert "free its disk, or raise max_file_store" in said
            await filler.delete_stream("filler")
            for client in clients:
                await spray.until_told(client, "mark", name="room")
                assert (await spray.call(client, "increment")).value == 2
        assert all(node.running for node in cluster.nodes)
        assert cluster.complaints() == []


async def fill_up(filler: JetStreamContext) -> None:
    for _ in range(40):
        try:
            await filler.publish("filler", b"x" * 250_000)
        except APIError:
            return
    raise AssertionError("the disk did not fill up")


@asynccontextmanager
async def connected(server: NatsServer) -> AsyncIterator[NatsClient]:
    connection = await connect(NatsSettings.from_url(server.url), name="filler")
    try:
        yield connection
    finally:
        await close(connection)


async def readiness(cluster: ChaosCluster) -> str:
    answer = await fetch(cluster.nodes[0].port, "/readyz")
    return answer.body.decode() if answer is not None else ""


async def test_two_clusters_on_one_nats_never_see_each_other(tmp_path: Path):
    async with (
        ChaosCluster(tmp_path / "a", nodes=1, name=fresh_name("a")) as one,
        ChaosCluster(tmp_path / "b", nodes=1, name=fresh_name("b"), nats=one.nats) as other,
    ):
        # The same node id in both; each is alone in its own.
        with Spray({"one": one.nodes[0].port}) as mine, Spray({"other": other.nodes[0].port}) as theirs:
            for client in await open_sessions(mine, 2, eras=(HANDSHAKE, MODERN)):
                assert (await mine.call(client, "increment")).value == 1
                stranger = await theirs.call(client, "increment")
                assert stranger.fate is Fate.WRONG, stranger
                assert re.search("Session not found|unknown", stranger.said, re.IGNORECASE), stranger
                assert (await mine.call(client, "count")).value == 1
        for cluster in (one, other):
            shown = await asyncio.create_subprocess_exec(
                UNDERSTUDY[0], "nodes", "--cluster", cluster.name, "--nats", cluster.nats.url, "--json",
                cwd=ROOT, stdout=subprocess.PIPE,
            )  # fmt: skip
            output, _ = await shown.communicate()
            assert output.count(b'"node-1"') == 1, output
