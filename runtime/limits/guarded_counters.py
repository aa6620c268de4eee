"""`GuardedCounters`: shared counters that may fail or hang, and what is done then."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, Literal, TypeVar

from ...actors.clock import Clock
from ...actors.task_owner import TaskOwner
from .awake import within_awake
from .counters import Counters, CountersBusy, CountersUnavailable, MemoryCounters

__all__ = ["GuardedCounters", "WhenCountersFail"]

logger = logging.getLogger("understudy.limits")

T = TypeVar("T")

WhenCountersFail = Literal["open", "closed"]
"""`open`: each node applies the limits by itself, alone. `closed`: what would need the counters is refused."""

DEADLINE: Final = 0.25
"""Seconds that the counters may take, while the event loop is not held up: more than any change that goes well."""
FIRST_LOOK: Final = 0.5
LONGEST_LOOK: Final = 4.0
"""Seconds between two looks whether counters that were out of reach are back, at first and at most."""
TRIES: Final = 10
PAUSE: Final = 0.002
LONGEST_PAUSE: Final = 0.05
"""Seconds: up to so long is waited, at first and at most, when other nodes were faster at every try."""
LOOK_TIMEOUT: Final = 2.0
"""Seconds that such a look may take: what they need to count may have to be made anew."""
_LOOKED_AT: Final = "look"


class GuardedCounters:
    """Asks `inner` within a deadline. After a failure nobody waits: a task of its own looks until they are back.

    What was last seen of each record is kept, so that a node that counts alone goes on from there.
    """

    def __init__(
        self,
        inner: Counters,
        *,
        when_failing: WhenCountersFail,
        clock: Clock,
        tasks: TaskOwner,
        deadline: float = DEADLINE,
    ) -> None:
        """`tasks`: owns the looking, which ends when it is cancelled. `deadline` in seconds."""
        self._inner = inner
        self.when_failing: WhenCountersFail = when_failing
        self._clock = clock
        self._tasks = tasks
        self._deadline = deadline
        self._seen = MemoryCounters()
        self._looking: asyncio.Task[None] | None = None
        self.away = False
        """The counters are out of reach."""
        self.failures = 0
        self.outages = 0

    @property
    def shared(self) -> bool:
        return self._inner.shared

    @property
    def generation(self) -> int:
        """See `Counters`. Another one after each outage too, as this node may have counted alone meanwhile."""
        return self.outages + getattr(self._inner, "generation", 0)

    async def change(
        self, key: str, step: Callable[[bytes | None, bool], tuple[bytes | None, T]], lasting: float | None = None
    ) -> tuple[T, bool]:
        """As `Counters.change`; `step` is also told whether this node counts alone. The step's result, and the same.

        Raises:
            CountersUnavailable: They are out of reach, and this node must not count alone.
        """
        pause = PAUSE
        for _ in range(TRIES):
            if self.away:
                break
            try:
                record, result = await within_awake(
                    self._clock, self._deadline, self._inner.change(key, lambda record: step(record, False), lasting)
                )
            except CountersBusy:
                # They answer, and that is what the deadline is about.
                await asyncio.sleep(pause * random.random())
                pause = min(pause * 2, LONGEST_PAUSE)
            except (CountersUnavailable, TimeoutError) as error:
                self._failed(error)
            else:
                self._seen.put(key, record)
                return result, False
        if not self.away:
            self.failures += 1
        if self.when_failing == "closed":
            raise CountersUnavailable("the counters of the limits are out of reach")
        return self._seen.change_now(key, lambda record: step(record, True))[1], True

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if self.away:
            return
        self.away = True
        self.outages += 1
        what = (
            "this node applies them by itself, alone"
            if self.when_failing == "open"
            else "what they would have to allow is refused"
        )
        logger.warning(
            "the counters of the limits are out of reach (%s); until they are back %s",
            error if str(error) else type(error).__name__,
            what,
        )
        self._looking = self._tasks.spawn(self._look())

    async def _look(self) -> None:
        pause = FIRST_LOOK
        began = self._clock.monotonic()
        while True:
            await self._clock.sleep(pause)
            pause = min(pause * 2, LONGEST_LOOK)
            try:
                await within_awake(self._clock, LOOK_TIMEOUT, self._inner.change(_LOOKED_AT, _touch, LONGEST_LOOK))
            except CountersBusy:
                break
            except (CountersUnavailable, TimeoutError):
                self.failures += 1
            except Exception:
                self.failures += 1
                logger.exception("the counters of the limits failed in a way that is not theirs to fail in")
            else:
                break
        self.away = False
        self._looking = None
        logger.info("the counters of the limits are back after %.1f s", self._clock.monotonic() - began)

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {
            "limits_counters_away": int(self.away),
            "limits_counting_alone": int(self.away and self.when_failing == "open"),
            "limits_counter_failures_total": self.failures,
            "limits_counter_outages_total": self.outages,
        }


def _touch(record: bytes | None) -> tuple[bytes | None, None]:
    # A change, because counters that can only be read are of no use.
    return b"1" if record != b"1" else b"2", None
