"""Whatever breaks the paths between nodes, and whoever moves meanwhile: each call is answered once, and none that may
not run twice does. Random, from a seed that the test's name tells; what the machine makes of it varies.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from cluster.household import Member, household
from cluster.test_repeats import IDEMPOTENT, lose_the_path
from edge.call import HTTPCall
from edge.server import Stage
from mcp.server.mcpserver import Context, MCPServer
from support.patience import PATIENCE
from understudy.actors.session.wire import SERVER_BUSY
from understudy.actors.task_owner import TaskOwner

CLIENTS = 6
ROUNDS = 4
REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26")


class Till:
    """Counts, over all nodes, how often the call with each key has run."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()

    def server(self, stage: Stage) -> MCPServer:
        server = MCPServer("till", log_level="CRITICAL")

        async def work(key: str, seconds: float, steps: int, ctx: Context) -> str:
            self.runs[key] += 1
            for step in range(steps):
                await asyncio.sleep(seconds / (steps + 1))
                await ctx.report_progress(step)
            await asyncio.sleep(seconds / (steps + 1))
            return key

        @server.tool()
        async def pay(key: str, seconds: float, steps: int, ctx: Context) -> str:
            return await work(key, seconds, steps, ctx)

        @server.tool(annotations=IDEMPOTENT)
        async def mark(key: str, seconds: float, steps: int, ctx: Context) -> str:
            return await work(key, seconds, steps, ctx)

        return server


class Play:
    """One seed's calls, and what comes between."""

    def __init__(self, seed: int, members: list[Member], till: Till) -> None:
        self.random = random.Random(seed)
        self.members = members
        self.till = till
        self.answered = 0

    async def break_paths(self) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.02, 0.2))
            edge = self.random.choice(self.members)
            for owner in self.members:
                if owner is not edge:
                    lose_the_path(edge, owner)

    async def have_sessions_move(self, tasks: TaskOwner) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.2, 0.6))
            cluster = self.random.choice(self.members).runtime.cluster
            assert cluster is not None
            draining = tasks.spawn(cluster.drain())
            await asyncio.sleep(self.random.uniform(0.1, 0.4))
            draining.cancel()
            await asyncio.wait((draining,))
            cluster.undrain()

    async def converse(self, name: str) -> None:
        some = self.random
        client = some.choice(self.members).client()
        await client.open(some.choice(REVISIONS))
        for round in range(ROUNDS):
            calls: list[tuple[str, HTTPCall]] = []
            for number in range(some.choice((1, 1, 2, 3))):
                tool = some.choice(("pay", "mark"))
                key = f"{tool} {name}.{round}.{number}"
                arguments = {"key": key, "seconds": some.choice((0, 0.02, 0.1, 0.3)), "steps": some.choice((0, 2))}
                through = some.choice(self.members).same(client)
                calls.append((key, through.begin_tool(tool, arguments, token="t")))
            for key, call in calls:
                await asyncio.wait_for(call.answered(), PATIENCE)
                self.judge(key, call)

    def judge(self, key: str, call: HTTPCall) -> None:
        self.answered += 1
        if "result" in call.reply:
            assert call.value == key
            assert self.till.runs[key] >= 1
        elif call.failure.get("data") != {"outcome": "unknown"}:
            # Every node drains, or none may act for now.
            assert call.failure["code"] == SERVER_BUSY, call.failure
            assert self.till.runs[key] == 0, call.failure
        steps = [message["params"]["progress"] for message in call.messages if "method" in message]
        assert steps == list(range(len(steps))) or not key.startswith("pay"), "none twice, and none is missing between"


@pytest.mark.parametrize("seed", [1, 2])
async def test_each_call_is_answered_once_and_runs_once_where_it_must(nats_url: str, seed: int) -> None:
    till = Till()
    async with household(nats_url, 3, server=till.server) as members, TaskOwner() as tasks:
        play = Play(seed, members, till)
        breaking = [tasks.spawn(play.break_paths()), tasks.spawn(play.have_sessions_move(tasks))]
        clients = [tasks.spawn(play.converse(str(name))) for name in range(CLIENTS)]
        await asyncio.wait(clients)
        for task in breaking:
            task.cancel()
        await asyncio.wait(breaking)
        for task in clients:
            task.result()
        for member in members:
            assert member.runtime.cluster is not None
            member.runtime.cluster.undrain()
    assert play.answered >= CLIENTS * ROUNDS
    assert {key: runs for key, runs in till.runs.items() if runs > 1 and key.startswith("pay")} == {}, "never-run-twice"
