"""`serve --reload`: a new process for each change of the target's code. Sessions live in the store and carry over."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Self

from ..telemetry.logs import configure_logging
from .child import ServeProcess
from .config import ServeOptions
from .serve import bind
from .target import watch_roots

__all__ = ["changed_files", "serve_with_reload", "source_files"]

logger = logging.getLogger("understudy.reload")

POLL = 0.5
"""Seconds between looks at the files."""

MAX_FILES = 5000
"""Files watched at most; a tree with more is watched in part, which is said."""

_SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "dist"}

Stamp = tuple[int, int]


def serve_with_reload(spec: str, options: ServeOptions, args: Sequence[str]) -> int:
    """Keep a process with the command line `args` serving the target, started anew whenever its code changes.

    The listening socket is held here, so that a client that calls during a restart waits and is not refused. SIGTERM
    and SIGINT stop the process in order; returns its exit code.

    Raises:
        BindError: The host and port cannot be listened on.
        TargetError: `spec` is not of the form module:attr or file.py:attr.
    """
    configure_logging(options.log_format, options.log_level)
    roots = watch_roots(spec)
    sock = bind(options.host, options.port)
    logger.info("watching the Python files in %s", ", ".join(str(root) for root in roots))
    with sock, _Stop() as stop:
        seen = source_files(roots)
        if len(seen) == MAX_FILES:
            logger.warning("there are more than %d of them; the rest is not watched", MAX_FILES)
        child = ServeProcess(args, listen=sock)
        stop.child = child
        ended_said = False
        try:
            while not stop.asked:
                code = child.wait(POLL) if not ended_said else _nap(POLL)
                if code is not None and not ended_said:
                    if code == 0 or stop.asked:
                        break
                    logger.warning("the server ended with exit code %d; waiting for a change", code)
                    ended_said = True
                now = source_files(roots)
                if changed := changed_files(seen, now):
                    logger.info("%s changed: starting anew", ", ".join(_short(path) for path in changed[:3]))
                    child.close(options.drain_timeout + 10.0)
                    if not stop.asked:
                        child = stop.child = ServeProcess(args, listen=sock)
                        ended_said = False
                    # As it was before the start: what changes while the new process imports is seen next time.
                    seen = now
        finally:
            code = child.close(options.drain_timeout + 10.0)
    if stop.asked and code == -signal.SIGTERM:
        # It was still starting, and had nothing to lose.
        return 0
    return code if code >= 0 else 128 - code


def source_files(roots: Iterable[Path]) -> dict[Path, Stamp]:
    """The Python files below `roots` with what changes when they do. Hidden directories, virtual environments and
    caches are left out."""
    found: dict[Path, Stamp] = {}
    for file in _walk(roots):
        if len(found) >= MAX_FILES:
            break
        try:
            status = os.stat(file)
        except OSError:
            continue
        found[Path(file)] = (status.st_mtime_ns, status.st_size)
    return found


def changed_files(before: Mapping[Path, Stamp], after: Mapping[Path, Stamp]) -> list[Path]:
    """Those that are new, gone or different, sorted."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def _walk(roots: Iterable[Path]) -> Iterator[str]:
    for root in roots:
        for directory, inner, files in os.walk(root):
            if "pyvenv.cfg" in files:
                inner.clear()
                continue
            inner[:] = sorted(name for name in inner if not name.startswith(".") and name not in _SKIPPED)
            for name in sorted(files):
                if name.endswith(".py"):
                    yield os.path.join(directory, name)


class _Stop:
    """SIGTERM, SIGINT and SIGHUP passed on to the child as SIGTERM; what a second one does is its affair."""

    def __init__(self) -> None:
        self.asked = False
        self.child: ServeProcess | None = None
        self._old: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType] - as `signal` gave it

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if self.child is not None and self.child.exit_code is None:
            self.child.terminate()


def _nap(seconds: float) -> None:
    time.sleep(seconds)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
