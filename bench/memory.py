"""`understudy bench memory`: what a session weighs while it lives, and what it weighs asleep."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from statistics import median, quantiles
from typing import Any

import anyio

from ..stores import Address, Record, open_store
from .asgi import Refused
from .clients import HandshakeClient, PreparedCall
from .measure import Effort, Progress
from .report import Comparison, Report, Scenario, Series, Target, ratio
from .servers import INCREMENT, ten_tools
from .sides import understudy_app

__all__ = ["bench_memory", "probe"]

LIVE_TARGET = Target("at most", 9_000)
ASLEEP_TARGET = Target("at most", 32)
"""Not zero: SQLite's page cache, which is bounded, fills with the larger file."""
WAKE_TARGET = Target("at most", 5)

PROBE_DEADLINE = 600.0
"""Seconds after which a probe is given up: none takes a tenth of it."""


async def bench_memory(effort: Effort, progress: Progress) -> Report:
    """Measure; the rounds are `effort.rounds` fresh processes for each figure."""
    scenarios = [await _live(effort, progress), await _asleep(effort, progress)]
    return Report("memory", tuple(scenarios), effort.quick)


async def _live(effort: Effort, progress: Progress) -> Scenario:
    before, sessions = (5, 20) if effort.quick else (500, 2000)
    names = {
        "sdk": "SDK, one server for all",
        "factory": "understudy, a server each",
        "shared": "understudy, one server for all",
    }
    figures: dict[str, list[float]] = {side: [] for side in names}
    for number in range(effort.rounds):
        for side in names:
            progress(f"live sessions, round {number + 1}/{effort.rounds}: {names[side]}")
            answer = await probe("live", side=side, before=before, sessions=sessions)
            figures[side].append(answer["bytes"])
    sdk, factory, shared = (Series(names[side], "bytes/session", tuple(found)) for side, found in figures.items())
    aim = Comparison("a live session of understudy, all told", factory.unit, factory.rounds, LIVE_TARGET)
    comparisons = (aim, ratio("SDK / understudy, a server each", sdk, factory))
    return Scenario(f"resident for each of {sessions:,} live sessions", (sdk, factory, shared), comparisons)


async def _asleep(effort: Effort, progress: Progress) -> Scenario:
    few, many, wakes = (10, 50, 5) if effort.quick else (1_000, 100_000, 500)
    leaving, room = (20, 5) if effort.quick else (5_000, 100)
    left: list[float] = []
    resident: list[float] = []
    middle: list[float] = []
    slowest: list[float] = []
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as folder:
        progress(f"asleep: writing {few:,} and {many:,} records")
        small, large = f"sqlite:///{folder}/few.db", f"sqlite:///{folder}/many.db"
        pool = {url: await _fill(url, count) for url, count in ((small, few), (large, many))}
        for number in range(effort.rounds):
            progress(f"asleep, round {number + 1}/{effort.rounds}")
            store = f"sqlite:///{folder}/round-{number}.db"
            # First as many as it takes to fill SQLite's page cache, which is bounded but not small.
            answer = await probe("passivated", store=store, before=3 * leaving, sessions=leaving, room=room)
            left.append(answer["bytes"])
            floor = await probe("asleep", store=small, ids=random.sample(pool[small], wakes))
            full = await probe("asleep", store=large, ids=random.sample(pool[large], wakes))
            resident.append((full["resident"] - floor["resident"]) / (many - few))
            middle.append(median(full["seconds"]) * 1000)
            slowest.append(quantiles(full["seconds"], n=100)[-1] * 1000)
    series = (Series("wake-up and first call, 99th percentile", "ms", tuple(slowest)),)
    comparisons = (
        Comparison("left behind by each passivated session", "bytes/session", tuple(left), ASLEEP_TARGET),
        Comparison("resident for each of them", "bytes/session", tuple(resident), ASLEEP_TARGET),
        Comparison("wake-up and first call, median", "ms", tuple(middle), WAKE_TARGET),
    )
    return Scenario(f"sessions asleep on SQLite, {many:,} of them", series, comparisons)


async def _fill(url: str, count: int) -> list[str]:
    """Write `count` records with the snapshot of a session that was really opened and used; their ids."""
    async with understudy_app(ten_tools(sessions=True), store=url) as app:
        client = await HandshakeClient.open(app)
        await client.call(PreparedCall(INCREMENT, {}))
    store = await open_store(url)
    try:
        model = await store.load(Address("session", client.session_id))
        if model is None:
            raise Refused("a session that was used left no record")
        addresses = [Address.new("session") for _ in range(count)]

        async def write(record: Record, share: list[Address]) -> None:
            for address in share:
                await store.create(address, tenant=record.tenant, owner="bench", snapshot=record.snapshot, ttl=_A_DAY)

        async with anyio.create_task_group() as group:
            for start in range(_WRITERS):
                group.start_soon(write, model, addresses[start::_WRITERS])
    finally:
        await store.aclose()
    return [address.id for address in addresses]


_A_DAY = 86_400.0
_WRITERS = 200
"""Many at once, because writes of one moment share a commit."""


async def probe(name: str, **arguments: Any) -> dict[str, Any]:
    """The answer of one probe in a fresh process.

    Raises:
        Refused: The probe failed; the message ends with what it said.
    """
    command = [sys.executable, "-m", "understudy.bench.probe", name]
    try:
        with anyio.fail_after(PROBE_DEADLINE):
            done = await anyio.run_process(
                command, input=json.dumps(arguments).encode(), stderr=subprocess.PIPE, check=False
            )
    except TimeoutError:
        raise Refused(f"probe {name!r} took more than {PROBE_DEADLINE:.0f} s and was stopped") from None
    if done.returncode != 0:
        raise Refused(f"probe {name!r} failed with status {done.returncode}:\n{done.stderr.decode(errors='replace')}")
    return json.loads(done.stdout)
