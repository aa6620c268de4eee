"""`understudy cluster`: a `LocalCluster` in the foreground, from its first line to its last node's end."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any, TextIO

from .console import plural, shown_url, table, uses_colour
from .local_cluster import LocalCluster, LocalClusterOptions
from .local_node import Say

__all__ = ["serve_cluster", "speaker"]

START_DEADLINE = 60.0
"""Seconds after which the nodes' addresses are told although not all of them are ready."""
COLOURS = ("36", "33", "35", "32", "34", "31")
CLUSTER = "cluster"


def serve_cluster(options: LocalClusterOptions, *, json_lines: bool = False) -> int:
    """Run the cluster until SIGTERM, SIGINT or SIGHUP; the exit code. A second signal does not wait for the nodes to
    drain.

    Raises:
        BindError, NatsServerError, NoCluster: It could not start.
        LocalClusterError: No node could run.
    """
    return asyncio.run(_run(options, json_lines))


async def _run(options: LocalClusterOptions, json_lines: bool) -> int:
    asked = asyncio.Event()
    say = speaker(sys.stderr, json_lines=json_lines, width=max(len(f"node-{options.nodes}"), len(CLUSTER)))
    cluster = LocalCluster(options, say)

    def on_signal() -> None:
        if asked.is_set():
            cluster.hurry()
        asked.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    async with cluster:
        await _unless(asked, cluster.ready(), START_DEADLINE)
        if not asked.is_set():
            print(described(cluster), flush=True)
            late = [node.name for node in cluster.nodes if not await asyncio.to_thread(node.is_ready)]
            if late:
                say(CLUSTER, f"not ready yet: {', '.join(late)}; why is said above, and starting goes on")
            await _unless(asked, cluster.run())
        say(CLUSTER, f"stopping {plural(len(cluster.nodes), 'node')} (once more to stop at once)")
    say(CLUSTER, "stopped")
    return 0


def described(cluster: LocalCluster) -> str:
    """What runs where, and what to do with it."""
    options = cluster.options
    where = shown_url(options.store) if options.store else f"NATS ({cluster.settings.where})"
    first = cluster.nodes[0].name
    return "\n".join(
        (
            "",
            f"Cluster {options.name}: {plural(len(cluster.nodes), 'node')}; sessions are kept in {where}",
            "",
            table(("node", "url", "pid"), [(node.name, node.url, node.pid) for node in cluster.nodes], indent="  "),
            "",
            "Connect any MCP client to any of them. In another terminal: understudy nodes, understudy sessions,",
            f"understudy top, understudy drain {first}. Ctrl-C stops it all.",
            "",
        )
    )


def speaker(out: TextIO, *, json_lines: bool, width: int) -> Say:
    """Writes what nodes say to `out`, each line with the node's name in front; JSON lines stay as they are."""
    colour = uses_colour(out)
    painted: dict[str, str] = {}

    def say(who: str, line: str) -> None:
        if json_lines:
            print(line if who != CLUSTER and _is_object(line) else _as_json(who, line), file=out, flush=True)
            return
        prefix = painted.get(who)
        if prefix is None:
            prefix = f"{who:<{width}} |"
            if colour:
                prefix = f"\x1b[{COLOURS[len(painted) % len(COLOURS)]}m{prefix}\x1b[0m"
            painted[who] = prefix
        clock = f"{time.strftime('%H:%M:%S')} " if who == CLUSTER else ""
        print(f"{prefix} {clock}{line}", file=out, flush=True)

    return say


def _is_object(line: str) -> bool:
    return line.startswith("{") and line.endswith("}")


def _as_json(who: str, line: str) -> str:
    now = time.time()
    clock = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03d}Z"
    return json.dumps({"ts": clock, "level": "info", "logger": "understudy.cluster", "msg": line, "node": who})


async def _unless(asked: asyncio.Event, work: Coroutine[Any, Any, None], deadline: float | None = None) -> None:
    """Do `work` until it is done, `asked` is set, or `deadline` seconds have passed. Raises what it raises."""
    try:
        async with asyncio.TaskGroup() as tasks:
            working, waiting = tasks.create_task(work), tasks.create_task(asked.wait())
            await asyncio.wait((working, waiting), timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
            working.cancel()
            waiting.cancel()
    except BaseExceptionGroup as group:
        # One thing went wrong, and whoever reads of it should not have to unwrap it.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
