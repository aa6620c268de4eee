"""`LogOutage`: the streams that go on while the event log is out of reach, and its coming back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from ...actors.clock import Clock
from .transcript import Transcript

__all__ = ["LogOutage"]

logger = logging.getLogger(__name__)

BACKOFF: Final = 0.25
LONGEST_BACKOFF: Final = 1.0
WARN_EVERY: Final = 60.0


class LogOutage:
    """One failed append is enough: while it lasts no stream waits for the log. One stream tries, until it succeeds;
    then all go on from where the log has them. Bounded by the streams that there are."""

    def __init__(
        self,
        clock: Clock,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        attempt: Callable[[Transcript], Awaitable[bool]],
        over: Callable[[Transcript], None],
    ) -> None:
        """`attempt` appends to a stream, and tells whether the log has answered. `over` is told of each stream that may
        go on.
        """
        self._clock = clock
        self._spawn = spawn
        self._attempt = attempt
        self._over = over
        self._retrying = False
        self._warned = float("-inf")
        self.lasts = False
        self.behind: dict[Transcript, None] = {}
        """Streams of which messages leave that the log lacks."""
        self.failed = 0

    def note(self, error: Exception) -> None:
        """An append has failed."""
        self.failed += 1
        self.lasts = True
        now = self._clock.monotonic()
        if now - self._warned >= WARN_EVERY:
            self._warned = now
            logger.warning(
                "the event log is out of reach (%s): streams go on, but what it lacks cannot be resumed at another "
                "node; %d appends have failed so far",
                error or type(error).__name__,
                self.failed,
            )

    def fall_behind(self, transcript: Transcript) -> None:
        """Let the messages of this stream leave without the log."""
        if transcript.over:
            if not self._retrying:
                # Nobody would find out that the log is there again.
                self.lasts = False
            return
        self.behind[transcript] = None
        if transcript.renew is not None and not transcript.anew:
            transcript.renew()
        transcript.exchange.logged = None
        transcript.tell()
        if not self._retrying:
            self._retrying = True
            self._spawn(self._retry())

    async def _retry(self) -> None:
        wait = BACKOFF
        try:
            while self.behind:
                await self._clock.sleep(wait)
                wait = min(wait * 2, LONGEST_BACKOFF)
                if not self.behind:
                    break
                probe = next(iter(self.behind))
                if probe.running or (not probe.due and probe.done >= 0):
                    # Its own append is on the way, or there is nothing to say after all.
                    del self.behind[probe]
                    continue
                if await self._attempt(probe):
                    wait = BACKOFF
                    self.lasts = False
                    for transcript in [*self.behind, *([probe] if probe.queued else [])]:
                        self.behind.pop(transcript, None)
                        self._over(transcript)
        finally:
            self._retrying = False
            if not self.behind:
                self.lasts = False
