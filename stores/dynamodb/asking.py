"""`Asking`: one request to DynamoDB, with a bound on those under way, a deadline, and repeats that are no guesses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from aiohttp import ClientError as HTTPClientError
from botocore.exceptions import BotoCoreError, ClientError  # pyright: ignore[reportMissingTypeStubs]
from botocore.parsers import ResponseParserError  # pyright: ignore[reportMissingTypeStubs]

from .client import Operation
from .failures import Failure, Retry, failure_of, is_condition
from .items import Item

__all__ = ["Asking", "ConditionFailed"]

_TRIES = 3
"""Of a request whose connection broke, or whose server failed."""

_MARGIN = 2.0
"""Of the time that the last try took, what must be left for another."""

_SHORTEST, _LONGEST = 0.025, 1.0
"""Seconds: bounds of the wait before a repeat, which doubles from one to the other."""


class ConditionFailed(Exception):
    """DynamoDB has compared and not written. Never leaves the store.

    `item` is what is there, None if nothing. `again`: an earlier try of the same request may have been carried out, so
    that `item` may be its work.
    """

    def __init__(self, item: Item | None, *, again: bool) -> None:
        super().__init__("the condition does not hold")
        self.item = item
        self.again = again


class _Client(Protocol):
    operations: dict[str, Operation]
    where: str


class Asking:
    """Sends requests about one table.

    A request that is throttled is repeated until `timeout` seconds are over, after waits that are drawn at random and
    grow; one whose connection broke, or that DynamoDB failed at, twice. Every request that writes is made so that its
    repeat can be told from another's write.
    """

    def __init__(
        self,
        client: _Client,
        table: str,
        *,
        connections: int,
        timeout: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.requests = 0
        self.repeats = 0
        self.throttled = 0
        self._client = client
        self._operations = client.operations
        self._table = table
        # In front of the pool of connections, so that what has waited in vain is known not to have left.
        self._free = asyncio.Semaphore(connections)
        self._timeout = timeout
        self._sleep = sleep
        self._draw = draw

    async def __call__(self, operation: str, *, writes: bool, **parameters: Any) -> dict[str, Any]:
        """Send `operation` about the table, and return its answer.

        Raises:
            ConditionFailed: As it says.
            DynamoUnavailable: There is no answer, or a refusal; `outcome_unknown` is of all tries together, and False
                unless it `writes`.
        """
        now = asyncio.get_running_loop().time
        ends = now() + self._timeout
        tries = 0
        in_doubt = False
        while True:
            tries += 1
            began = now()
            try:
                return await self._try(operation, ends, parameters)
            except (ClientError, BotoCoreError, ResponseParserError, HTTPClientError, OSError) as error:
                if is_condition(error):
                    raise ConditionFailed(cast(Any, error).response.get("Item"), again=in_doubt) from None
                failure = failure_of(error, operation, self._client.where)
                cause: Exception = error
            except _NoConnection:
                failure = Failure(
                    f"no connection to DynamoDB got free in {self._timeout:g} s for {operation} of "
                    f"{self._client.where}: raise connections=, or ask less",
                    Retry.NO,
                    outcome_unknown=False,
                )
                cause = TimeoutError(failure.message)
            in_doubt = in_doubt or (writes and failure.outcome_unknown)
            wait = self._wait(failure, tries)
            # A try that the deadline cuts off may have run, where all before it surely have not.
            if wait is None or now() + wait + _MARGIN * (now() - began) >= ends:
                raise failure.error(outcome_unknown=in_doubt) from cause
            self.repeats += 1
            await self._sleep(wait)

    async def _try(self, operation: str, ends: float, parameters: dict[str, Any]) -> dict[str, Any]:
        free = self._free
        if free.locked():
            try:
                async with asyncio.timeout_at(ends):
                    await free.acquire()
            except TimeoutError:
                raise _NoConnection from None
        else:
            await free.acquire()
        try:
            self.requests += 1
            async with asyncio.timeout_at(ends):
                answer = await self._operations[operation](TableName=self._table, **parameters)
        finally:
            free.release()
        if "json" not in answer["ResponseMetadata"]["HTTPHeaders"].get("content-type", ""):
            # botocore takes any 200 for an answer in which nothing is said: here, that a record is not there.
            raise ResponseParserError
        return answer

    def _wait(self, failure: Failure, tries: int) -> float | None:
        """Seconds until the next try; None if there is none."""
        if failure.retry is Retry.LATER:
            self.throttled += 1
        elif failure.retry is Retry.NO or tries >= _TRIES:
            return None
        elif tries == 1:
            return 0.0
        longest = min(_SHORTEST * 2**tries, _LONGEST)
        return longest / 2 + self._draw() * longest / 2


class _NoConnection(Exception):
    """All connections are in use."""
