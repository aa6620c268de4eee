"""`Listing`: pages of records, and sweeps, by scans of the table."""

from __future__ import annotations

import asyncio

from ..address import Address
from ..record import Page, RecordInfo
from . import expressions
from .asking import Asking, ConditionFailed
from .bodies import Bodies, a_few_at_a_time
from .items import Item, Parts, info_of, number
from .table import KEY

__all__ = ["Listing"]

_CURSOR = "dynamodb-"
_LONGEST_KEY = 512

_MOST_SCANS = 32
"""Requests for one page, and for one sweep: of 1 MiB of the table each."""


class Listing:
    """Reads the table in the order in which DynamoDB keeps it, by the hash of the key.

    A record has its place in that order by its key alone, so none moves while a walk goes on. Reads see what was
    written last, which an index would not.
    """

    def __init__(self, ask: Asking, bodies: Bodies) -> None:
        self._ask = ask
        self._bodies = bodies
        self._swept: Item | None = None
        """Where the next sweep goes on."""
        self._sweeping = asyncio.Lock()

    @staticmethod
    def position(cursor: str | None) -> Item | None:
        """The key that a cursor stands for.

        Raises:
            ValueError: It is not one of this store's.
        """
        if cursor is None:
            return None
        key = cursor.removeprefix(_CURSOR)
        if cursor.startswith(_CURSOR) and 0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable():
            return {KEY: {"S": key}}
        raise ValueError(f"cursor {cursor[:64]!r} is not one of this store's: pass Page.cursor of the page before")

    async def page(self, now: float, tenant: str | None, after: Item | None, limit: int) -> Page:
        """Records after `after`. Fewer than `limit`, or none, with a cursor, where 32 MiB of the table held no more."""
        found: list[RecordInfo] = []
        for _ in range(_MOST_SCANS):
            # Of one tenant perhaps none in a thousand matches, and whatever is read is paid for.
            some = limit - len(found) if tenant is None else None
            answer = await self._ask("Scan", writes=False, **expressions.scan(tenant, after, some, now))
            for item in answer["Items"]:
                found.append(info_of(item))
                if len(found) == limit:
                    last = {KEY: item[KEY]}
                    more = item is not answer["Items"][-1] or "LastEvaluatedKey" in answer
                    return Page(tuple(found), _cursor(last) if more else None)
            after = answer.get("LastEvaluatedKey")
            if after is None:
                return Page(tuple(found), None)
        assert after is not None
        return Page(tuple(found), _cursor(after))

    async def expire(self, now: float, limit: int) -> int:
        """Remove up to `limit` records that have expired, and parts; how many records went.

        Goes on where the last sweep stopped, for 32 MiB of the table at most.
        """
        async with self._sweeping:
            swept = 0
            begun_at_the_start = self._swept is None
            for _ in range(_MOST_SCANS):
                answer = await self._ask("Scan", writes=False, **expressions.sweep(self._swept, now))
                due: list[Item] = []
                records = 0
                for item in answer["Items"]:
                    if swept + records == limit:
                        break
                    due.append(item)
                    records += "kind" in item
                swept += await self._remove(due, now)
                if due and len(due) < len(answer["Items"]):
                    self._swept = {KEY: due[-1][KEY]}
                    return swept
                self._swept = answer.get("LastEvaluatedKey")
                if self._swept is None:
                    if begun_at_the_start:
                        break
                    begun_at_the_start = True
                if swept == limit:
                    break
            return swept

    async def _remove(self, due: list[Item], now: float) -> int:
        gone = 0

        async def remove(place: int) -> None:
            nonlocal gone
            item = due[place]
            try:
                await self._ask(
                    "DeleteItem",
                    writes=True,
                    Key={KEY: item[KEY]},
                    ConditionExpression="#ends <= :now",
                    ExpressionAttributeNames={"#ends": "expiresAt"},
                    ExpressionAttributeValues={":now": number(now)},
                )
            except ConditionFailed:
                return  # renewed, or removed by another node
            if "kind" in item:
                gone += 1
                parts = Parts.of(item)
                if parts is not None:
                    await self._bodies.discard(Address.parse(item[KEY]["S"]), parts)

        await a_few_at_a_time(remove, len(due))
        return gone


def _cursor(key: Item) -> str:
    return f"{_CURSOR}{key[KEY]['S']}"
