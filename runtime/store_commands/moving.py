"""`store copy` and `store move`: passes until there is nothing to do, with a bar that shows how far it is."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import click

from ..commands.console import plural
from .copying import Copy, CopyError, Pass, Target
from .emptying import Emptying
from .ledger import Ledger
from .progress import Progress
from .reaching import opened

__all__ = ["move", "move_out"]

SHORTEST_PASS = 0.5
"""Seconds between the beginnings of two passes, so that a small store is not asked all the time."""


async def move(source: str, target: str, *, tenant: str | None, verify: bool) -> None:
    """Copy until the target has all that the source has.

    Raises:
        CopyError: The two are one store, or the target takes no copies, or is in use already.
        NoStore, StoreError: As `opened`; or a store fails for a minute.
    """
    async with opened(source) as (here, from_, _), opened(target) as (there, to, _):
        identities = [getattr(store, "identity", None) for store in (here, there)]
        if identities[0] is None or identities[0] == identities[1]:
            raise CopyError(f"{from_.where} and {to.where} are one store; name two")
        with Ledger.open() as ledger:
            if not hasattr(there, "adopt"):
                raise CopyError(f"{to.where} takes no copies")
            progress = Progress()
            copy = Copy(
                here,
                cast("Target", there),
                ledger,
                tenant=tenant,
                looked=lambda done: progress.show(done.looked, _words(done)),
            )
            await copy.learn()
            progress.total = await copy.count()
            click.echo(f"{plural(progress.total, 'session')} at {from_.where}, to {to.where}", err=True)
            await _until_done(copy, progress, verify)
    click.echo(
        f"{to.where} has all {plural(progress.total, 'session')}{', compared byte by byte' if verify else ''}. If "
        "nodes still run with the source, stop them and copy once more: it takes only what has changed"
    )


async def _until_done(copy: Copy, progress: Progress, verify: bool) -> None:
    thorough = False
    while True:
        began = time.monotonic()
        progress.begin("comparing" if thorough else "copying")
        done = await copy.one_pass(thorough=thorough)
        progress.end(done.looked, _words(done))
        if done.quiet and (thorough or not verify):
            return
        thorough = done.quiet
        if not done.quiet:
            await asyncio.sleep(max(0.0, began + SHORTEST_PASS - time.monotonic()))


def _words(done: Pass) -> str:
    return f"{done.copied} copied, {done.removed} removed that had ended"


async def move_out(source: str, target: str, *, rate: float | None, verify: bool) -> None:
    """Move until nothing is left in the source.

    Raises:
        EmptyingError: The target holds a copy of the source.
        StoreURLError: The two are one store, or the target takes no records.
        NoStore, StoreError: As `opened`; or a store fails for a minute.
    """
    async with opened(source) as (here, from_, _), opened(target) as (there, to, _):
        progress = Progress()
        emptying = Emptying(
            here, there, rate=rate, verify=verify, looked=lambda done: progress.show(done.looked, f"{done.moved} moved")
        )
        progress.total = await emptying.check()
        click.echo(f"{plural(progress.total, 'session')} at {from_.where}, to {to.where}", err=True)
        moved = 0
        while True:
            began = time.monotonic()
            progress.begin("moving")
            done = await emptying.one_pass()
            if not done.looked:
                break
            progress.end(done.looked, f"{done.moved} moved, {done.gone} had moved or ended")
            moved += done.moved
            await asyncio.sleep(max(0.0, began + SHORTEST_PASS - time.monotonic()))
        left = await emptying.tidy()
        if left:
            click.echo(f"removed what {plural(left, 'move')} that came to nothing had left at {to.where}", err=True)
    compared = ", compared byte by byte" if verify else ""
    click.echo(
        f"nothing is left at {from_.where}: moved {plural(moved, 'session')}{compared}. When every node runs with "
        "--former-store, start each without it"
    )
