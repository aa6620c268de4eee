"""Where a call through understudy spends its time: `python -m understudy.bench.profile --help`.

A profiler slows small functions more than large ones, so this says where to look; `understudy bench` says what it won.
"""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple, cast

import anyio
import click

from .clients import HandshakeClient, ModernClient, PreparedCall
from .measure import in_flight
from .servers import ARGUMENTS, INCREMENT, SESSION_TOOL, TOOL, ten_tools
from .sides import understudy_app

__all__ = ["Cost", "costs_of", "profile_calls", "profiler", "show_costs"]

_WARM = 200


class Cost(NamedTuple):
    """One function's share of one call."""

    function: str
    invocations: float
    own: float
    """Microseconds in the function itself."""
    total: float
    """Microseconds in it and all that it calls."""


async def profile_calls(what: str, *, calls: int, at_once: int, store: str) -> list[Cost]:
    """Profile `calls` calls of the kind `what` (a key of `KINDS`), most expensive function first."""
    tool, arguments = KINDS[what]
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(understudy_app(ten_tools(sessions=True), store=store))
        if what == "modern":
            operations: list[Any] = [ModernClient(app, tool, arguments).call] * at_once
        else:
            call = PreparedCall(tool, arguments)
            clients = [await HandshakeClient.open(app) for _ in range(at_once)]
            operations = [lambda client=client: client.call(call) for client in clients]
        run = in_flight(operations)
        await run(max(_WARM, at_once))
        profiler = cProfile.Profile()
        profiler.enable()
        await run(calls)
        profiler.disable()
    return costs_of(pstats.Stats(profiler), calls)


def costs_of(profiled: pstats.Stats, calls: int) -> list[Cost]:
    """The share of one of `calls` calls that each function had, most expensive function first."""
    return sorted(_costs(profiled, calls), key=lambda cost: cost.own, reverse=True)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "handshake": (TOOL, ARGUMENTS),
    "session": (SESSION_TOOL, ARGUMENTS),
    "increment": (INCREMENT, {}),
    "modern": (TOOL, ARGUMENTS),
}


def _costs(profiled: pstats.Stats, calls: int) -> Iterator[Cost]:
    stats = cast("dict[_Place, _Counts]", vars(profiled)["stats"])
    for (file, line, name), (_, invocations, own, total, _) in stats.items():
        where = name if file == "~" else f"{'/'.join(Path(file).parts[-3:])}:{line} {name}"
        yield Cost(where, invocations / calls, own / calls * 1e6, total / calls * 1e6)


_Place = tuple[str, int, str]
"""A function for `pstats`: its file, line and name."""
_Counts = tuple[int, int, float, float, Any]
"""Calls that were not recursive, calls, own seconds, total seconds, callers."""


@click.command()
@click.argument("what", type=click.Choice(list(KINDS)), default="handshake")
@click.option("--calls", type=click.IntRange(min=1), default=5000, show_default=True, help="Calls to profile.")
@click.option("--in-flight", "at_once", type=click.IntRange(min=1), default=1, show_default=True, help="Calls at once.")
@click.option("--store", default="memory://", show_default=True, help="URL of the store.")
@click.option("--top", type=click.IntRange(min=1), default=40, show_default=True, help="Functions to print.")
@click.option("--by-total", is_flag=True, help="Sort by the time with callees, not by the function's own.")
def profiler(what: str, calls: int, at_once: int, store: str, top: int, by_total: bool) -> None:
    """Profile calls of one kind through understudy as a bare ASGI app; figures are microseconds of one call.

    WHAT: handshake (a plain tool), session (a tool that takes a Session), increment (one that changes state), modern.
    """

    async def measure() -> list[Cost]:
        return await profile_calls(what, calls=calls - calls % at_once or at_once, at_once=at_once, store=store)

    show_costs(anyio.run(measure), top=top, by_total=by_total)


def show_costs(costs: list[Cost], *, top: int, by_total: bool) -> None:
    """Print the `top` most expensive of them."""
    if by_total:
        costs.sort(key=lambda cost: cost.total, reverse=True)
    click.echo(f"{sum(cost.own for cost in costs):.0f} us a call, profiler included")
    click.echo(f"{'own us':>8} {'total us':>9} {'times':>7}  function")
    for cost in costs[:top]:
        click.echo(f"{cost.own:8.2f} {cost.total:9.2f} {cost.invocations:7.2f}  {cost.function}")


if __name__ == "__main__":
    profiler()
