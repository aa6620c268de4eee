"""`GroupCommit`: one thread and one connection that turn many concurrent calls into few transactions.

A durable commit costs a wait for the disk, whatever it carries. So the thread takes all that queued up while it
waited, runs it in one transaction, and tells the event loop of the whole group at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from .errors import StoreError, StoreUnavailable
from .give_way import GiveWay

__all__ = ["GroupCommit"]

P = ParamSpec("P")
T = TypeVar("T")
Explain = Callable[[sqlite3.Error, bool], StoreError]


class _Call(NamedTuple):
    future: asyncio.Future[Any]
    work: Callable[..., Any]
    args: tuple[Any, ...]


_Outcome = tuple[asyncio.Future[Any], Any, Exception | None]


class GroupCommit:
    """Runs callables on one SQLite connection in one thread, as many as are waiting in each transaction.

    A callable that raises fails alone, as long as it leaves the transaction usable: one SQL statement is
    all-or-nothing in itself. A failure of the database spoils the transaction; then each callable of the group is
    run again in a transaction of its own, so that one damaged record cannot take its neighbours along.

    Args:
        connection: In autocommit mode, usable from another thread. Owned from now on; closed by the thread.
        name: The thread's name.
        begin: The statement that opens a transaction.
        explain: Makes the error for the caller from (SQLite's error, may it have been written).
        max_queued: At this many waiting calls `submit` raises `StoreUnavailable`.
        max_group: Most calls in one transaction, so that another process gets its turn at the file.
        in_place: Called before each commit; raises `StoreUnavailable` if what is committed would be lost.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        name: str,
        begin: str,
        explain: Explain,
        max_queued: int,
        max_group: int,
        in_place: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._begin = begin
        self._explain = explain
        self._in_place = in_place
        self._max_queued = max_queued
        self._max_group = max_group
        self._loop = asyncio.get_running_loop()
        self._give_way = GiveWay(self._loop)
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._unanswered = 0
        self._closed: asyncio.Future[None] | None = None
        self._operations = self._commits = self._failed = self._largest = 0
        self._busy_seconds = 0.0
        self.healthy = True
        """Whether the last transaction went through."""
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(
        self, work: Callable[Concatenate[sqlite3.Cursor, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Queue `work(cursor, *args)`; the future is done when its transaction is committed.

        Cancelling the future does not take the work back. Keyword arguments are not passed on.

        Raises:
            StoreUnavailable: The queue is at its bound, or the store is closed; nothing was queued.
        """
        if self._closed is not None:
            raise StoreUnavailable("the store is closed", outcome_unknown=False)
        if self._queue.qsize() >= self._max_queued:
            raise StoreUnavailable(
                f"{self._max_queued} store calls are waiting, more than the disk keeps up with; try again shortly",
                outcome_unknown=False,
            )
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Call(future, work, args))
        self._unanswered += 1
        self._give_way.expect()
        return future

    async def aclose(self) -> None:
        """Finish what is queued, close the connection, end the thread. Cancelling stops the wait, not the work."""
        if self._closed is None:
            self._closed = self._loop.create_future()
            self._queue.put(None)
            self._give_way.expect()
        await asyncio.shield(self._closed)

    def stats(self) -> dict[str, float]:
        """Calls, transactions, failed transactions, the largest group, seconds spent, calls waiting now."""
        return {
            "operations": self._operations,
            "commits": self._commits,
            "failed": self._failed,
            "largest_group": self._largest,
            "busy_seconds": self._busy_seconds,
            "queued": self._queue.qsize(),
        }

    # What follows runs in the thread.

    def _run(self) -> None:
        running = True
        while running:
            group, running = self._next_group()
            if group:
                outcomes = self._transact(group)
                self._tell(self._deliver, outcomes)
        self._connection.close()
        self._tell(self._ended)

    def _next_group(self) -> tuple[list[_Call], bool]:
        group: list[_Call] = []
        if not self._queue.qsize():
            self._give_way.passed()
        while True:
            call = self._queue.get()
            if call is None:
                return group, False
            group.append(call)
            if len(group) >= self._max_group or not self._queue.qsize():
                return group, True

    def _transact(self, group: list[_Call]) -> list[_Outcome]:
        started = time.perf_counter()
        cursor = self._cursor
        outcomes: list[_Outcome] = []
        self._give_way.waiting()  # perhaps for another process's lock
        try:
            cursor.execute(self._begin)
            self._give_way.running()
        except sqlite3.Error as error:
            return self._fail(group, error, may_be_written=False)
        for future, work, args in group:
            try:
                outcomes.append((future, work(cursor, *args), None))
            except sqlite3.DatabaseError as error:
                self._roll_back()
                if len(group) == 1:
                    return self._fail(group, error, may_be_written=False)
                return [outcome for call in group for outcome in self._transact([call])]
            except Exception as error:
                outcomes.append((future, None, error))
        try:
            self._in_place()
        except StoreUnavailable as gone:
            self._roll_back()
            self.healthy = False
            self._failed += 1
            return [(call.future, None, gone) for call in group]
        self._give_way.waiting()
        self._give_way.passed()
        try:
            cursor.execute("COMMIT")
            self._give_way.running()
        except sqlite3.Error as error:
            # The commit record may have reached the log before the disk said no, and be found there by a recovery.
            return self._fail(group, error, may_be_written=True)
        self.healthy = True
        self._operations += len(group)
        self._commits += 1
        self._largest = max(self._largest, len(group))
        self._busy_seconds += time.perf_counter() - started
        return outcomes

    def _fail(self, group: list[_Call], error: sqlite3.Error, *, may_be_written: bool) -> list[_Outcome]:
        self._give_way.running()
        self._roll_back()
        self.healthy = False
        self._failed += 1
        return [(call.future, None, self._explain(error, may_be_written)) for call in group]

    def _roll_back(self) -> None:
        # SQLite may have rolled back by itself. If even this fails, the next BEGIN will, and lead here again.
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
            self._loop.call_soon_threadsafe(callback, *args)

    # And this on the event loop again.

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        for future, result, error in outcomes:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._unanswered -= len(outcomes)
        if not self._unanswered and self._closed is None:
            self._give_way.settle()

    def _ended(self) -> None:
        self._give_way.settle()
        if self._closed is not None:
            self._closed.set_result(None)
