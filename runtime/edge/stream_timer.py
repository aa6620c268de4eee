"""`StreamTimer`: what time asks of a connection that a stream is written to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from types import TracebackType
from typing import Any, Self

from ..wire.http import Send

__all__ = ["StreamTimer"]


class StreamTimer:
    """Tells when the stream has been silent for too long, and ends its block with `TimeoutError` when the client takes
    nothing.

    A write only leaves a mark, at which the timer looks when it goes off: a deadline of its own for each write costs
    half as much as the write. It goes off once in a `silence`, or where nobody is to be told, once in a `patience`
    during which there was a write.
    """

    __slots__ = ("_deadline", "_loop", "_marked", "_on_silence", "_patience", "_send", "_silence", "_timer", "_writing")

    def __init__(self, send: Send, *, patience: float, silence: float | None, on_silence: Callable[[], object]) -> None:
        """`patience`: seconds that one write may take. `silence`: seconds after the last write, upon which `on_silence`
        is called, which must not raise; None: never.
        """
        self._send = send
        self._patience = patience
        self._silence = silence
        self._on_silence = on_silence
        self._loop = asyncio.get_running_loop()
        self._deadline = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self._marked = 0.0

    async def __aenter__(self) -> Self:
        await self._deadline.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        if self._timer is not None:
            self._timer.cancel()
        return await self._deadline.__aexit__(exc_type, exc, tb)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """An ASGI `send` that is watched. One at a time."""
        self._writing = True
        self._marked = self._loop.time()
        if self._timer is None:
            self._set(self._patience)
        await self._send(message)
        self._writing = False
        self._marked = self._loop.time()

    def _set(self, delay: float) -> None:
        # A write may end, and a silence begin, at any moment before that.
        soon = delay if self._silence is None else min(delay, self._silence)
        self._timer = self._loop.call_later(soon, self._look)

    def _look(self) -> None:
        self._timer = None
        passed = self._loop.time() - self._marked
        if self._writing:
            if passed < self._patience:
                self._set(self._patience - passed)
            else:
                self._deadline.reschedule(self._loop.time())
        elif self._silence is not None:
            if passed < self._silence:
                self._set(self._silence - passed)
            else:
                self._set(self._silence)
                self._on_silence()
