"""`Exchange`: the way back of one stream, from the session to whoever reads for the client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from mcp_types import RequestId

from ...stores import Address
from ..errors import Elsewhere, NodeDraining, RegistryFull
from .errors import ReadOnlyTurn, RequestCancelled, SessionError, StateError
from .wire import Refusal, encode, error_message, refusal_of, result_message

__all__ = ["Exchange"]

logger = logging.getLogger(__name__)

MAX_EVENTS: Final = 4096
MAX_BYTES: Final = 8 * 2**20
HIGH_WATER: Final = 256
"""Messages a live reader may lag behind before the writer waits for it."""
WRITER_PATIENCE: Final = 30.0
"""Seconds that a writer waits for a lagging reader before it goes on without it."""


class Exchange:
    """The messages of one stream in order and, for a request's stream, exactly one outcome at the end.

    Written by the session's turn, which never learns whether anybody reads: a dropped connection is no cancellation.
    Read by one edge at a time; `generation` tells an edge that another has taken over. Messages are numbered from 1
    and kept, within `MAX_EVENTS` and `MAX_BYTES`, so that a reader may come back (the oldest go first); those of a
    standalone stream only until they are read.

    For a request it also is the `Reply` of the turn.
    """

    __slots__ = (
        "_bytes",
        "_cut_early",
        "_events",
        "_first",
        "_waiter",
        "_writer",
        "attached",
        "can_move",
        "elsewhere",
        "finished",
        "generation",
        "id",
        "method",
        "modern",
        "no_room",
        "outcome",
        "read",
        "refusal",
        "request_id",
        "when_finished",
    )

    def __init__(self, request_id: RequestId | None, method: str, *, modern: bool = False) -> None:
        self.request_id = request_id
        """The JSON-RPC id of the request; None for a session's standalone stream."""
        self.method = method
        self.modern = modern
        self.id = ""
        """The stream's name within its session, once it may be resumed."""
        self.outcome: bytes | None = None
        """The encoded response, after the turn is over. For a reader it is one more message."""
        self.refusal: Refusal | None = None
        """Why there is no result, if there is none."""
        self.elsewhere: Address | None = None
        """The stream has ended without an outcome, because another node is to serve this address."""
        self.can_move = True
        """Whether somebody stands ready to send the request there; otherwise it fails instead."""
        self.no_room: RegistryFull | NodeDraining | None = None
        """There is no result because this node had no room for the session. The request has not run."""
        self.finished = False
        self.when_finished: Callable[[], None] | None = None
        self.generation = 0
        self.attached = False
        """Whether somebody reads at present."""
        self.read = 0
        """The number of the last message that the present reader has taken."""
        self._events: list[bytes] | None = None
        self._first = 1
        self._bytes = 0
        self._cut_early = False
        self._waiter: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    # Writing

    def send(self, message: dict[str, Any]) -> None:
        """Append a notification or a request to the client. Dropped if the stream is finished."""
        if not self.finished:
            self._append(encode(message))

    async def send_paced(self, message: dict[str, Any]) -> None:
        """`send`, then wait while the reader lags more than `HIGH_WATER` messages, up to `WRITER_PATIENCE` seconds.

        Before that, wait as long if what the reader has yet to take would have to make room. The first reader counts
        before it comes, which is as soon as there is something to read. One that lags longer loses its connection, not
        its messages. Cancellation leaves the message sent, or not sent at all.
        """
        if self.finished:
            return
        payload = encode(message)
        await self._until(lambda: self._bytes + len(payload) <= MAX_BYTES or self._unread + len(payload) <= MAX_BYTES)
        if not self.finished:
            self._append(payload)
        await self._until(lambda: self.last - self.read <= HIGH_WATER)

    async def _until(self, caught_up: Callable[[], bool]) -> None:
        """Wait for a reader that is present, or due, to catch up; after `WRITER_PATIENCE` seconds let go of it."""
        while not self.finished and (self.attached or not self.generation) and self.last > self.read:
            if caught_up():
                return
            if self._writer is None:
                self._writer = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(WRITER_PATIENCE):
                    await asyncio.shield(self._writer)
            except TimeoutError:
                self.cut()

    @property
    def _unread(self) -> int:
        """Bytes that the reader has yet to take."""
        return sum(map(len, (self._events or [])[max(self.read + 1 - self._first, 0) :]))

    def resolve(self, result: Any) -> None:
        """End the stream with the turn's result, or with an error if JSON cannot carry that."""
        if self.finished:
            return
        try:
            outcome = result_message(self.request_id, result)
        except ValueError as error:
            # no-silent-loss: the turn is over and saved, so that the client must hear something.
            logger.error("the result of %s cannot be sent: %s", self.method, error)
            self.fail(SessionError(f"The call is done, but its result cannot be sent as JSON: {error}"))
            return
        self._finish(outcome)

    def fail(self, error: BaseException) -> None:
        """End the stream with an error. What a tool may not do to its state is told to the model as a tool error.

        `Elsewhere` is no outcome: see `elsewhere`.
        """
        if self.finished:
            return
        if isinstance(error, Elsewhere) and self.can_move:
            self.elsewhere = error.address
            self._end()
            return
        if isinstance(error, RegistryFull | NodeDraining):
            self.no_room = error
        if isinstance(error, asyncio.CancelledError):
            error = RequestCancelled()
        if self.method == "tools/call" and isinstance(error, StateError | ReadOnlyTurn):
            result: dict[str, Any] = {"content": [{"type": "text", "text": str(error)}], "isError": True}
            if self.modern:
                result["resultType"] = "complete"
            self._finish(result_message(self.request_id, result))
            return
        self.refusal = refusal_of(error, modern=self.modern)
        self._finish(error_message(self.request_id, self.refusal))

    def close(self) -> None:
        """End a stream that has no outcome: the session's standalone one, or any when the session ends."""
        self.finished = True
        self._wake()

    def cut_from(self, generation: int) -> None:
        """`cut`, if the present reader is the one that attached as `generation`."""
        if generation == self.generation:
            self.cut()

    def cut(self) -> None:
        """Take the stream from its present reader, whose connection then closes. The stream itself goes on.

        Before the first reader: it becomes a stream at once, and that reader gets no more than an id to come back with.
        """
        if self.generation == 0 and not self.finished:
            self._cut_early = True
        self.attached = False
        self.generation += 1
        self._wake()
        self._wake_writer()

    def _finish(self, outcome: bytes) -> None:
        self.outcome = outcome
        if self._events is not None or self.attached or self.id:
            # no-silent-loss: what came before need not make room for the outcome, however large it is.
            self._append(outcome, any_size=True)
        self._end()

    def _end(self) -> None:
        self.finished = True
        self._wake()
        self._wake_writer()
        if self.when_finished is not None:
            self.when_finished()

    def _append(self, payload: bytes, *, any_size: bool = False) -> None:
        if self._events is None:
            self._events = []
        self._events.append(payload)
        self._bytes += len(payload)
        while len(self._events) > MAX_EVENTS or (self._bytes > MAX_BYTES and len(self._events) > 1 and not any_size):
            self._bytes -= len(self._events.pop(0))
            self._first += 1
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _wake_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
        self._writer = None

    # Reading

    @property
    def quiet(self) -> bool:
        """Nothing but the outcome, if that, has been written: it may go out as one JSON body."""
        return self._events is None and not self._cut_early

    @property
    def last(self) -> int:
        """The number of the newest message; 0 before the first."""
        return self._first - 1 + (len(self._events) if self._events is not None else 0)

    @property
    def oldest(self) -> int:
        """The number of the oldest message that is still kept."""
        return self._first

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._bytes

    async def first(self) -> None:
        """Return when there is something to read, the stream is finished, or `nudge` is called."""
        if self.finished or not self.quiet:
            return
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def nudge(self) -> None:
        """Let whoever waits in `first` go on."""
        self._wake()

    def attach(self, after: int) -> int:
        """Become the reader, of the messages after number `after`; the generation to pass to `next`."""
        self.generation += 1
        self.attached = True
        self.read = after
        if self.finished and self.outcome is not None and self._events is None:
            self._append(self.outcome)
        self._wake()
        generation = self.generation
        if self._cut_early:
            self._cut_early = False
            self.cut()
        return generation

    def detach(self, generation: int) -> None:
        """The reader that attached as `generation` is gone. The stream goes on without one."""
        if generation == self.generation:
            self.attached = False
            self._wake_writer()

    async def next(self, generation: int, patience: float | None) -> list[tuple[int, bytes]] | None:
        """The messages after those already read, with their numbers; [] after `patience` seconds, if any, without one.

        None when there is no more to come for this reader: the stream is finished and read to its end, another reader
        has taken over, or the messages it has yet to read were dropped.
        """
        while True:
            if generation != self.generation or self.read + 1 < self._first:
                return None
            events = self._events
            if events is not None and self.read < self.last:
                number = self.read + 1
                batch = events[number - self._first :]
                self.read = self.last
                if self.request_id is None:
                    # Nobody resumes a standalone stream, so what has been read is not kept.
                    self._first += len(events)
                    self._events, self._bytes = None, 0
                self._wake_writer()
                return list(enumerate(batch, number))
            if self.finished:
                return None
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = None if patience is None else loop.call_later(patience, self._wake)
            try:
                await waiter
            finally:
                if timer is not None:
                    timer.cancel()
                if self._waiter is waiter:
                    self._waiter = None
            idle = generation == self.generation and not self.finished and self.read == self.last
            if idle and patience is not None:
                return []
