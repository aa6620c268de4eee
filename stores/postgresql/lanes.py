"""`Lanes`: many calls, few connections. Calls of one kind that wait together go to PostgreSQL in one statement.

A statement costs PostgreSQL and us some 0.1 ms each, and a commit waits for the disk; so what queues up while the
connections are busy shares a statement and a commit, and 64 sessions that save at once cost little more than one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Any

from ..errors import StoreError
from .connection import Connection, Failed
from .errors import Failure, PostgresUnavailable
from .waiting import ALONE, Call, Kind, Waiting

__all__ = ["Lanes"]

logger = logging.getLogger(__name__)

_REPEATS = 5
"""Times that a statement for one call is sent when it meets other transactions."""

_BACKOFF = (0.1, 2.0)
"""Seconds between attempts to connect: the first, and the longest."""

_CLOSED = Failure(PostgresUnavailable, "the PostgreSQL store is closed")


class Lanes:
    """Up to `most` connections, made as they are needed, closed when nothing has needed them for long, and made anew
    when they break.

    While none is to be had, calls fail at once, and it is tried again after 0.1 to 2 seconds.

    Args:
        connect: Raises `Failed` or a `StoreError`.
        timeout: Seconds that a call waits for its turn; then the server has as many for the statement.
        max_queued: At this many waiting calls the next fails.
        idle: Seconds after which a connection that nothing needed is closed.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        most: int,
        timeout: float,
        max_queued: int,
        idle: float = 300.0,
    ) -> None:
        self._connect = connect
        self._most = most
        self._timeout = timeout
        self._max_queued = max_queued
        self._idle_seconds = idle
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._lanes: set[asyncio.Task[None]] = set()
        self._waiting = Waiting()
        self._number = 0
        self._too_late = Failure(
            PostgresUnavailable, f"no connection to PostgreSQL was free for {timeout:g} s; try again"
        )
        self._idle: list[asyncio.Future[bool]] = []
        self._coming = False
        self._closed = False
        self._connections: set[Connection] = set()
        self._connections_made = 0
        self._away: Failure | None = None
        self._retry_at = 0.0
        self._backoff = _BACKOFF[0]
        self._counts: dict[str, float] = {
            f"{kind}_{what}": 0
            for kind in ("write", "read")
            for what in ("operations", "commits", "failed", "largest_group")
        }

    async def start(self, connection: Connection) -> None:
        """Begin, with a first connection. `aclose` ends it."""
        await self._tasks.__aenter__()
        self._has_connected(connection)
        self._add_lane(connection)

    def submit(self, kind: Kind, asked: object, *, key: object = None, size: int = 0) -> asyncio.Future[Any]:
        """Queue a call. Cancelling the future does not take it back if it has been sent.

        Calls with the same `key` do not share a statement. `size`: the bytes that the call brings along.

        Raises:
            PostgresUnavailable: At the bound, closed, or without a connection; nothing was sent.
        """
        if self._closed:
            raise _CLOSED.error()
        if len(self._waiting) >= self._max_queued:
            raise PostgresUnavailable(
                f"{len(self._waiting)} calls wait for PostgreSQL, which is slower than its use; try again shortly"
            )
        now = self._loop.time()
        if self._away is not None and now < self._retry_at:
            raise self._away.error()
        self._number += 1
        call = Call(kind, self._loop.create_future(), asked, key, size, now + self._timeout, self._number)
        self._counts["write_operations" if kind.writes else "read_operations"] += 1
        self._waiting.put(call)
        self._rouse()
        return call.future

    async def aclose(self, timeout: float) -> None:
        """Take no more calls, finish those that wait within `timeout` seconds, close the connections. Idempotent."""
        first, self._closed = not self._closed, True
        while self._idle:
            self._idle.pop().set_result(True)
        try:
            if self._lanes:
                await asyncio.wait(set(self._lanes), timeout=timeout)
        finally:
            for lane in self._lanes:
                lane.cancel()
            self._waiting.refuse(_CLOSED)
        if self._lanes:
            await asyncio.wait(set(self._lanes), timeout=timeout)
        if first:
            await self._tasks.__aexit__(None, None, None)

    def stats(self) -> dict[str, float]:
        """`write_*` and `read_*`: calls, statements, failed statements, the largest group. Calls that wait, connections
        that are open, and how many were made beyond the first."""
        return self._counts | {
            "queued": len(self._waiting),
            "connections": self._alive(),
            "reconnects": max(self._connections_made - 1, 0),
        }

    def _rouse(self) -> None:
        """See that somebody comes for what waits. Who comes takes all that has been queued until then."""
        if self._coming:
            return
        if self._idle:
            # The one that worked last, so that the others have nothing to do and close.
            self._coming = True
            self._idle.pop().set_result(True)
        elif len(self._lanes) < self._most and (self._loop.time() >= self._retry_at or not self._lanes):
            self._coming = True
            self._add_lane(None)

    def _add_lane(self, connection: Connection | None) -> None:
        # In a context of its own: the caller's tells whose session it works for.
        lane = self._tasks.create_task(self._run_lane(connection), name="understudy-postgresql", context=Context())
        self._lanes.add(lane)
        lane.add_done_callback(self._lanes.discard)

    def _alive(self) -> int:
        return sum(not connection.closed for connection in self._connections)

    async def _run_lane(self, connection: Connection | None) -> None:
        calls: list[Call] = []
        try:
            while True:
                self._coming = False
                if not self._waiting:
                    if self._closed or not await self._has_work():
                        return
                    continue
                if connection is not None and connection.closed:
                    self._connections.discard(connection)
                    connection = None
                if connection is None:
                    connection = await self._new_connection()
                    if connection is None:
                        return
                    if not self._waiting:
                        continue
                calls = self._waiting.take(self._loop.time(), self._too_late)
                if self._waiting:
                    self._rouse()
                if calls:
                    await self._send(connection, calls)
        except Exception:
            # A fault of ours. It must not take the node along, and the next call makes a new lane.
            logger.exception("a lane to PostgreSQL has failed")
            fault = Failure(PostgresUnavailable, "a fault inside the PostgreSQL store; see the log", unknown=True)
            for call in calls:
                call.settle(fault.error())
            self._waiting.refuse(fault)
        finally:
            if connection is not None:
                self._connections.discard(connection)
                await connection.close()

    async def _has_work(self) -> bool:
        """Wait to be roused; False if nobody needed this lane for long."""
        roused: asyncio.Future[bool] = self._loop.create_future()
        self._idle.append(roused)
        timer = self._loop.call_later(self._idle_seconds, self._dismiss, roused)
        try:
            return await roused
        finally:
            timer.cancel()
            if roused in self._idle:
                self._idle.remove(roused)

    def _dismiss(self, lane: asyncio.Future[bool]) -> None:
        if lane in self._idle:
            self._idle.remove(lane)
            lane.set_result(False)

    async def _new_connection(self) -> Connection | None:
        """None if there is none to be had: then this lane ends, and another is made when it is worth a new attempt."""
        try:
            connection = await self._connect()
        except Failed as failed:
            failure = failed.failure
        except StoreError as error:
            failure = Failure(PostgresUnavailable, str(error))
        else:
            self._has_connected(connection)
            return connection
        self._retry_at = self._loop.time() + self._backoff
        self._backoff = min(2 * self._backoff, _BACKOFF[1])
        if self._alive():
            # What waits goes there.
            self._rouse()
        else:
            self._away = failure
            self._waiting.refuse(failure)
        return None

    def _has_connected(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._connections_made += 1
        self._away = None
        self._retry_at = 0.0
        self._backoff = _BACKOFF[0]

    async def _send(self, connection: Connection, calls: list[Call]) -> None:
        kind = calls[0].kind
        name = "write" if kind.writes else "read"
        largest = f"{name}_largest_group"
        self._counts[largest] = max(self._counts[largest], len(calls))
        answers: Sequence[Any] = ()
        for attempt in range(_REPEATS):
            self._counts[f"{name}_commits"] += 1
            try:
                answers = await kind.run(connection, [call.asked for call in calls])
                break
            except Failed as failed:
                failure = failed.failure
                if len(calls) > 1 and (failure.repeat or failure.apart):
                    answers = [ALONE] * len(calls)
                    break
                if failure.repeat and attempt + 1 < _REPEATS:
                    continue
                self._counts[f"{name}_failed"] += 1
                for call in calls:
                    call.settle(failure.error())
                return
            except asyncio.CancelledError:
                unknown = Failure(PostgresUnavailable, "the PostgreSQL store was closed meanwhile", kind.writes)
                for call in calls:
                    call.settle(unknown.error())
                raise
            except Exception as error:
                # Ours, and no reason for the lane to end: whoever asked has to hear of it.
                if len(calls) == 1:
                    calls[0].settle(error)
                    return
                answers = [ALONE] * len(calls)
                break
        again: list[Call] = []
        for call, answer in zip(calls, answers, strict=True):
            if answer is ALONE:
                call.alone = True
                again.append(call)
            else:
                call.settle(answer)
        self._waiting.put_back(again)
