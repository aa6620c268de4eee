"""`understudy bench streams`: events to many streams, streams on which nothing happens, streams that are resumed."""

from __future__ import annotations

from importlib.util import find_spec

from .fleet import HTTP
from .idle_streams import idle_streams
from .measure import Effort, Progress
from .report import Report, Scenario
from .resume import resume_times
from .stream_events import events_over_http, events_without_http

__all__ = ["bench_streams"]

SECOND = "uvicorn"
"""A second HTTP server, where it is installed: what a connection costs depends on it more than on anything else."""


async def bench_streams(effort: Effort, progress: Progress) -> Report:
    """Measure; `effort` says how long."""
    scenarios: list[Scenario] = [
        await events_without_http("one by one", effort, progress),
        await events_without_http("in a burst", effort, progress),
        await events_over_http(HTTP, "one by one", effort, progress),
    ]
    if not effort.quick:
        scenarios.append(await events_over_http(HTTP, "in a burst", effort, progress))
    second = not effort.quick and find_spec(SECOND) is not None
    if second:
        scenarios.append(await events_over_http(SECOND, "one by one", effort, progress))
    scenarios += await idle_streams(HTTP, effort, progress, full=True)
    if second:
        scenarios += await idle_streams(SECOND, effort, progress, full=False)
    scenarios.append(await resume_times(effort, progress))
    return Report("streams", tuple(scenarios), effort.quick)
