"""`store copy`: passes of a `Copy` until there is nothing to do, with a bar that shows how far it is."""

from __future__ import annotations

import asyncio
import sys
import time

import click

from ..commands.console import plural
from .copying import Copy, CopyError, Pass
from .ledger import Ledger
from .reaching import opened

__all__ = ["move"]

SHORTEST_PASS = 0.5
"""Seconds between the beginnings of two passes, so that a small store is not asked all the time."""

_WIDTH = 30


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
            progress = _Progress()
            copy = Copy(here, there, ledger, tenant=tenant, looked=progress.show)  # pyright: ignore[reportArgumentType]
            await copy.learn()
            progress.total = await copy.count()
            click.echo(f"{plural(progress.total, 'session')} at {from_.where}, to {to.where}", err=True)
            await _until_done(copy, progress, verify)
    click.echo(
        f"{to.where} has all {plural(progress.total, 'session')}{', compared byte by byte' if verify else ''}. If "
        "nodes still run with the source, stop them and copy once more: it takes only what has changed"
    )


async def _until_done(copy: Copy, progress: _Progress, verify: bool) -> None:
    thorough = False
    while True:
        began = time.monotonic()
        progress.begin("comparing" if thorough else "copying")
        done = await copy.one_pass(thorough=thorough)
        progress.end(done)
        if done.quiet and (thorough or not verify):
            return
        thorough = done.quiet
        if not done.quiet:
            await asyncio.sleep(max(0.0, began + SHORTEST_PASS - time.monotonic()))


class _Progress:
    """A bar on a terminal, and a line for each pass anywhere."""

    def __init__(self) -> None:
        self.total = 0
        self._terminal = sys.stderr.isatty()
        self._began = 0.0
        self._shown = 0.0
        self._doing = ""

    def begin(self, doing: str) -> None:
        """A pass begins."""
        self._began = time.monotonic()
        self._doing = doing

    def show(self, so_far: Pass) -> None:
        """How far it is, five times a second at most."""
        now = time.monotonic()
        if not self._terminal or now < self._shown + 0.2:
            return
        self._shown = now
        part = min(so_far.looked / self.total, 1.0) if self.total else 1.0
        bar = "#" * round(part * _WIDTH)
        rate = so_far.looked / max(now - self._began, 0.001)
        left = max(self.total - so_far.looked, 0) / max(rate, 1.0)
        click.echo(
            f"\r{self._doing} [{bar:<{_WIDTH}}] {part:4.0%}  {so_far.looked} looked at, {so_far.copied} copied, "
            f"{rate:.0f}/s, {left:.0f} s left \033[K",
            nl=False,
            err=True,
        )

    def end(self, done: Pass) -> None:
        """A pass is over."""
        self.total = done.looked
        if self._terminal:
            click.echo("\r\033[K", nl=False, err=True)
        click.echo(
            f"{self._doing}: {done.looked} looked at, {done.copied} copied, {done.removed} removed that had ended, "
            f"in {time.monotonic() - self._began:.1f} s",
            err=True,
        )
