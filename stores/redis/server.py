"""`Server`: the way to one primary: calls of one moment share a pipeline, and some pipelines are under way at once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial

import redis.exceptions as redis_py

from ..errors import StoreError
from .connection import RedisConnection
from .errors import RedisNotPrimary, RedisRefused, RedisSettingsError, RedisUnavailable
from .outage import Outage, again
from .pipeline import Call, Reply, exchange, packed
from .replies import code_of, refusal, text_of
from .scripts import Script

__all__ = ["Server"]

logger = logging.getLogger(__name__)

CONNECTIONS = 4
"""To one server. While it waits for its disk for what came by one of them, the others bring the next."""

MOST_TOGETHER = 32
MOST_BYTES = 2**20
"""Calls in one pipeline, and bytes that others may join; one call of any size makes a pipeline."""

MAX_UNANSWERED = 256 * 2**20
"""Bytes of commands that wait to be sent or answered; one call of any size goes when nothing else does."""


class Server:
    """Up to `CONNECTIONS` connections of redis-py, each with one pipeline at a time. Calls that find none free wait and
    go together; those with one key keep their order. A connection that breaks is made anew when calls need it.

    When none can be made, calls raise at once, with the reason, until it is time to try again: 0.1 to 2 seconds. A call
    that is cancelled leaves its answer to be thrown away.

    Args:
        make: Makes a connection that is not connected yet.
        connect: Connects it to whatever is the primary now.
        tasks: Owns the pipelines.
    """

    def __init__(
        self,
        make: Callable[[], RedisConnection],
        connect: Callable[[RedisConnection], Awaitable[None]],
        tasks: asyncio.TaskGroup,
        *,
        timeout: float,
        replicas: int,
    ) -> None:
        self._connect = connect
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._replicas = replicas
        self._wait = packed(b"WAIT", replicas, int(timeout * 600))
        self._connections = [make() for _ in range(CONNECTIONS)]
        self._idle = list(self._connections)
        self._pipelines: set[asyncio.Task[None]] = set()
        self._pending: deque[Call] = deque()
        self._sent_keys: set[bytes] = set()
        self._held: dict[bytes, list[Call]] = {}
        """Calls that wait for a pipeline with an earlier call of their key."""
        self._bytes = 0
        self._roused = False
        self._outage = Outage()
        self._closed = False
        self._used: set[RedisConnection] = set()
        self.where = "?"
        """The host and port that it was connected to last."""
        self.reconnects = 0
        """Connections that were made anew."""

    @property
    def connected(self) -> bool:
        """Whether a call would be sent at once."""
        return any(connection.alive for connection in self._connections)

    async def open(self, deadline: float) -> None:
        """Connect for the first time: a server that is not there yet, or is loading, is tried until `deadline` seconds
        have passed; one that refuses us is not tried again.

        Raises:
            RedisUnavailable: There is none now.
            RedisSettingsError: A file of the settings cannot be used.
        """
        until = self._loop.time() + deadline
        while True:
            try:
                await self._ready(self._connections[0])
                break
            except RedisRefused:
                raise
            except RedisUnavailable as error:
                self._outage.failed(error, self._loop.time())
                pause = self._outage.not_before - self._loop.time() + 0.01
                if self._loop.time() + pause >= until:
                    raise
                await asyncio.sleep(pause)
        # The first will do; one of these that fails is tried again when it is needed.
        rest = (self._ready(connection) for connection in self._connections[1:])
        await asyncio.gather(*rest, return_exceptions=True)

    async def run(self, script: Script, *args: bytes, writing: bool) -> Reply:
        """Run a script with these keys and arguments; what it returns.

        Raises:
            StoreError: What Redis answered, or that it did not, as an error of ours.
        """
        reply = await self.evaluate(script, *args, writing=writing)
        if isinstance(reply, redis_py.RedisError):
            raise self.failed(text_of(reply), writing=writing)
        return reply

    async def evaluate(self, script: Script, *args: bytes, writing: bool, asking: bool = False) -> Reply:
        """As `run`, and the `redis.RedisError` that it was answered with is returned."""
        key = args[0]
        command = packed(b"EVALSHA", script.sha, script.keys, *args)
        reply = await self._submit(command, key, writing=writing, asking=asking)
        if isinstance(reply, redis_py.RedisError) and code_of(text_of(reply)) == "NOSCRIPT":
            # Somebody has flushed the scripts; this teaches Redis the script again.
            command = packed(b"EVAL", script.body, script.keys, *args)
            reply = await self._submit(command, key, writing=writing, asking=asking)
        return reply

    async def ask(self, *words: bytes | str | int) -> Reply:
        """Send a command that changes nothing; its answer, or the `redis.RedisError` that is its answer."""
        return await self._submit(packed(*words), None, writing=False)

    def failed(self, text: str, *, writing: bool) -> StoreError:
        """The error of ours for what Redis answered; one that is no primary any more is left."""
        error = refusal(text, self.where, writing=writing)
        if isinstance(error, RedisNotPrimary):
            self.leave()
        return error

    def leave(self) -> None:
        """Have the next calls connect anew, to whatever is the primary then."""
        for connection in self._connections:
            connection.mark_for_reconnect()

    def close(self) -> None:
        """Break the connections, and make none any more. Idempotent."""
        self._closed = True
        for task in self._pipelines:
            task.cancel()
        self._refuse(_closed())
        for connection in self._connections:
            connection.drop()

    def _submit(
        self, command: bytes, key: bytes | None, *, writing: bool, asking: bool = False
    ) -> asyncio.Future[Reply]:
        if self._closed:
            raise _closed()
        if self._bytes and self._bytes + len(command) > MAX_UNANSWERED:
            raise RedisUnavailable(
                f"{self._bytes} bytes wait to be sent to Redis at {self.where} or answered: it is too slow"
            )
        call = Call(command, self._loop.create_future(), key, self._loop.time(), writing=writing, asking=asking)
        self._bytes += len(call.command)
        self._pending.append(call)
        self._rouse_soon()
        return call.future

    def _rouse_soon(self) -> None:
        # After all who call in this pass of the loop.
        if not self._roused:
            self._roused = True
            self._loop.call_soon(self._rouse)

    def _rouse(self) -> None:
        self._roused = False
        if self._closed:
            self._refuse(_closed())
        while self._pending:
            connection = self._free()
            if connection is None:
                failure = self._outage.failure(self._loop.time())
                if failure is not None and not self._pipelines:
                    self._refuse(failure)
                return
            calls: list[Call] = []
            # One more connection, while there are others, is made before calls are given to it: it may take long.
            if connection.alive or not self.connected:
                calls = self._take()
                if not calls:
                    self._idle.append(connection)
                    return
            # In a context of its own: the caller's tells whose session it works for.
            task = self._tasks.create_task(self._work(connection, calls), name="understudy-redis", context=Context())
            self._pipelines.add(task)
            task.add_done_callback(partial(self._ended, calls))

    def _ended(self, begun_with: list[Call], task: asyncio.Task[None]) -> None:
        self._pipelines.discard(task)
        if self._closed:
            for call in begun_with:
                # It may have been cancelled before it began.
                call.fail(_closed())
        if self._pending:
            self._rouse_soon()

    def _free(self) -> RedisConnection | None:
        """One that is connected if there is one; else one to connect, unless it is too early for that."""
        for place in range(len(self._idle) - 1, -1, -1):
            if self._idle[place].alive:
                return self._idle.pop(place)
        if self._closed or not self._idle or self._outage.failure(self._loop.time()) is not None:
            return None
        return self._idle.pop()

    def _take(self) -> list[Call]:
        """Calls for one pipeline, in their order, none with a key that another pipeline has."""
        calls: list[Call] = []
        size = 0
        too_late = self._loop.time() - self._timeout
        while self._pending and len(calls) < MOST_TOGETHER and size < MOST_BYTES:
            call = self._pending.popleft()
            if call.since < too_late or call.future.cancelled():
                self._bytes -= len(call.command)
                call.fail(
                    RedisUnavailable(
                        f"no connection to Redis at {self.where} was free for {self._timeout:g} s; try again"
                    )
                )
            elif call.key in self._sent_keys:
                self._held.setdefault(call.key, []).append(call)
            else:
                calls.append(call)
                size += len(call.command)
        self._sent_keys.update(call.key for call in calls if call.key is not None)
        return calls

    def _give_back(self, calls: Sequence[Call]) -> None:
        """`calls` are under way no more; what had to wait for their keys comes next."""
        for call in calls:
            self._bytes -= len(call.command)
            if call.key is not None:
                self._sent_keys.discard(call.key)
                if self._held and (held := self._held.pop(call.key, None)):
                    self._pending.extendleft(reversed(held))

    async def _work(self, connection: RedisConnection, calls: list[Call]) -> None:
        try:
            while True:
                try:
                    await self._ready(connection)
                except (RedisUnavailable, RedisSettingsError) as error:
                    calls = self._not_connected(calls, error)
                    return
                if calls:
                    await exchange(connection, calls, timeout=self._timeout, wait=self._wait, replicas=self._replicas)
                    self._give_back(calls)
                    calls = []
                calls = self._take()
                if not calls:
                    return
        except asyncio.CancelledError:
            for call in calls:
                call.fail(RedisUnavailable("the Redis store was closed meanwhile", outcome_unknown=call.writing))
            raise
        except Exception:
            # A fault of ours. It must not take the node along.
            logger.exception("a pipeline to Redis has failed")
            connection.drop()
            for call in calls:
                call.fail(RedisUnavailable("a fault inside the Redis store; see the log", outcome_unknown=call.writing))
        finally:
            self._give_back(calls)
            self._idle.append(connection)
            if self._closed:
                connection.drop()

    def _not_connected(self, calls: list[Call], error: RedisUnavailable | RedisSettingsError) -> list[Call]:
        """The calls that are to be given back."""
        if isinstance(error, RedisSettingsError):
            # A file that was there at the start: it may come back, and the call is nobody's mistake.
            error = RedisRefused(str(error))
        self._outage.failed(error, self._loop.time())
        if self.connected:
            # One more was not to be had: they go where the others go.
            self._give_back(calls)
            self._bytes += sum(len(call.command) for call in calls)
            self._pending.extendleft(reversed(calls))
            return []
        for call in calls:
            call.fail(again(error))
        return calls

    async def _ready(self, connection: RedisConnection) -> None:
        if connection.alive and not await connection.can_read():
            return
        connection.drop()
        if self._closed:
            raise _closed()
        await self._connect(connection)
        self._outage.over()
        self.where = f"{connection.host}:{connection.port}"
        self.reconnects += connection in self._used
        self._used.add(connection)

    def _refuse(self, failure: RedisUnavailable) -> None:
        while self._pending:
            call = self._pending.popleft()
            self._bytes -= len(call.command)
            call.fail(again(failure))


def _closed() -> RedisUnavailable:
    return RedisUnavailable("the Redis store is closed")
