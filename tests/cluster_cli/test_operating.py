"""Looking at a running cluster and treating it as its operator may."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from support.patience import PATIENCE
from understudy.runtime.commands.finding import find_cluster
from understudy.runtime.commands.nats_options import NatsOptions
from understudy.runtime.commands.nats_server import NatsServer
from understudy.runtime.commands.operator import TIMEOUT, Operator
from understudy.runtime.commands.operator_errors import OperatorError
from understudy.stores.nats.connection import close, connect, jetstream
from understudy.stores.nats.errors import JetStreamMissing
from understudy.stores.nats.settings import NatsSettings

Cluster = Any


def eventually(condition: Callable[[], object]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)
    return found


def test_nodes_are_listed_with_what_an_operator_asks_first(three: Cluster) -> None:
    nodes = three.nodes()
    assert list(nodes) == ["node-1", "node-2", "node-3"]
    for node in nodes.values():
        assert (node["state"], node["draining"], node["lease"]) == ("up", False, 3.0)
        assert 0 <= node["lease_age"] < 3.0
        assert httpx.get(node["url"].replace("/mcp", "/healthz")).status_code == 200
        os.kill(node["pid"], 0)
    lines = three.run("nodes").stdout.splitlines()
    assert re.split(r"  +", lines[0]) == [
        "NODE", "STATE", "PID", "URL", "SESSIONS", "LEASE AGE", "INCARNATION", "VERSION",
    ]  # fmt: skip
    assert [line.split()[:2] for line in lines[1:]] == [["node-1", "up"], ["node-2", "up"], ["node-3", "up"]]


def test_a_session_is_listed_where_it_lives_and_its_id_stays_secret(three: Cluster) -> None:
    session = three.open("node-2")
    session.call("increment")
    (row,) = [row for row in three.said("sessions")["sessions"] if session.id.startswith(row["id"])]
    assert row["id"] == session.id[:8]
    assert (row["node"], row["state"], row["tenant"], row["waiting"]) == ("node-2", "idle", "anonymous", 0)
    assert row["expires"] - row["updated"] == pytest.approx(86400.0, abs=5.0)
    for args in (("sessions",), ("sessions", "--node", "node-2"), ("session", "show", session.id)):
        shown = three.run(*args).stdout
        assert session.id[:8] in shown
        assert session.id not in shown
        assert session.id in three.run(*args, "--full").stdout


def test_sessions_are_narrowed_to_a_node_a_tenant_or_a_number(three: Cluster) -> None:
    here, there = three.open("node-1"), three.open("node-3")
    listed = {row["id"] for row in three.said("sessions", "--node", "node-1", "--full")["sessions"]}
    assert here.id in listed
    assert there.id not in listed
    assert three.run("sessions", "--tenant", "nobody").stdout == "no sessions\n"
    few = three.said("sessions", "--limit", "1")
    assert (len(few["sessions"]), few["more"]) == (1, True)
    assert "there are more than 1 session; see --limit and --tenant" in three.run("sessions", "--limit", "1").stdout


def test_the_beginning_of_an_id_is_enough_if_it_is_the_only_one(three: Cluster) -> None:
    session = three.open("node-1")
    said = three.said("session", "show", session.id[:8])
    assert (said["id"], said["node"], said["state"]) == (session.id[:8], "node-1", "idle")
    for given, words in (
        (session.id[:5], "give at least 6 characters"),
        ("zzzzzzzz", "there is no session that begins with 'zzzzzzzz'"),
        ("z" * 32, "there is no session zzzzzzzz"),
        ("-hzzzzzz", "there is no session that begins with '-hzzzzzz'"),
        ("--zzZzzz_1", "there is no session that begins with '--zzZzzz_1'"),
        ("\x00" * 40, "visible ASCII"),
        ("x" * 3000, f"'{'x' * 40}...' is no session's id"),
        ("no such", "'no such' is no session's id"),
    ):
        refused = three.run("session", "show", given)
        assert (refused.exit_code, words in refused.stderr) == (1, True), refused.output
    for option in ("--jsn", "--ful-l", "-x"):
        misspelt = three.run("session", "show", session.id, option)
        assert (misspelt.exit_code, "No such option" in misspelt.stderr) == (2, True), misspelt.output


def test_a_session_ends_wherever_it_is_and_its_client_is_told(three: Cluster) -> None:
    for node in ("node-1", "node-3"):
        session = three.open(node)
        assert session.call("increment") == 1
        assert three.run("session", "end", session.id[:10]).stdout == f"ended {session.id[:8]}\n"
        assert session.call("increment") == 404
        again = three.run("session", "end", session.id)
        assert (again.exit_code, again.stderr) == (1, f"understudy: there is no session {session.id[:8]}\n")


def test_a_drained_node_moves_its_sessions_and_forwards_until_that_is_undone(three: Cluster) -> None:
    sessions = [three.open("node-1") for _ in range(20)]
    assert [session.call("increment") for session in sessions] == [1] * 20
    url = three.nodes()["node-1"]["url"]
    done = three.run("drain", "node-1", "--wait")
    assert (done.exit_code, "node-1 is empty: " in done.stdout) == (0, True), done.output
    assert three.nodes()["node-1"]["state"] == "draining"
    assert httpx.get(url.replace("/mcp", "/readyz")).status_code == 503
    assert three.said("sessions", "--node", "node-1")["sessions"] == []
    assert [session.call("increment", url=url) for session in sessions] == [2] * 20
    assert three.open("node-1").call("whoami")["node"] != "node-1"

    undone = three.run("drain", "node-1", "--undo")
    assert undone.stdout == "node-1 takes new sessions again\n"
    assert httpx.get(url.replace("/mcp", "/readyz")).status_code == 200
    assert three.open("node-1").call("whoami")["node"] == "node-1"


def test_the_key_of_request_state_is_changed_on_command(three: Cluster) -> None:
    first = three.run("rotate-keys")
    found = re.match(
        r"requestState is sealed with a new key \((\w+)\)|a new key \((\w+)\) is opened with", first.stdout
    )
    assert (first.exit_code, found is not None) == (0, True), first.output
    assert found is not None
    made = found[1]
    # The command waits some seconds for nodes that are slow; the change itself as long as it takes.
    eventually(lambda: keys(three)["seals"] == made)
    assert three.said("rotate-keys")["begun"]
    after = eventually(lambda: (now := keys(three))["seals"] != made and not now["changing"] and now)
    assert (after["seals"], after["waiting_for"]) == (after["opens"][0], [])
    assert made in after["opens"][1:]


def keys(cluster: Cluster) -> dict[str, Any]:
    """What node-1 says of the keys of requestState."""

    async def ask() -> dict[str, Any]:
        async with Operator.reach(find_cluster(NatsOptions(), None, cluster.environment)) as operator:
            return await operator.ask("node-1", "keys")

    return asyncio.run(ask())


def test_a_tenant_that_has_changed_is_resolved_anew_at_every_node(three: Cluster) -> None:
    told = three.run("tenant", "changed", "acme")
    assert (told.exit_code, told.stdout) == (0, "tenant 'acme' is resolved anew at node-1, node-2, node-3\n"), (
        told.output
    )
    assert three.said("tenant", "changed", "acme") == {"tenant": "acme", "nodes": ["node-1", "node-2", "node-3"]}
    for id, said in (("", "ID is empty"), ("x" * 1025, "the id of a tenant may have 1024 bytes")):
        refused = three.run("tenant", "changed", id)
        assert (refused.exit_code != 0, refused.stdout) == (True, "")
        assert said in refused.stderr


def test_a_node_that_is_not_there_is_told_with_those_that_are(three: Cluster) -> None:
    for args in (("drain", "node-9"), ("sessions", "--node", "node-9")):
        refused = three.run(*args)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == (
            "understudy: no node 'node-9' answers in cluster 'shop'; it has node-1, node-2, node-3\n"
        )


@pytest.mark.parametrize("node", ["no de", "*", "node-1.>", ""])
def test_what_can_be_no_nodes_name_is_told_at_once(three: Cluster, node: str) -> None:
    refused = three.run("drain", node)
    assert (refused.exit_code, refused.stderr.startswith(f"understudy: node id {node!r} must be")) == (1, True)


def test_it_is_told_when_no_node_is_left_that_takes_sessions(clusters: Callable[..., Cluster]) -> None:
    cluster = clusters("--nodes", "2", "--name", "pair")
    session = cluster.open("node-2")
    assert session.call("increment") == 1
    first = cluster.run("drain", "node-1", "--wait")
    assert (first.exit_code, first.stderr) == (0, ""), first.output
    last = cluster.run("drain", "node-2", "--wait")
    assert (last.exit_code, "1 session left it for the store" in last.stdout) == (0, True), last.output
    assert last.stderr == "understudy: no other node takes sessions now: clients are refused (503) until one does\n"
    assert cluster.said("drain", "node-2") == {
        "node": "node-2", "draining": True, "left": 0, "moved": 0, "others": False,
    }  # fmt: skip
    assert cluster.run("drain", "node-1", "--undo").exit_code == 0
    assert cluster.said("drain", "node-2")["others"]
    assert session.call("increment") == 2


def test_top_shows_each_node_once_without_a_terminal(three: Cluster) -> None:
    shown = three.run("top", "--once", "--interval", "200ms")
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("cluster shop at nats://127.0.0.1:")
    assert lines[0].endswith(": 3 nodes")
    assert [line.split()[0] for line in lines[2:]] == ["NODE", "node-1", "node-2", "node-3", "all"]
    assert three.run("top").stderr == "understudy: there is no terminal to show a live page on: use --once\n"


class Top:
    """`understudy top` on a terminal of its own."""

    def __init__(self, environment: dict[str, str], *args: str) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ.update(environment)
            command = [sys.executable, "-m", "understudy.runtime", "top", "--interval", "100ms", *args]
            os.execv(sys.executable, command)
        self.shown = b""

    def read(self) -> bool:
        """What it has drawn meanwhile goes to `shown`; False when it has ended."""
        try:
            chunk = os.read(self.terminal, 65536) if select.select([self.terminal], [], [], 0.1)[0] else None
        except OSError:
            return False
        self.shown += chunk or b""
        return chunk != b""

    def read_until(self, words: bytes, times: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.shown.count(words) < times:
            assert self.read(), self.shown
            assert time.monotonic() < deadline, self.shown

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def quit(self) -> int:
        """Press q; the exit code."""
        os.write(self.terminal, b"q")
        deadline = time.monotonic() + PATIENCE
        while self.read():
            assert time.monotonic() < deadline, self.shown
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_top_is_a_live_page_that_leaves_the_terminal_as_it_was(three: Cluster) -> None:
    top = Top(three.environment)
    before = termios.tcgetattr(top.terminal)
    top.read_until(b"q ends", 2)
    top.resize(4, 20)
    assert top.quit() == 0
    assert top.shown.startswith(b"\x1b[?1049h")
    assert top.shown.endswith(b"\x1b[?1049l")
    assert b"node-3  up" in top.shown
    assert termios.tcgetattr(top.terminal)[:4] == before[:4]
    os.close(top.terminal)


async def test_top_says_how_old_its_page_is_when_nats_is_gone_and_leaves_at_once_while_it_hangs(
    nats_servers: Callable[..., NatsServer],
) -> None:
    async with nats_servers() as server:
        connection = await connect(NatsSettings.from_url(server.url), name="test")
        await (await jetstream(connection)).create_key_value(bucket="understudy_shop_nodes")
        await close(connection)
        top = Top({}, "--nats", server.url)
        top.resize(24, 60)
        await asyncio.to_thread(top.read_until, b"q ends", 2)
        server.kill()
        await asyncio.to_thread(top.read_until, b"ago; q ends: asking NATS")
        # The end of what is said, which is longer than a line.
        await asyncio.to_thread(top.read_until, b"anew")
        await server.stop()
        await server.start()
        top.shown = b""
        await asyncio.to_thread(top.read_until, b"every 0.1 s; q ends")
        server.pause()
        await asyncio.sleep(0.3)
        pressed = time.monotonic()
        assert await asyncio.to_thread(top.quit) == 0
        assert time.monotonic() - pressed < TIMEOUT - 1.0
        os.close(top.terminal)


def test_a_node_refuses_what_makes_no_sense_and_goes_on(three: Cluster) -> None:
    questions: list[tuple[str, dict[str, Any], str]] = [
        ("dance", {}, "knows no operation 'dance'"),
        ("sessions", {"limit": 10**6}, "limit must be"),
        ("sessions", {"limit": True}, "limit must be"),
        ("sessions", {"ids": ["a"] * 501}, "ids must be"),
        ("sessions", {"ids": "abc"}, "ids must be"),
        ("sessions", {"ids": ["\n"]}, "visible ASCII"),
        ("sessions", {"tenant": 1}, "tenant must be text"),
        ("records", {"limit": 0}, "limit must be"),
        ("records", {"cursor": "nonsense"}, "cursor"),
        ("records", {"prefix": 1}, "prefix must be text"),
        ("session", {}, "id must be"),
        ("end", {"id": None}, "id must be"),
    ]

    async def ask() -> Any:
        found = find_cluster(NatsOptions(), None, three.environment)
        async with Operator.reach(found) as operator:
            for op, fields, words in questions:
                with pytest.raises(OperatorError, match=words):
                    await operator.ask("node-1", op, **fields)
            return await operator.ask("node-1", "ping")

    assert asyncio.run(ask())["pid"] == three.nodes()["node-1"]["pid"]


def test_a_killed_node_is_started_again_and_its_sessions_can_still_be_ended(three: Cluster) -> None:
    asleep, woken = three.open("node-2"), three.open("node-2")
    assert (asleep.call("increment"), woken.call("increment")) == (1, 1)
    before = three.nodes()["node-2"]
    os.kill(before["pid"], signal.SIGKILL)
    assert woken.call("increment", url=three.nodes()["node-1"]["url"]) == 2
    eventually(lambda: three.nodes().get("node-2", before)["incarnation"] != before["incarnation"])
    assert "node-2 was ended by SIGKILL; starting it again in" in three.output, three.output
    assert three.said("session", "show", asleep.id)["state"] == "asleep"
    assert three.said("session", "end", asleep.id) == {"ended": asleep.id[:8]}
    assert asleep.call("increment") == 404
    assert woken.call("count") == 2


def test_a_killed_nats_server_is_started_again_and_nothing_is_lost(three: Cluster) -> None:
    session = three.open("node-3")
    assert session.call("increment") == 1
    (nats,) = [process for process in three.processes() if process.name() == "nats-server"]
    nats.kill()
    three.wait_until_said("nats-server has ended; starting it again")
    eventually(lambda: three.run("nodes").exit_code == 0)
    assert eventually(lambda: session.call("count") == 1)
    eventually(lambda: all(node["state"] == "up" for node in three.nodes().values()))


def test_what_is_secret_is_in_no_argument_that_others_could_read(three: Cluster) -> None:
    (file,) = three.directory.glob("understudy/cluster-*.json")
    found = re.search(r"understudy:([^@]+)@", file.read_text())
    assert found is not None
    password = found[1]
    assert len(password) >= 32
    for process in three.processes():
        assert password not in " ".join(process.cmdline())
    assert password not in three.output


async def test_nats_without_jetstream_is_told_as_such(nats_servers: Callable[..., Any]) -> None:
    async with nats_servers(jetstream=False) as server:
        with pytest.raises(JetStreamMissing, match="runs without JetStream: start nats-server with -js"):
            async with Operator.reach(find_cluster(NatsOptions(server.url), None, {})):
                pass
