"""`StreamLog`: writes this node's streams to the event log."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from types import TracebackType
from typing import Any, Final, Self

from ...actors.clock import Clock, SystemClock, within
from ...actors.session.exchange import Exchange
from ...actors.task_owner import TaskOwner
from ...stores import Address, EventLog, StoreError, StoreUnavailable, StreamTaken
from ...stores.memory_events import MemoryEventLog
from .log_outage import LogOutage
from .transcript import Transcript

__all__ = ["StreamLog"]

logger = logging.getLogger(__name__)

WORKERS: Final = 64
"""Appends at once, of as many streams."""


class StreamLog:
    """Log before send: a message leaves for the client once the log has it, in batches, one in flight per stream.

    While the log is out of reach messages leave all the same, and what can still be logged is, later: a stream is then
    resumable at another node up to where the log has it. Enter it, so that its tasks have an owner; leaving waits for
    nothing: `flush` first.
    """

    def __init__(
        self, log: EventLog, *, writer: Callable[[], str], timeout: float = 5.0, clock: Clock | None = None
    ) -> None:
        """`writer`: names this life of the node, in the log. `timeout`: seconds for one answer of the log."""
        self.log = log
        self.writer = writer
        self.timeout = timeout
        self.clock = clock or SystemClock()
        self.taken: Callable[[Address, Exchange, list[bytes]], None] | None = None
        """Told of each stream that another node writes now, and of what has reached nobody of it. Must not raise."""
        # It never waits, so that neither a task nor a deadline is needed to append to it. What derives from it may.
        self._at_once = log if type(log) is MemoryEventLog else None
        self._tasks = TaskOwner()
        self._running: set[asyncio.Task[Any]] = set()
        self._queue: deque[Transcript] = deque()
        self._workers = 0
        self._starting = False
        self._outage = LogOutage(self.clock, spawn=self.spawn, attempt=self._append, over=self._note)
        self._context = copy_context()
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.appends = self.stolen = self.given_up = 0

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._closed = True
        for transcript in [*self._queue, *self._outage.behind]:
            self._let_go(transcript)
        for task in self._running:
            task.cancel()
        await self._tasks.__aexit__(None, None, None)

    @property
    def closed(self) -> bool:
        """It has been left: nothing can be spawned any more."""
        return self._closed

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, which must not raise, until this is left at the latest."""
        # In nobody's name: it may go on with the streams of others.
        task = self._tasks.spawn(work, context=self._context.copy())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # What is to be logged

    def record(self, transcript: Transcript, *, opening: bool) -> None:
        """Log a stream from here on. `opening`: that it is there too, before its first message."""
        exchange = transcript.exchange
        if self._closed:
            return
        exchange.logged = transcript.done
        exchange.when_written = lambda: self._written(transcript)
        if opening or transcript.due:
            self._note(transcript)

    def _written(self, transcript: Transcript) -> None:
        if not transcript.queued and transcript.due:
            self._note(transcript)

    def forget(self, exchange: Exchange, transcript: Transcript) -> None:
        """Log no more of it: it is over, or nobody can want it any more."""
        transcript.over = True
        exchange.when_written = None
        exchange.logged = None
        self._outage.behind.pop(transcript, None)
        transcript.tell()

    async def settled(self, transcript: Transcript) -> None:
        """Return when the log has what has been written so far, or is out of reach."""
        written = transcript.exchange.last
        while not (transcript.over or transcript in self._outage.behind or transcript.done >= written):
            told = asyncio.get_running_loop().create_future()
            transcript.waiting.append(told)
            await told

    def is_behind(self, transcript: Transcript) -> bool:
        """Whether messages have left, or may leave, that the log lacks."""
        return transcript in self._outage.behind

    async def flush(self, timeout: float) -> None:
        """Return when the log has everything, is out of reach, or after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("%d streams could not be logged within %g s", len(self._queue) + self._workers, timeout)

    # Workers

    def _note(self, transcript: Transcript) -> None:
        if self._closed:
            self._let_go(transcript)
            return
        transcript.queued = True
        if transcript.running:
            return
        self._queue.append(transcript)
        self._idle.clear()
        if self._at_once is None:
            self._work_soon()
        elif not self._starting:
            # Not now: what a tool sends in one go is one append.
            self._starting = True
            asyncio.get_running_loop().call_soon(self._work_now)

    def _work_now(self) -> None:
        """What `_work` does, without a task."""
        self._starting = False
        assert self._at_once is not None
        while self._queue and not self._closed:
            transcript = self._queue.popleft()
            while transcript.queued:
                if not self._append_now(transcript, self._at_once):
                    _run_through(self._advance(transcript))
        self._idle.set()

    def _append_now(self, transcript: Transcript, log: MemoryEventLog) -> bool:
        """Append what is due of one stream, if nothing is special about it; whether it was so."""
        if transcript.over or transcript.anew or transcript.broken or self._outage.lasts:
            return False
        batch = transcript.batch()
        try:
            log.append_now(
                transcript.address,
                transcript.name,
                batch.first,
                batch.events,
                head=transcript.head(),
                writer=transcript.writer,
                ends=batch.ends,
            )
        except Exception:
            # `_append` meets it again, and knows what to do.
            return False
        transcript.queued = False
        self.appends += 1
        self._acknowledged(transcript, batch.upto, ended=batch.ends)
        return True

    def _work_soon(self) -> None:
        if not self._starting and self._workers < WORKERS:
            self._starting = True
            self._workers += 1
            self.spawn(self._work())

    async def _work(self) -> None:
        self._starting = False
        try:
            while self._queue:
                transcript = self._queue.popleft()
                if self._queue:
                    # Finds nothing left to do unless the append makes this one wait.
                    self._work_soon()
                await self._advance(transcript)
                if transcript.queued and not self._closed:
                    self._queue.append(transcript)
        finally:
            self._workers -= 1
            if not self._workers and not self._queue:
                self._idle.set()

    async def _advance(self, transcript: Transcript) -> None:
        """Append what is due of one stream, once."""
        transcript.queued = False
        if transcript.over:
            return
        if self._outage.lasts:
            self._outage.fall_behind(transcript)
            return
        await self._append(transcript)

    async def _append(self, transcript: Transcript) -> bool:
        if transcript.broken and not transcript.anew:
            if transcript.renew is None:
                await self._give_up(transcript)
                return True
            transcript.renew()
        batch = transcript.batch()
        stretch = transcript.stretch
        transcript.running = True
        try:
            if transcript.anew:
                await self._deadline(self.log.drop([(transcript.address, transcript.name)]))
            append = self.log.append(
                transcript.address,
                transcript.name,
                batch.first,
                batch.events,
                head=transcript.head(),
                writer=transcript.writer,
                ends=batch.ends,
            )
            await self._deadline(append)
        except StreamTaken as error:
            self.stolen += 1
            logger.info("%s", error)
            self._withdraw(transcript)
            return True
        except (StoreUnavailable, TimeoutError) as error:
            self._outage.note(error)
            self._outage.fall_behind(transcript)
            return False
        except Exception as error:
            logger.error(
                "stream %s of %s cannot be logged, and so not be resumed at another node: %s",
                transcript.name,
                transcript.address,
                error,
                exc_info=not isinstance(error, StoreError),
            )
            await self._give_up(transcript)
            return True
        finally:
            transcript.running = False
        self.appends += 1
        self._outage.lasts = False
        if stretch == transcript.stretch:
            self._acknowledged(transcript, batch.upto, ended=batch.ends)
        else:
            transcript.queued = transcript.due
        return True

    async def _deadline(self, work: Coroutine[Any, Any, None]) -> None:
        if self._at_once is not None:
            await work
        else:
            await within(self.clock, self.timeout, work)

    def _acknowledged(self, transcript: Transcript, upto: int, *, ended: bool) -> None:
        transcript.anew = False
        transcript.done = upto
        self._outage.behind.pop(transcript, None)
        transcript.tell()
        if transcript.over:
            return
        transcript.exchange.logged = upto
        if ended:
            transcript.over = True
            transcript.exchange.when_written = None
        elif transcript.due:
            transcript.queued = True

    # Trouble

    async def _give_up(self, transcript: Transcript) -> None:
        """The log cannot have the whole of this stream: better none of it than a part that looks like all."""
        self.given_up += 1
        self._let_go(transcript)
        try:
            await self._deadline(self.log.drop([(transcript.address, transcript.name)]))
        except Exception as error:
            logger.info("a part of stream %s stays in the log: %s", transcript.name, error or type(error).__name__)

    def _withdraw(self, transcript: Transcript) -> None:
        transcript.over = True
        self._outage.behind.pop(transcript, None)
        unheard = transcript.unheard
        transcript.exchange.withdraw()
        transcript.tell()
        if self.taken is not None:
            self.taken(transcript.address, transcript.exchange, unheard)

    def _let_go(self, transcript: Transcript) -> None:
        self.forget(transcript.exchange, transcript)

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {
            "streams_log_appends_total": self.appends,
            "streams_log_failed_total": self._outage.failed,
            "streams_log_taken_total": self.stolen,
            "streams_log_given_up_total": self.given_up,
            "streams_log_behind": len(self._outage.behind),
        }


def _run_through(step: Coroutine[Any, Any, None]) -> None:
    """Run what never waits."""
    try:
        step.send(None)
    except StopIteration:
        return
    step.close()
    raise AssertionError("an append to memory waited")
