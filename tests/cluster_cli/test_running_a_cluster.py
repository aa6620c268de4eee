"""`understudy cluster`: what it refuses, what it keeps, and that it leaves nothing behind however it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from click.testing import CliRunner
from support.patience import PATIENCE
from support.ports import first_of_free_ports
from understudy.runtime.commands import cli

Clusters = Callable[..., Any]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--", "--port", "1"], "--port behind -- is for one node; here it is given as --base-port"),
        (["--", "--store", "memory://"], "--store behind -- is for one node; here it is given before --"),
        (["--", "--frobnicate"], "No such option '--frobnicate' (see understudy serve --help)"),
        (["--", "--idle-after", "soon"], "'soon' is no duration"),
        (["--", "--lease", "1ms"], "lease is 0.001 s"),
        (["--store", "memory://"], "--store memory:// is one node's own"),
        (["--nodes", "0"], "--nodes"),
        (["--name", "a b"], "cluster name 'a b' must be"),
        (["--nats", "nats://a", "--directory", "d"], "--directory is for a nats-server of the cluster's own"),
        (["--nats", "http://a"], "a NATS URL starts with nats:// or tls://"),
        (["--nats-ca", "a"], "go with --nats URL"),
        (["--base-port", "65534"], "3 nodes from --base-port 65534 on would need port 65536"),
    ],
)
def test_what_cannot_work_is_told_once_before_anything_starts(args: list[str], said: str) -> None:
    result = CliRunner().invoke(cli.main, ["cluster", "m:a", *args])
    assert (result.exit_code, result.stdout, said in result.stderr) == (2, "", True), result.output
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_help_says_how_to_run_one_and_what_then() -> None:
    shown = CliRunner().invoke(cli.main, ["cluster", "--help"]).output
    for words in ("understudy cluster server.py:mcp -- --idle-after 1m", "--directory", "understudy nodes", "Ctrl-C"):
        assert words in shown
    for command in ("nodes", "sessions", "session show", "session end", "drain", "rotate-keys", "top"):
        helped = CliRunner().invoke(cli.main, [*command.split(), "--help"]).output
        assert "--nats" in helped, command
        assert "--cluster" in helped, command


def test_a_port_that_is_taken_is_told_before_anything_starts(clusters: Clusters) -> None:
    first = first_of_free_ports(2)
    with socket.create_server(("127.0.0.1", first + 1)):
        cluster = clusters("--base-port", str(first), "--nodes", "2", ready=False)
        assert cluster.process.wait(PATIENCE) == 1
    assert f"cannot listen on 127.0.0.1 port {first + 1}: address already in use" in cluster.output
    assert "or take another --base-port" in cluster.output
    assert len(cluster.output.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a port for one who does not listen")
def test_a_nodes_port_stays_its_own_while_it_is_down_and_refuses_connections(clusters: Clusters) -> None:
    cluster = clusters("--nodes", "1")
    node = cluster.nodes()["node-1"]
    port = urlsplit(node["url"]).port
    process = psutil.Process(node["pid"])
    process.kill()
    process.wait(PATIENCE)
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", port))
    cluster.wait_until_said("node-1 was ended by SIGKILL; starting it again in 0.2s")
    deadline = time.monotonic() + PATIENCE
    while cluster.nodes().get("node-1", node)["pid"] == node["pid"]:
        assert time.monotonic() < deadline, cluster.output
        time.sleep(0.05)
    assert cluster.nodes()["node-1"]["url"] == node["url"]
    assert httpx.get(node["url"].replace("/mcp", "/readyz")).status_code == 200


def test_nodes_that_cannot_run_are_given_up_with_their_own_words(clusters: Clusters, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no such luck')")
    cluster = clusters("--nodes", "2", "--", ready=False, target=f"{broken}:server")
    assert cluster.process.wait(PATIENCE) == 2
    assert "node-1  | understudy: " in cluster.output
    assert "no such luck" in cluster.output
    assert "cannot run as it was told to (exit code 2): given up" in cluster.output
    assert_nothing_left(cluster)


def test_nodes_that_are_not_ready_in_time_are_named(tmp_path: Path, free_port: int) -> None:
    code = f"""
from understudy.runtime.commands import serve_cluster
from understudy.runtime.commands.cli import main

serve_cluster.START_DEADLINE = 1.0
nats = "nats://127.0.0.1:{free_port}"
main(["cluster", "understudy.runtime.demo:server", "--nodes", "1", "--base-port", "0", "--nats", nats])
"""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    running = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert running.stderr is not None
        assert any("not ready yet: node-1; why is said above" in line for line in running.stderr)
        running.terminate()
        assert (running.communicate(timeout=PATIENCE), running.returncode)[1] == 0
    finally:
        running.kill()
        running.communicate()


def test_when_it_is_asked_to_stop_nodes_drain_and_nothing_stays(clusters: Clusters) -> None:
    cluster = clusters("--nodes", "2", "--", "--log-format", "json")
    assert cluster.stop(signal.SIGINT) == 0
    lines = [json.loads(line) for line in cluster.output.splitlines() if line.startswith("{")]
    stopped = [line["node"] for line in lines if line["msg"] == "stopped: every finished turn is saved"]
    assert sorted(stopped) == ["node-1", "node-2"]
    assert lines[-1]["msg"] == "stopped"
    assert_nothing_left(cluster)


def test_nothing_outlives_one_that_is_killed(clusters: Clusters) -> None:
    cluster = clusters("--nodes", "1")
    running = cluster.processes()
    assert "nats-server" in {process.name() for process in running}
    assert {cluster.process.pid, cluster.nodes()["node-1"]["pid"]} < {process.pid for process in running}
    assert cluster.stop(signal.SIGKILL) == -signal.SIGKILL
    psutil.wait_procs(running, PATIENCE)
    assert cluster.processes() == []
    refused = cluster.run("nodes")
    assert (refused.exit_code, "no cluster runs on this machine" in refused.stderr) == (2, True)
    assert_nothing_left(cluster)


def test_a_directory_that_is_named_keeps_the_sessions(clusters: Clusters, tmp_path: Path) -> None:
    keep = ("--nodes", "1", "--directory", str(tmp_path / "nats"))
    first = clusters(*keep)
    session = first.open("node-1")
    assert session.call("increment") == 1
    assert first.stop() == 0
    again = clusters(*keep)
    assert session.call("increment", url=again.nodes()["node-1"]["url"]) == 2
    assert again.stop() == 0


def test_a_sqlite_file_does_for_nodes_of_one_machine(clusters: Clusters, tmp_path: Path) -> None:
    cluster = clusters("--nodes", "2", "--store", f"sqlite:///{tmp_path / 's.db'}", "--", "--lame-duck", "0")
    session = cluster.open("node-1")
    assert session.call("increment") == 1
    assert session.call("increment", url=cluster.nodes()["node-2"]["url"]) == 2
    assert "every node of this cluster must run on this machine" in cluster.output
    assert cluster.run("drain", "node-1", "--wait").exit_code == 0
    assert session.call("increment") == 3
    assert session.call("whoami")["node"] == "node-2"


def assert_nothing_left(cluster: Any) -> None:
    assert cluster.processes() == []
    left = [path for path in cluster.directory.rglob("*") if path.name not in ("output", "understudy")]
    assert left == []
