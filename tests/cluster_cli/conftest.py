"""A cluster as its operator has it: `understudy cluster` in a process of its own, and the commands that look at it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from click.testing import CliRunner, Result
from support.forked_process import UNBUFFERED, start_process
from support.nats import nats_missing
from support.patience import PATIENCE
from understudy.runtime.commands import cli

DEMO = "understudy.runtime.demo:server"


class RunningCluster:
    """`understudy cluster DEMO ARGS`, whose files are all in `directory`."""

    def __init__(self, directory: Path, *args: str, target: str = DEMO) -> None:
        self.directory = directory
        self.environment = {
            "XDG_RUNTIME_DIR": str(directory),
            "XDG_STATE_HOME": str(directory),
            "HOME": str(directory),
            "TMPDIR": str(directory),
        }
        mine = {name: value for name, value in os.environ.items() if not name.startswith("UNDERSTUDY_")}
        self._log = directory / "output"
        with self._log.open("wb") as log:
            self.process = start_process(
                [sys.executable, "-m", "understudy.runtime", "cluster", target, "--base-port", "0", *args],
                cwd=directory,
                env={**mine, **UNBUFFERED, **self.environment},
                output=log,
                supervises=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until_said(self, words: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while words not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def run(self, *args: str) -> Result:
        """An `understudy` command of the same user, in this process."""
        environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("UNDERSTUDY_")}
        return CliRunner().invoke(cli.main, list(args), env={**environment, **self.environment})

    def said(self, *args: str) -> Any:
        """What a command prints with --json."""
        result = self.run(*args, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def nodes(self) -> dict[str, Any]:
        return {node["node"]: node for node in self.said("nodes")["nodes"]}

    def open(self, node: str) -> Session:
        return Session(self.nodes()[node]["url"])

    def processes(self) -> list[psutil.Process]:
        """All that it has started, itself included."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                # What is forked shows the environment of where it comes from.
                if str(self.directory) in (process.environ().get("TMPDIR"), process.cwd()):
                    found.append(process)
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        os.kill(self.process.pid, number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)


class Session:
    """A session of the handshake era, by plain HTTP: it goes on whatever becomes of a connection."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        opened = self._post("initialize", params)
        assert opened.status_code == 200, opened.text
        self.id = self._headers["mcp-session-id"] = opened.headers["mcp-session-id"]

    def call(self, tool: str, *, url: str | None = None) -> Any:
        response = self._post("tools/call", {"name": tool, "arguments": {}}, url)
        if response.status_code != 200:
            return response.status_code
        lines = [line[5:] for line in response.text.splitlines() if line.startswith("data:")] or [response.text]
        value = json.loads(lines[-1])["result"]["structuredContent"]
        return value["result"] if set(value) == {"result"} else value

    def _post(self, method: str, params: dict[str, Any], url: str | None = None) -> httpx.Response:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return httpx.post(url or self.url, headers=self._headers, json=body, timeout=PATIENCE)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RunningCluster]]:
    """Clusters under test, started with further arguments of the command; what a test leaves running is killed."""
    reason = nats_missing()
    if reason is not None:
        pytest.skip(reason)
    with ExitStack() as stack:

        def start(*args: str, ready: bool = True, target: str = DEMO) -> RunningCluster:
            cluster = RunningCluster(tmp_path_factory.mktemp("cluster"), *args, target=target)
            stack.callback(cluster.close)
            if ready:
                cluster.wait_until_said("Ctrl-C stops it all")
            return cluster

        yield start


@pytest.fixture(scope="module")
def three(clusters: Callable[..., RunningCluster]) -> RunningCluster:
    """Three nodes that the tests share. Each test opens sessions of its own, and leaves all nodes up."""
    return clusters("--nodes", "3", "--name", "shop")
