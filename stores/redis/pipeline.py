"""`exchange`: calls that leave together, as one pipeline without a transaction, and their answers as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import hiredis
import redis.exceptions as redis_py

from .connection import RedisConnection
from .errors import RedisUnavailable

__all__ = ["Call", "Reply", "answer", "exchange", "packed"]

Reply = Any
"""Bytes, whole numbers, None, lists of them, or the `redis.RedisError` that Redis answered with."""

_PIECE = 2**16
"""Bytes that asyncio takes off us at once; of more, as many have to move within the timeout."""

_ASKING = b"*1\r\n$6\r\nASKING\r\n"


def packed(*words: bytes | str | int) -> bytes:
    """A command as it goes over the wire."""
    return cast("bytes", hiredis.pack_command(words))  # pyright: ignore[reportArgumentType, reportUnknownMemberType]


class Call:
    """One command, and the future of its answer.

    Args:
        command: Packed.
        key: Calls with the same key are sent in the order in which they came; None: whenever it may be.
        since: When it came, by the event loop's clock.
        writing: It may change something.
        asking: It is about keys that are just being moved to this node of the cluster.
    """

    __slots__ = ("asking", "command", "future", "key", "since", "writing")

    def __init__(
        self,
        command: bytes,
        future: asyncio.Future[Reply],
        key: bytes | None,
        since: float,
        *,
        writing: bool,
        asking: bool,
    ) -> None:
        self.command = _ASKING + command if asking else command
        self.future = future
        self.key = key
        self.since = since
        self.writing = writing
        self.asking = asking

    def settle(self, reply: Reply) -> None:
        """It has been answered."""
        if not self.future.done():
            self.future.set_result(reply)

    def fail(self, error: Exception) -> None:
        """It will not be answered."""
        if not self.future.done():
            self.future.set_exception(error)
            # Of several that a caller has sent it looks at the first that fails.
            self.future.exception()


async def answer(connection: RedisConnection) -> Reply:
    """The next answer; one that is an error is returned.

    Raises:
        redis.RedisError: There is none. The connection has to be dropped.
    """
    try:
        return cast("Reply", await connection.read_response(disconnect_on_error=False))
    except redis_py.ResponseError as error:
        return error
    except redis_py.RedisError as error:
        # Redis loads, or asks for a password: to redis-py that is a broken connection. It has been answered.
        if error.status_code is None:
            raise
        return error


async def exchange(
    connection: RedisConnection, calls: Sequence[Call], *, timeout: float, wait: bytes, replicas: int
) -> None:
    """Send `calls`, and settle each with its answer or with why there is none. The connection is dropped if it breaks,
    or if this is cancelled, so that nobody gets the answers of another.

    With `replicas`, what has been written is acknowledged when so many replicas have it: one WAIT for all.
    """
    commands = [call.command for call in calls]
    awaited = replicas > 0 and any(call.writing for call in calls)
    if awaited:
        commands.append(wait)
    how = "broke off"
    whole = False
    try:
        await _send(connection, commands[0] if len(commands) == 1 else b"".join(commands), timeout)
        held: list[tuple[Call, Reply]] = []
        for call in calls:
            if call.asking:
                await answer(connection)
            reply = await answer(connection)
            if awaited and call.writing and not isinstance(reply, redis_py.RedisError):
                held.append((call, reply))
            else:
                call.settle(reply)
        if awaited:
            _acknowledge(held, await answer(connection), replicas, f"{connection.host}:{connection.port}")
        whole = True
    except (TimeoutError, redis_py.TimeoutError):
        how = f"did not answer within {timeout:g} s"
    except (redis_py.RedisError, OSError):
        pass
    finally:
        if not whole:
            connection.drop()
            for call in calls:
                doubt = ", so it may have been done" if call.writing else ""
                call.fail(
                    RedisUnavailable(
                        f"Redis at {connection.host}:{connection.port} {how} before its answer had come{doubt}",
                        outcome_unknown=call.writing,
                    )
                )


async def _send(connection: RedisConnection, data: bytes, timeout: float) -> None:
    if len(data) <= _PIECE:
        await connection.send_packed_command(data, check_health=False)
        return
    for start in range(0, len(data), _PIECE):
        if not connection.is_connected:
            # redis-py would connect anew in the middle of a pipeline.
            raise redis_py.ConnectionError("the connection broke")
        async with asyncio.timeout(timeout):
            await connection.send_packed_command(data[start : start + _PIECE], check_health=False)


def _acknowledge(held: list[tuple[Call, Reply]], have: Reply, replicas: int, where: str) -> None:
    for call, reply in held:
        if isinstance(have, int) and have >= replicas:
            call.settle(reply)
        else:
            count = have if isinstance(have, int) else "not known how many"
            call.fail(
                RedisUnavailable(
                    f"Redis at {where} has written, but of the {replicas} replicas that must have it ({count}) do; "
                    "repeat it",
                    outcome_unknown=True,
                )
            )
