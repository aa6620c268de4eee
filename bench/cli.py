"""`understudy bench`: the command group that the main command line loads when it is asked for it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import click

from ..stores import UnderstudyError
from .asgi import Refused
from .measure import Effort, Progress
from .report import Report

__all__ = ["bench"]

Measure = Callable[[Effort, Progress], Awaitable[Report]]


@click.group()
def bench() -> None:
    """Measure understudy beside what it is compared with.

    The sides take turns within one run, and each figure is the median of several rounds, with the smallest and the
    largest beside it. Progress goes to standard error, the report to standard output.
    """


def _command(
    name: str, help: str, measure: Callable[[], Callable[..., Awaitable[Report]]], *own: click.Option, rounds: int = 5
) -> None:
    """`own`: options of this one, which `measure` is given by their names."""

    @bench.command(name, help=help)
    @click.option(
        "--rounds", type=click.IntRange(1, 100), default=rounds, show_default=True, help="How often to measure."
    )
    @click.option("--quick", is_flag=True, help="Run every line once: shows that it works, measures nothing.")
    @click.option("--json", "as_json", is_flag=True, help="Write the report as JSON.")
    def command(rounds: int, quick: bool, as_json: bool, **given: Any) -> None:
        def progress(said: str) -> None:
            click.echo(f"bench {name}: {said}", err=True)

        try:
            report = anyio.run(partial(measure(), **given), Effort.of(rounds, quick=quick), progress)
        except (Refused, UnderstudyError) as refused:
            raise click.ClickException(str(refused)) from refused
        except BaseExceptionGroup as group:
            # A host runs in a task group, which wraps whatever passes through it.
            refusals, others = group.split((Refused, UnderstudyError))
            if refusals is None or others is not None:
                raise
            # Many in flight are mostly refused for one reason.
            said = list(dict.fromkeys(_leaves(refusals)))
            more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
            raise click.ClickException("; ".join(said[:3]) + more) from group
        click.echo(json.dumps(report.as_json(), indent=2) if as_json else report.as_text())

    command.params = [*own, *command.params]


def _leaves(group: BaseExceptionGroup[Refused | UnderstudyError]) -> list[str]:
    return [
        said
        for each in group.exceptions
        for said in (_leaves(each) if isinstance(each, BaseExceptionGroup) else [str(each)])
    ]


def _kernel() -> Measure:
    from .kernel import bench_kernel

    return bench_kernel


def _edge() -> Measure:
    from .edge import bench_edge

    return bench_edge


def _memory() -> Measure:
    from .memory import bench_memory

    return bench_memory


def _actors() -> Measure:
    try:
        from .actors import bench_actors
    except ModuleNotFoundError as error:
        if error.name != "pykka":
            raise
        raise click.ClickException("bench actors measures Pykka too: pip install 'understudy[dev]'") from error
    return bench_actors


def _forward() -> Measure:
    with _needs_cluster("forward"):
        from .forward import bench_forward

    return bench_forward


def _failover() -> Measure:
    with _needs_cluster("failover"):
        from .failover import bench_failover

    return bench_failover


def _scale() -> Measure:
    with _needs_cluster("scale"):
        from .scale import bench_scale

    return bench_scale


def _noisy() -> Measure:
    from .noisy import bench_noisy

    return bench_noisy


def _streams() -> Measure:
    with _needs_cluster("streams"):
        from .streams import bench_streams

    return bench_streams


def _stores() -> Callable[..., Awaitable[Report]]:
    from .stores import bench_stores

    return bench_stores


def _coldstart() -> Callable[..., Awaitable[Report]]:
    from .coldstart import bench_coldstart

    return bench_coldstart


def _tenants() -> Measure:
    from .tenants import bench_tenants

    return bench_tenants


def _limits() -> Measure:
    from .limits import bench_limits

    return bench_limits


@contextmanager
def _needs_cluster(name: str) -> Generator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "nats":
            raise
        raise click.ClickException(f"bench {name} runs a cluster: pip install 'understudy[cluster]'") from error


_command("kernel", "One call: the SDK's bare kernel and understudy.", _kernel)
_command("edge", "Calls and sessions a second: the SDK and understudy.", _edge)
_command("memory", "Bytes a session, alive and asleep; time to wake.", _memory, rounds=3)
_command("actors", "Messages a second: actors, Pykka and bare queues.", _actors)
_command("forward", "Calls through another node: raw NATS, the link, a cluster.", _forward)
_command("failover", "How long a call waits when its node dies or hangs.", _failover, rounds=3)
_command("scale", "What a cluster needs: 3 to 1,000 nodes, 10^4 to 10^7 sessions.", _scale, rounds=3)
_command("streams", "Events a second, idle streams, resumption: the SDK and understudy.", _streams, rounds=3)
_command("tenants", "What a call pays to be known, by API key or token, and named in logs and metrics.", _tenants)
_URLS = click.Option(
    ["--url", "urls"],
    multiple=True,
    metavar="URL",
    help="A store that is there already; repeatable. It is left as it was. [default: start what this machine has]",
)
_command("stores", "Each operation of a store, beside the client library that it is made of.", _stores, _URLS, rounds=3)
_command("coldstart", "From the start of a process to a sleeping session's first answer.", _coldstart, _URLS, rounds=7)
_HTTP = click.Option(
    ["--http"], is_flag=True, help="Over real HTTP in one process, by the node's processor time, clients left out."
)
_command(
    "noisy", "A tenant's p99 beside one at 50 times its share, with and without fair queues.", _noisy, _HTTP, rounds=3
)
_command("limits", "A local call with and without limits of its tenant.", _limits)
