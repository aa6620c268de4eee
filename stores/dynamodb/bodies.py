"""`Bodies`: snapshots too large for an item of DynamoDB, in parts beside the record."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from ..address import Address
from .asking import Asking, ConditionFailed
from .errors import DynamoTooLarge, DynamoUnavailable
from .items import Parts, number, ttl_of
from .table import KEY

__all__ = ["MAX_BODY", "PART", "Bodies", "a_few_at_a_time"]

PART = 384 * 1024
"""Most bytes of a snapshot in one item. DynamoDB takes 400 KiB, and a tenant and an owner may have 4 KiB each."""

MAX_BODY = 64 * 2**20
"""Most bytes of a snapshot."""

_IN_FLIGHT = 8
"""Parts of one snapshot on their way at a time."""

_LONGER = 3600.0
"""Seconds that parts outlive their record: a node's clock may be off, and a record without its parts is lost."""


class Bodies:
    """Where large snapshots are.

    Parts are written under a name that was never used, before the record that refers to them, so that a reader finds
    either the old ones or the new ones, whole. Those that a crash leaves without a record expire, as records do.
    """

    def __init__(self, ask: Asking) -> None:
        self._ask = ask

    async def place(self, address: Address, body: bytes, expires: float) -> bytes | Parts:
        """What the record is to have: the snapshot itself, or where its parts have been written.

        Raises:
            DynamoTooLarge: It has more than `MAX_BODY` bytes.
            DynamoUnavailable: A part could not be written; `outcome_unknown` is False, as the record is as it was.
        """
        if len(body) <= PART:
            return body
        if len(body) > MAX_BODY:
            raise DynamoTooLarge(
                f"a snapshot of {len(body)} bytes is more than the {MAX_BODY} that the DynamoDB store keeps; keep less "
                "in the session's state"
            )
        parts = Parts(secrets.token_hex(8), -(-len(body) // PART), len(body))
        view = memoryview(body)

        async def write(part: int) -> None:
            item = {
                KEY: {"S": parts.key(address, part)},
                "data": {"B": bytes(view[part * PART : (part + 1) * PART])},
                "expiresAt": number(expires + _LONGER),
                "ttl": ttl_of(expires + _LONGER),
            }
            await self._ask("PutItem", writes=True, Item=item)

        try:
            await a_few_at_a_time(write, parts.count)
        except DynamoUnavailable as error:
            error.outcome_unknown = False
            await self.discard(address, parts)
            raise
        return parts

    async def read(self, address: Address, parts: Parts) -> bytes | None:
        """The snapshot; None if its parts are gone, because the record was saved anew in the meantime."""
        found: list[bytes] = [b""] * parts.count

        async def read(part: int) -> None:
            answer = await self._ask(
                "GetItem", writes=False, Key={KEY: {"S": parts.key(address, part)}}, ConsistentRead=True
            )
            if "Item" in answer:
                found[part] = answer["Item"]["data"]["B"]

        await a_few_at_a_time(read, parts.count)
        return b"".join(found) if sum(map(len, found)) == parts.size and all(found) else None

    async def keep(self, address: Address, parts: Parts, expires: float) -> None:
        """Let the parts live at least as long as a record that ends at `expires`."""

        async def keep(part: int) -> None:
            with suppress(ConditionFailed):
                await self._ask(
                    "UpdateItem",
                    writes=True,
                    Key={KEY: {"S": parts.key(address, part)}},
                    UpdateExpression="SET #ends = :ends, #ttl = :ttl",
                    ConditionExpression="#ends < :ends",
                    ExpressionAttributeNames={"#ends": "expiresAt", "#ttl": "ttl"},
                    ExpressionAttributeValues={
                        ":ends": number(expires + _LONGER),
                        ":ttl": ttl_of(expires + _LONGER),
                    },
                )

        try:
            await a_few_at_a_time(keep, parts.count)
        except DynamoUnavailable as error:
            error.outcome_unknown = False
            raise

    async def discard(self, address: Address, parts: Parts) -> None:
        """Remove the parts of a record that is no more. What cannot be removed now goes when it has expired."""

        async def remove(part: int) -> None:
            await self._ask("DeleteItem", writes=True, Key={KEY: {"S": parts.key(address, part)}})

        with suppress(DynamoUnavailable):
            await a_few_at_a_time(remove, parts.count)


async def a_few_at_a_time(work: Callable[[int], Coroutine[Any, Any, None]], count: int) -> None:
    """`work(0)` to `work(count - 1)`, `_IN_FLIGHT` at a time. Raises the first `DynamoUnavailable`."""
    turns = iter(range(count))
    failures: list[DynamoUnavailable] = []

    async def worker() -> None:
        for turn in turns:
            if failures:
                return
            try:
                await work(turn)
            except DynamoUnavailable as error:
                failures.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(count, _IN_FLIGHT)):
            group.create_task(worker())
    if failures:
        raise failures[0]
