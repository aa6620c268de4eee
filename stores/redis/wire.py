"""`Wire`: one connection to Redis that any number of calls share, each sent at once and answered in its turn."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

import hiredis

from .errors import RedisUnavailable

__all__ = ["Wire", "packed"]

Reply = Any
"""Bytes, whole numbers, None, lists of them, or a `hiredis.ReplyError`."""

MAX_UNSENT = 256 * 2**20
"""Bytes that may wait for the network; one call of any size goes when nothing else does."""

_NOTHING = object()


def packed(*words: bytes | str | int) -> bytes:
    """A command as it goes over the wire."""
    return cast("bytes", hiredis.pack_command(words))  # pyright: ignore[reportArgumentType, reportUnknownMemberType]


class Wire(asyncio.Protocol):
    """Commands of one turn of the event loop leave in one piece; answers come in the order of the commands.

    No task runs here: the transport calls. When nothing comes for `timeout` seconds though something should, the
    connection is given up, and with it all calls on it. A call that is cancelled leaves its answer to be thrown away.

    With `replicas`, what has been written is acknowledged when so many replicas have it: one WAIT for all writes that
    have come together since the one before.
    """

    def __init__(self, where: str, *, timeout: float, replicas: int = 0) -> None:
        """`where`: host and port, for messages."""
        self.where = where
        self.open = False
        self.lost: Exception | None = None
        """Why it broke, if the system said so."""
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._unsent: list[tuple[bytes, asyncio.Future[Reply], bool]] = []
        self._unsent_bytes = 0
        self._sent: deque[tuple[asyncio.Future[Reply] | None, bool]] = deque()
        self._flushing = False
        self._replicas = replicas
        self._wait = packed(b"WAIT", replicas, int(timeout * 600))
        self._waiting = False
        self._held: list[tuple[asyncio.Future[Reply], Reply]] = []
        self._alive = 0.0
        self._left = 0
        self._watch: asyncio.TimerHandle | None = None

    def send(self, command: bytes, *, writing: bool) -> asyncio.Future[Reply]:
        """Send a packed command; its answer, an error of Redis included. `writing`: it may change something.

        Raises:
            RedisUnavailable: The connection is not open, or too much is waiting to be sent. Also what the future raises
                when the connection breaks before the answer.
        """
        if not self.open:
            raise RedisUnavailable(f"not connected to Redis at {self.where}")
        if self._unsent_bytes + self._left > MAX_UNSENT:
            self._left = self._backlog()
            if self._unsent_bytes + self._left > MAX_UNSENT:
                raise RedisUnavailable(f"{MAX_UNSENT} bytes wait to be sent to Redis at {self.where}: it is too slow")
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._unsent.append((command, future, writing))
        self._unsent_bytes += len(command)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return future

    def close(self) -> None:
        """Break the connection; calls that wait for an answer fail. Idempotent."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()
        self._fail()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.open = False
        self.lost = self.lost or exc
        self._fail()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._alive = self._loop.time()
        reader, sent = self._reader, self._sent
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _NOTHING:
                if not sent:
                    raise hiredis.ProtocolError("an answer that nobody asked for")
                future, writing = sent.popleft()
                if future is None:
                    self._replicated(reply)
                elif writing and self._replicas and not isinstance(reply, hiredis.ReplyError):
                    self._held.append((future, reply))
                elif not future.done():
                    future.set_result(reply)
        except hiredis.ProtocolError as error:
            self.lost = error
            self.close()

    def _flush(self) -> None:
        self._flushing = False
        # Together with what comes until the replicas have what was written before.
        if self._waiting or self._transport is None or not self._unsent:
            return
        if not self._sent:
            self._alive = self._loop.time()
        wrote = False
        pieces: list[bytes] = []
        for command, future, writing in self._unsent:
            pieces.append(command)
            self._sent.append((future, writing))
            wrote |= writing
        if wrote and self._replicas:
            pieces.append(self._wait)
            self._sent.append((None, False))
            self._waiting = True
        self._unsent.clear()
        self._unsent_bytes = 0
        self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        self._left = self._backlog()
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout, self._look)

    def _replicated(self, reply: Reply) -> None:
        self._waiting = False
        held, self._held = self._held, []
        for future, result in held:
            if future.done():
                continue
            if isinstance(reply, int) and reply >= self._replicas:
                future.set_result(result)
            else:
                have = reply if isinstance(reply, int) else "not known how many"
                future.set_exception(
                    RedisUnavailable(
                        f"Redis at {self.where} has written, but of the {self._replicas} replicas that must have it "
                        f"({have}) do; repeat it",
                        outcome_unknown=True,
                    )
                )
        self._flush()

    def _backlog(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def _look(self) -> None:
        self._watch = None
        if not self.open or not self._sent:
            return
        now, left = self._loop.time(), self._backlog()
        if left < self._left:
            self._alive = now
        self._left = left
        rest = self._alive + self._timeout - now
        if rest <= 0:
            self.lost = TimeoutError()
            self.close()
        else:
            self._watch = self._loop.call_later(max(rest, self._timeout / 10), self._look)

    def _fail(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        how = f"did not answer within {self._timeout:g} s" if isinstance(self.lost, TimeoutError) else "broke off"
        for future, writing in (*self._sent, *((future, True) for future, _ in self._held)):
            if future is not None:
                doubt = ", so it may have been done" if writing else ""
                _break(
                    future,
                    RedisUnavailable(
                        f"Redis at {self.where} {how} before its answer had come{doubt}", outcome_unknown=writing
                    ),
                )
        for _, future, _ in self._unsent:
            _break(future, RedisUnavailable(f"the connection to Redis at {self.where} broke"))
        self._sent.clear()
        self._held.clear()
        self._unsent.clear()
        self._unsent_bytes = 0


def _break(future: asyncio.Future[Reply], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        # Of several that a caller has sent it looks at the first that fails.
        future.exception()
