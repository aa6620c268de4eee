"""`Bodies`: snapshots in a bucket, within their record or, when too large for one message, in parts beside it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

from ..record import RecordInfo
from .bucket import Bucket
from .errors import NatsUnavailable
from .records import Head, Parts, part_prefix

__all__ = ["HEAD_ROOM", "Bodies", "a_few_at_a_time"]

HEAD_ROOM = 16 * 1024
"""Bytes that all but the snapshot may take in a record: a tenant and an owner of 1,024 characters each, and numbers."""

_IN_FLIGHT = 8
"""Parts of one snapshot on their way at a time."""

_MOST_PARTS = 4096


class Bodies:
    """Where the snapshots of a bucket's records are.

    Parts are written under a name that was never used, before the record that refers to them, so that a reader finds
    either the old ones or the new ones, whole. Those that a crash leaves without a record have its lifetime, and NATS
    removes them at its end.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def placed(self, info: RecordInfo, body: bytes | Parts, ttl: float) -> tuple[Head, bool]:
        """The record with its body, and whether parts were written for it: those of a snapshot that is too large."""
        if isinstance(body, Parts):
            return Head(info, body), False
        most = self._bucket.max_value - HEAD_ROOM
        if len(body) <= most:
            return Head(info, body), False
        count = -(-len(body) // most)
        if count > _MOST_PARTS:
            raise NatsUnavailable(f"a snapshot of {len(body)} bytes is more than NATS holds in {_MOST_PARTS} messages")
        parts = Parts(secrets.token_hex(8), count, len(body))
        head = Head(info, parts)
        prefix = part_prefix(info.address, parts.generation)
        view = memoryview(body)

        async def write(number: int) -> None:
            part = bytes(view[number * most : (number + 1) * most])
            await self._bucket.put(f"{prefix}.{number}", part, ttl=ttl)

        try:
            await a_few_at_a_time(write, count)
        except NatsUnavailable as error:
            # The record itself was not touched, whatever became of the parts.
            error.outcome_unknown = False
            await self.discard(head)
            raise
        return head, True

    async def read(self, head: Head) -> bytes | None:
        """The snapshot; None if its parts are gone, because the record was written anew in the meantime."""
        body = head.body
        if isinstance(body, bytes):
            return body
        prefix = part_prefix(head.info.address, body.generation)
        parts: list[bytes | None] = [None] * body.count

        async def read(number: int) -> None:
            entry = await self._bucket.get(f"{prefix}.{number}")
            parts[number] = None if entry is None else entry.value

        await a_few_at_a_time(read, body.count)
        whole = [part for part in parts if part is not None]
        if len(whole) < body.count or sum(map(len, whole)) != body.size:
            return None
        return b"".join(whole)

    async def discard(self, head: Head) -> None:
        """Remove the parts of a record that is no more. What cannot be removed now, NATS removes at its end."""
        if isinstance(head.body, Parts):
            with suppress(NatsUnavailable):
                await self._bucket.purge(f"{part_prefix(head.info.address, head.body.generation)}.>")


async def a_few_at_a_time(work: Callable[[int], Coroutine[Any, Any, None]], count: int) -> None:
    """`work(0)` to `work(count - 1)`, `_IN_FLIGHT` at a time. Raises the first error."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(count, _IN_FLIGHT)):
                group.create_task(worker())
    except* NatsUnavailable as errors:
        failure = next(iter(_leaves(errors)))
    else:
        return
    raise failure


def _leaves(group: BaseExceptionGroup[NatsUnavailable]) -> Iterator[NatsUnavailable]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
