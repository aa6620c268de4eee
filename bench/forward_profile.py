"""Where a forwarded call spends its time, at both nodes: `python -m understudy.bench.forward_profile --help`.

A profiler slows small functions more than large ones, so this says where to look; `understudy bench forward` says what
it won.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import click

from .clients import HandshakeClient, PreparedCall
from .counterpart import cluster_app_options
from .forward import counterpart
from .local_nats import local_nats
from .measure import in_flight
from .profile import Cost, costs_of, show_costs
from .servers import ARGUMENTS, TOOL, ten_tools
from .sides import understudy_app

__all__ = ["forward_profiler", "profile_forwarded"]

_WARM = 500


async def profile_forwarded(*, calls: int, at_once: int, owner: bool) -> list[Cost]:
    """Profile `calls` forwarded calls at one of the two nodes: at the `owner`, or at the edge."""
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as folder:
        file = Path(folder) / "owner.profile"
        async with local_nats() as nats:
            async with (
                counterpart(nats.url, **({"profile": str(file)} if owner else {})) as there,
                understudy_app(ten_tools(sessions=True), **cluster_app_options(nats.url, "edge")) as app,
            ):
                call, sessions = PreparedCall(TOOL, ARGUMENTS), there["sessions"]
                clients = [HandshakeClient(app, sessions[number % len(sessions)]) for number in range(at_once)]
                run = in_flight([partial(client.call, call) for client in clients])
                await run(max(_WARM - _WARM % at_once, at_once))
                tell: Callable[[bytes], None] = there["tell"]
                profiler = cProfile.Profile()
                if owner:
                    tell(b"begin\n")
                    await anyio.sleep(0.2)
                else:
                    profiler.enable()
                await run(calls - calls % at_once or at_once)
                profiler.disable()
                if owner:
                    tell(b"end\n")
            return costs_of(pstats.Stats(str(file)) if owner else pstats.Stats(profiler), calls)


@click.command()
@click.option("--owner", is_flag=True, help="Profile the node that has the session, not the one that forwards.")
@click.option("--calls", type=click.IntRange(min=1), default=3000, show_default=True, help="Calls to profile.")
@click.option("--in-flight", "at_once", type=click.IntRange(min=1), default=1, show_default=True, help="Calls at once.")
@click.option("--top", type=click.IntRange(min=1), default=40, show_default=True, help="Functions to print.")
@click.option("--by-total", is_flag=True, help="Sort by the time with callees, not by the function's own.")
def forward_profiler(owner: bool, calls: int, at_once: int, top: int, by_total: bool) -> None:
    """Profile calls that one node forwards to another over NATS; figures are microseconds of one call.

    What says "select" is waiting for the other process, at 1 in flight most of the time.
    """
    show_costs(
        anyio.run(partial(profile_forwarded, calls=calls, at_once=at_once, owner=owner)), top=top, by_total=by_total
    )


if __name__ == "__main__":
    forward_profiler()
