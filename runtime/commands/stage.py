"""`Stage`: the cluster that the demo plays on: three nodes and their nats-server, all of this machine."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections import deque
from contextlib import AsyncExitStack
from typing import Any, Self
from urllib.parse import urlsplit

from ...stores import UnderstudyError
from .finding import Found
from .local_cluster import LocalCluster, LocalClusterOptions
from .local_node import LocalNode
from .operator import Operator

__all__ = ["HOST", "SceneError", "Stage"]

TARGET = "understudy.runtime.demo:server"
HOST = "127.0.0.1"
NAME = "demo"

# Each option that matters here is given, and none is taken from the environment: the demo is the demo everywhere.
_OPTIONS = ("--http", "hypercorn", "--log-level", "warning", "--log-format", "text", "--lame-duck", "1s")
MOST_WORDS = 40


class SceneError(Exception):
    """A step of the demo that did not come out as it should."""


class Stage:
    """The cluster, what its nodes said last, and ways to treat it badly. Leaving it as a context ends all processes."""

    def __init__(self, port: int) -> None:
        """`port`: of the first node; 0: free ones."""
        self._words: deque[str] = deque(maxlen=MOST_WORDS)
        self._cluster = LocalCluster(
            LocalClusterOptions(
                TARGET,
                base_port=port,
                host=HOST,
                name=NAME,
                serve=_OPTIONS,
                drain_timeout=10.0,
                inherit=False,
            ),
            lambda who, line: self._words.append(f"{who}: {line}"),
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def raise_curtain(self) -> list[LocalNode]:
        """Start everything and wait until all nodes are ready. The caller sets the deadline.

        Raises:
            SceneError: Something could not be started.
        """
        try:
            await self._stack.enter_async_context(self._cluster)
            await self._cluster.ready()
        except UnderstudyError as error:
            raise SceneError(str(error)) from error
        return self._cluster.nodes

    def node(self, name: str) -> LocalNode:
        """
        Raises:
            SceneError: There is none of this name.
        """
        for node in self._cluster.nodes:
            if node.name == name:
                return node
        raise SceneError(f"there is no node {name!r}")

    async def ask(self, name: str, what: str) -> dict[str, Any]:
        """What a node answers to an operator."""
        async with Operator.reach(Found(NAME, self._cluster.settings)) as operator:
            return await operator.ask(name, what)

    async def call_at(self, name: str, session: str, tool: str) -> Any:
        """Call a tool of a session at a certain node, over a connection of its own.

        Raises:
            SceneError: It does not answer with a result.
        """
        return await asyncio.to_thread(_call_at, self.node(name).url, session, tool)

    async def all_ready(self) -> None:
        """Return when every node takes new work: those that were ended have been started again by then."""
        await self._cluster.ready()

    async def watch(self) -> None:
        """Never returns; nodes that end are started again.

        Raises:
            UnderstudyError: No node can run any more.
        """
        await self._cluster.run()

    def last_words(self) -> str:
        """The end of what the nodes wrote."""
        return "\n".join(self._words)


def _call_at(url: str, session: str, tool: str) -> Any:
    parts = urlsplit(url)
    body: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": {}},
    }
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-session-id": session,
        "mcp-protocol-version": "2025-11-25",
    }
    connection = http.client.HTTPConnection(parts.hostname or HOST, parts.port, timeout=10.0)
    try:
        connection.request("POST", parts.path, json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise SceneError(f"{url} does not answer: {error}") from error
    finally:
        connection.close()
    # A result that took its time comes as an event stream.
    lines = [line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:")] or [text]
    try:
        value = json.loads(lines[-1])["result"]["structuredContent"]
    except (ValueError, KeyError, TypeError) as error:
        raise SceneError(f"{url} answers {response.status}: {text[:200]}") from error
    return value["result"] if set(value) == {"result"} else value
