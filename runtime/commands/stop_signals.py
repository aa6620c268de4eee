"""`StopSignals`: when a serving process is asked to stop, and when it is ended although it did not."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import threading
from typing import Any, Self

from .child import LIFELINE

__all__ = ["OVERTIME", "StopSignals", "inherited_fd", "on_loop_error"]

logger = logging.getLogger("understudy.serve")

OVERTIME = 15.0
"""Seconds, after the drain's own, that cancelled turns, lifespans and the HTTP server have before the process ends."""


def _leave_without() -> None:
    logger.error("some turns did not stop within their time and %g s more: leaving without them", OVERTIME)
    logging.shutdown()
    os._exit(1)


class StopSignals:
    """SIGTERM and SIGINT inside a `with`: the first sets `asked`, the second ends the process at once.

    So does the end of the process that started this one, where that one holds a lifeline (see `child`).
    """

    def __init__(self, longest: float | None = None) -> None:
        """`longest`: seconds after the first signal at which the process ends whatever still runs; None: never."""
        self._longest = longest
        self.asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._lifeline = inherited_fd(LIFELINE)

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)
        if self._lifeline is not None:
            self._loop.add_reader(self._lifeline, self._on_lifeline)
        self._loop.set_exception_handler(on_loop_error)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)
        self._drop_lifeline()

    def _on_signal(self, number: signal.Signals) -> None:
        if self.asked.is_set():
            logger.warning("second %s: leaving at once", number.name)
            os._exit(128 + number)
        self._ask()

    def _on_lifeline(self) -> None:
        self._drop_lifeline()
        self._ask()

    def _ask(self) -> None:
        self.asked.set()
        if self._longest is not None:
            # A tool that swallows its cancellation, or a thread that works on, must not keep the process for ever. A
            # thread, since the loop may be what is kept busy.
            watchdog = threading.Timer(self._longest, _leave_without)
            watchdog.daemon = True
            watchdog.start()

    def _drop_lifeline(self) -> None:
        if self._lifeline is not None:
            self._loop.remove_reader(self._lifeline)
            os.close(self._lifeline)
            self._lifeline = None


def inherited_fd(name: str) -> int | None:
    """A descriptor that `child` passed on, taken out of the environment so that it goes no further."""
    text = os.environ.pop(name, "")
    if not text.isdecimal():
        return None
    os.set_inheritable(int(text), False)
    return int(text)


def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # A client that breaks off its TLS handshake is its own business; hypercorn and uvicorn let it reach the loop.
    if isinstance(context.get("exception"), ssl.SSLError):
        logger.debug("TLS handshake failed: %s", context["exception"])
        return
    loop.default_exception_handler(context)
