"""`Exchange`: the way back of one stream, from the session to whoever reads for the client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from mcp_types import RequestId

from ...stores import Address
from ..errors import Elsewhere, NodeDraining, RegistryFull
from . import backlog
from .errors import HandlerExit, LimitExceeded, ReadOnlyTurn, RequestCancelled, SessionError, StateError
from .reading import OneReader
from .wire import Refusal, encode, error_message, refusal_of, result_message

__all__ = ["Exchange"]

logger = logging.getLogger(__name__)

HIGH_WATER: Final = 256
"""Messages a live reader may lag behind before the writer waits for it."""
WRITER_PATIENCE: Final = 30.0
"""Seconds that a writer waits for a lagging reader before it goes on without it."""


class Exchange(OneReader):
    """The messages of one stream in order and, for a request's stream, exactly one outcome at the end.

    Written by the session's turn, which never learns whether anybody reads: a dropped connection is no cancellation.
    Read by one edge at a time; `generation` tells an edge that another has taken over. Messages are kept, so that a
    reader may come back; of those of a standalone stream that have been read, only the newest few.

    A stream that may be resumed at another node is logged: a message leaves once the log has it (`logged`).

    For a request it also is the `Reply` of the turn.
    """

    __slots__ = (
        "elsewhere",
        "id",
        "method",
        "modern",
        "no_room",
        "outcome",
        "refusal",
        "request_id",
        "senders",
        "when_finished",
        "when_written",
    )

    def __init__(self, request_id: RequestId | None, method: str, *, modern: bool = False) -> None:
        super().__init__(standalone=request_id is None)
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
        self.senders = 1
        """How many stand ready to send the request there: those who read for it. Without any it fails instead."""
        self.no_room: RegistryFull | NodeDraining | None = None
        """There is no result because this node had no room for the session. The request has not run."""
        self.when_finished: Callable[[], None] | None = None
        self.when_written: Callable[[], None] | None = None
        """Told of each message, and of the end. Must not raise."""

    # Writing

    def send(self, message: dict[str, Any]) -> None:
        """Append a notification or a request to the client. Dropped if the stream is finished."""
        if not self.finished:
            self._append(encode(message))

    def pass_on(self, payload: bytes) -> None:
        """Append a message as another node has encoded it."""
        if not self.finished:
            self._append(payload)

    async def send_paced(self, message: dict[str, Any]) -> None:
        """`send`, then wait while the reader lags more than `HIGH_WATER` messages, up to `WRITER_PATIENCE` seconds.

        Before that, wait as long if what the reader has yet to take would have to make room. The log is waited for in
        the same way, for as long as it takes to answer or to count as out of reach. The first reader counts
        before it comes, which is as soon as there is something to read. One that lags longer loses its connection, not
        its messages. Cancellation leaves the message sent, or not sent at all.
        """
        if self.finished:
            return
        payload = encode(message)
        room = backlog.MAX_BYTES - len(payload)
        if self._bytes > room or self._crowded:
            await self._until(lambda: not self._crowded and (self._bytes <= room or self._since(self.read) <= room))
            await self._until_logged(lambda: self._bytes <= room or self._since(self._in_log) <= room)
        if not self.finished:
            self._append(payload)
        lagging = self.last - HIGH_WATER
        if self.read < lagging or self._in_log < lagging:
            await self._until(lambda: self.last - self.read <= HIGH_WATER)
            await self._until_logged(lambda: self.last - self._in_log <= HIGH_WATER)

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
    def _crowded(self) -> bool:
        return self.household is not None and self.household.crowded

    @property
    def _in_log(self) -> int:
        """The number of the newest message that need not be kept for the log's sake."""
        return self.last if self.logged is None else max(self.logged, 0)

    async def _until_logged(self, caught_up: Callable[[], bool]) -> None:
        """Wait for the log, which answers or counts as out of reach within its deadline."""
        while not self.finished and self._in_log < self.last and not caught_up():
            if self._writer is None:
                self._writer = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._writer)

    def _since(self, number: int) -> int:
        """Bytes of the messages after this one."""
        return sum(map(len, (self._events or [])[max(number + 1 - self._first, 0) :]))

    def resolve(self, result: Any, encoded: bytes | None = None) -> None:
        """End the stream with the turn's result, or with an error if JSON cannot carry that.

        `encoded`: the result as `encode` has made JSON of it, where somebody has.
        """
        if self.finished:
            return
        try:
            outcome = result_message(self.request_id, result, encoded)
        except ValueError as error:
            # no-silent-loss: the turn is over and saved, so that the client must hear something.
            logger.error("the result of %s cannot be sent: %s", self.method, error)
            self.fail(SessionError(f"The call is done, but its result cannot be sent as JSON: {error}"))
            return
        self._finish(outcome)

    def fail(self, error: BaseException) -> None:
        """End the stream with an error. What a tool may not do to its state or its process, or how often it may be
        called, is told to the model as a tool error.

        `Elsewhere` is no outcome: see `elsewhere`.
        """
        if self.finished:
            return
        if isinstance(error, Elsewhere) and self.senders:
            self.elsewhere = error.address
            self._end()
            return
        if isinstance(error, RegistryFull | NodeDraining):
            self.no_room = error
        if isinstance(error, asyncio.CancelledError):
            error = RequestCancelled()
        if self.method == "tools/call" and isinstance(error, StateError | ReadOnlyTurn | LimitExceeded | HandlerExit):
            result: dict[str, Any] = {"content": [{"type": "text", "text": str(error)}], "isError": True}
            if self.modern:
                result["resultType"] = "complete"
            self._finish(result_message(self.request_id, result))
            return
        self.refusal = refusal_of(error, modern=self.modern)
        self._finish(error_message(self.request_id, self.refusal))

    def withdraw(self) -> None:
        """Another node writes this stream now: it ends here, with what the log has."""
        self.when_written = self.when_finished = None
        if self.logged is not None:
            self.keep_no_more_than(self.logged)
        self.finished = True
        self.cut()

    def close(self) -> None:
        """End a stream that has no outcome: the session's standalone one, or any when the session ends."""
        if not self.finished:
            self._end(told=False)

    def attach(self, after: int) -> int:
        """See `OneReader.attach`."""
        if self.finished and self.outcome is not None and self._events is None:
            self.keep(self.outcome, any_size=True)
        return super().attach(after)

    def _finish(self, outcome: bytes) -> None:
        self.outcome = outcome
        if self._events is not None or self.attached or self.id:
            # no-silent-loss: what came before need not make room for the outcome, however large it is.
            self.keep(outcome, any_size=True)
        self._end()

    def _end(self, *, told: bool = True) -> None:
        self.finished = True
        if self.when_written is not None:
            self.when_written()
        self._wake()
        self._wake_writer()
        if told and self.when_finished is not None:
            self.when_finished()

    def _append(self, payload: bytes) -> None:
        self.keep(payload)
        if self.when_written is not None:
            self.when_written()
        if self.logged is None:
            self._wake()
