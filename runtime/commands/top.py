"""`understudy top`: a live page of the cluster on the terminal, by plain ANSI sequences."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import termios
import textwrap
import time
import tty
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import click

from ...stores import UnderstudyError
from .console import age
from .finding import Found
from .operator import Operator
from .operator_errors import OperatorError
from .top_rows import Look, Row, page, row_of

__all__ = ["watch"]

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_TITLE, _HEADERS = 0, 2
"""Lines of the page."""
_BOLD, _REVERSE, _PLAIN = "\x1b[1m", "\x1b[7m", "\x1b[0m"


async def watch(found: Found, *, interval: float, once: bool) -> None:
    """Show the page every `interval` seconds until q, Ctrl-C or SIGTERM; with `once`, one page over one interval.

    Raises:
        NoCluster, NatsUnavailable: The cluster cannot be seen, or no longer (with `once`).
        OperatorError: There is no terminal, and it was not `once`.
    """
    if not once and not sys.stdout.isatty():
        raise OperatorError("there is no terminal to show a live page on: use --once")
    async with Operator.reach(found) as operator:
        looks: dict[str, Look] = {}
        where = found.settings.where
        if once:
            looks, _ = await _look(operator, looks)
            await asyncio.sleep(interval)
            _, rows = await _look(operator, looks)
            click.echo("\n".join(page(operator.names.cluster, where, rows)))
            return
        rows: list[Row] = []
        seen_at = time.monotonic()
        with _terminal() as screen:
            while not screen.left.is_set():
                note = f"every {interval:g} s; q ends"
                seen = await _look_unless_left(screen, operator, looks)
                if seen is None:
                    break
                if isinstance(seen, UnderstudyError):
                    note = f"as of {age(time.monotonic() - seen_at)} ago; q ends: {seen}"
                else:
                    looks, rows = seen
                    seen_at = time.monotonic()
                lines = page(operator.names.cluster, where, rows, note)
                screen.draw(lines)
                await screen.wait(interval, lines)


async def _look_unless_left(
    screen: _Screen, operator: Operator, before: dict[str, Look]
) -> tuple[dict[str, Look], list[Row]] | UnderstudyError | None:
    """What is seen, or why nothing is; None if somebody did not want to wait for it."""

    async def look() -> tuple[dict[str, Look], list[Row]] | UnderstudyError:
        try:
            return await _look(operator, before)
        except UnderstudyError as error:
            return error

    async with asyncio.TaskGroup() as tasks:
        looking, leaving = tasks.create_task(look()), tasks.create_task(screen.left.wait())
        done, _ = await asyncio.wait((looking, leaving), return_when=asyncio.FIRST_COMPLETED)
        looking.cancel()
        leaving.cancel()
    return looking.result() if looking in done else None


async def _look(operator: Operator, before: dict[str, Look]) -> tuple[dict[str, Look], list[Row]]:
    nodes = await operator.nodes()
    answers = await operator.ask_all([seen.news.node for seen in nodes if seen.alive], "status", timeout=2.0)
    looks: dict[str, Look] = {}
    now = time.monotonic()
    for seen in nodes:
        node = seen.news.node
        answer = answers.get(node)
        status = None if isinstance(answer, OperatorError) else answer
        state = "silent" if status is None and seen.alive else seen.condition
        looks[node] = Look(now, node, state, seen.age, status)
    return looks, [row_of(before.get(node), look) for node, look in looks.items()]


class _Screen:
    def __init__(self) -> None:
        self.left = asyncio.Event()
        self._resized = asyncio.Event()

    def key(self) -> None:
        with contextlib.suppress(OSError):
            pressed = os.read(sys.stdin.fileno(), 64)
            if not pressed:
                # The terminal is gone.
                asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            if not pressed or pressed[:1] in b"qQ\x03\x04":
                self.left.set()

    def resized(self) -> None:
        self._resized.set()

    def draw(self, lines: Sequence[str]) -> None:
        width, height = shutil.get_terminal_size()
        # The table is cut where the terminal ends; what is said below it goes on in the next line.
        folded = [part for line in lines[-1:] for part in textwrap.wrap(line, max(1, width)) or [""]]
        shown = [line[:width] for line in [*lines[:-1], *folded][: max(1, height)]]
        painted = [_painted(number, line, width) for number, line in enumerate(shown)]
        # Line by line over what was there, so that nothing flickers; no line break after the last, which would scroll.
        body = "\r\n".join(f"{line}{_CLEAR_LINE}" for line in painted)
        sys.stdout.write(f"{_HOME}{body}{_CLEAR_BELOW}")
        sys.stdout.flush()

    async def wait(self, seconds: float, lines: Sequence[str]) -> None:
        """Until it is time for the next look, or to leave; a terminal of another size is drawn anew meanwhile."""
        until = time.monotonic() + seconds
        while not self.left.is_set() and (rest := until - time.monotonic()) > 0:
            self._resized.clear()
            async with asyncio.TaskGroup() as tasks:
                events = [tasks.create_task(self.left.wait()), tasks.create_task(self._resized.wait())]
                await asyncio.wait(events, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
                for event in events:
                    event.cancel()
            if self._resized.is_set():
                self.draw(lines)


def _painted(number: int, line: str, width: int) -> str:
    if number == _TITLE:
        return f"{_BOLD}{line}{_PLAIN}"
    return f"{_REVERSE}{line.ljust(width)}{_PLAIN}" if number == _HEADERS else line


@contextmanager
def _terminal() -> Generator[_Screen]:
    """The alternate screen, keys as they are pressed; the terminal is as it was before when the block is left."""
    screen = _Screen()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, screen.left.set)
    for number in (signal.SIGWINCH, signal.SIGCONT):
        loop.add_signal_handler(number, screen.resized)
    before = None
    if sys.stdin.isatty():
        before = termios.tcgetattr(sys.stdin.fileno())
        tty.setcbreak(sys.stdin.fileno())
        loop.add_reader(sys.stdin.fileno(), screen.key)
    sys.stdout.write(_ENTER)
    try:
        yield screen
    finally:
        if before is not None:
            loop.remove_reader(sys.stdin.fileno())
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
        for number in (*numbers, signal.SIGWINCH, signal.SIGCONT):
            loop.remove_signal_handler(number)
        with contextlib.suppress(OSError):
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
