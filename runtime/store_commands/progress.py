"""`Progress`: a bar on a terminal, and a line for each pass anywhere."""

from __future__ import annotations

import sys
import time

import click

__all__ = ["Progress"]

_WIDTH = 30
_EVERY = 0.2
"""Seconds."""


class Progress:
    """How far a command's walk over many sessions is. `total` may be set as it becomes known."""

    def __init__(self) -> None:
        self.total = 0
        self._terminal = sys.stderr.isatty()
        self._began = 0.0
        self._shown = 0.0
        self._doing = ""

    def begin(self, doing: str) -> None:
        """A pass begins, in a word."""
        self._began = time.monotonic()
        self._doing = doing

    def show(self, looked: int, words: str) -> None:
        """So many were looked at, and what was done, a few times a second at most."""
        now = time.monotonic()
        if not self._terminal or now < self._shown + _EVERY:
            return
        self._shown = now
        part = min(looked / self.total, 1.0) if self.total else 1.0
        bar = "#" * round(part * _WIDTH)
        rate = looked / max(now - self._began, 0.001)
        left = max(self.total - looked, 0) / max(rate, 1.0)
        click.echo(
            f"\r{self._doing} [{bar:<{_WIDTH}}] {part:4.0%}  {looked} looked at, {words}, {rate:.0f}/s, {left:.0f} s "
            "left \033[K",
            nl=False,
            err=True,
        )

    def end(self, looked: int, words: str) -> None:
        """A pass is over."""
        self.total = looked
        if self._terminal:
            click.echo("\r\033[K", nl=False, err=True)
        took = time.monotonic() - self._began
        click.echo(f"{self._doing}: {looked} looked at, {words}, in {took:.1f} s", err=True)
