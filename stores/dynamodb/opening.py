"""What is asked of the table at the start: is it there, ours, and open to us; and what about it may be wrong."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from ..errors import StoreCorrupt, StoreVersionError
from .asking import Asking, ConditionFailed
from .errors import DynamoRefused
from .items import FORMAT, INTERNAL, Item
from .table import KEY, TTL_ATTRIBUTE

__all__ = [
    "PING",
    "SCHEMA",
    "Table",
    "check_schema",
    "check_table",
    "look_around",
    "ping",
    "time_to_live",
    "warnings_of",
]

PING: Item = {KEY: {"S": f"{INTERNAL}ping"}}
SCHEMA: Item = {KEY: {"S": f"{INTERNAL}understudy"}}
_PROBE: Item = {KEY: {"S": f"{INTERNAL}probe"}}

_CLOCK_MARGIN = 30.0
"""Seconds that the clock of a machine may be off, before it is said."""


@dataclass(frozen=True, slots=True)
class Table:
    """What the start has found."""

    identity: str
    sweeps: bool
    """Whether DynamoDB removes expired items by itself."""
    warnings: tuple[str, ...]


async def look_around(ask: Asking, where: str) -> Table:
    """Look at the table, and do once all that will be done to it: about one round trip, two in an empty table.

    Raises:
        DynamoRefused: No such table, another key, no credentials, no permission; each with what to do.
        DynamoUnavailable: It cannot be reached.
        StoreVersionError, StoreCorrupt: It is of a newer understudy, or something else's.
    """
    answers: list[Any] = await asyncio.gather(
        ask("DescribeTable", writes=False),
        ask("DescribeTimeToLive", writes=False),
        ask("GetItem", writes=False, Key=SCHEMA, ConsistentRead=True),
        ask("Scan", writes=False, Limit=1),
        ping(ask),
        ask("UpdateItem", writes=True, Key=_PROBE, UpdateExpression="REMOVE probed"),
        ask("DeleteItem", writes=True, Key=_PROBE),
        return_exceptions=True,
    )
    described, ttl, schema = answers[:3]
    if isinstance(described, BaseException):
        raise described
    description = described["Table"]
    check_table(description, where)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    id = await _agreed(ask, schema.get("Item"), where)
    return Table(
        f"DynamoDB table {description.get('TableArn', where)} {id}",
        time_to_live(ttl) == TTL_ATTRIBUTE,
        warnings_of(described, ttl, where),
    )


async def ping(ask: Asking) -> None:
    """Write one small item over the one before."""
    await ask("PutItem", writes=True, Item=PING)


def check_table(description: dict[str, Any], where: str) -> None:
    """
    Raises:
        DynamoRefused: The table takes no requests, or has another key.
    """
    status = description.get("TableStatus", "ACTIVE")
    if status not in ("ACTIVE", "UPDATING"):
        raise DynamoRefused(f"{where} is {status}, and takes no requests now")
    keys = [(key["AttributeName"], key["KeyType"]) for key in description["KeySchema"]]
    types = {one["AttributeName"]: one["AttributeType"] for one in description["AttributeDefinitions"]}
    if keys != [(KEY, "HASH")] or types.get(KEY) != "S":
        found = ", ".join(f"{name} ({types.get(name)}, {kind})" for name, kind in keys)
        raise DynamoRefused(
            f"{where} has the key {found}, and understudy's is {KEY} (S, HASH) alone: make a table of its own with "
            "`understudy store init`"
        )


async def _agreed(ask: Asking, item: Item | None, where: str) -> str:
    if item is None:
        item = {**SCHEMA, "format": {"N": str(FORMAT)}, "store": {"S": secrets.token_hex(8)}}
        try:
            await ask(
                "PutItem",
                writes=True,
                Item=item,
                ConditionExpression=f"attribute_not_exists({KEY})",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ConditionFailed as failed:
            item = failed.item or item
    return check_schema(item, where)


def check_schema(item: Item, where: str) -> str:
    """The name that the store was given when it was new.

    Raises:
        StoreVersionError, StoreCorrupt: It is of a newer understudy, or something else's.
    """
    try:
        format, id = int(item["format"]["N"]), str(item["store"]["S"])
    except (KeyError, ValueError, TypeError):
        raise StoreCorrupt(
            f"the item {INTERNAL}understudy of {where} is not understudy's: another program uses that table"
        ) from None
    if format != FORMAT:
        raise StoreVersionError(
            f"{where} has format {format}; this understudy reads {FORMAT}: upgrade it, or name another table"
        )
    return id


def time_to_live(answer: dict[str, Any]) -> str | None:
    """The attribute by which DynamoDB removes items; None if by none."""
    description = answer["TimeToLiveDescription"]
    on = description.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
    return description.get("AttributeName") if on else None


def warnings_of(described: dict[str, Any], ttl: dict[str, Any], where: str) -> tuple[str, ...]:
    """What of a table and of the clock is not as it should be. From the answers of DescribeTable and
    DescribeTimeToLive."""
    return (*_ttl(time_to_live(ttl), where), *_replicas(described["Table"], where), *_clock(described))


def _ttl(attribute: str | None, where: str) -> list[str]:
    if attribute == TTL_ATTRIBUTE:
        return []
    reason = "is off" if attribute is None else f"is on for the attribute {attribute!r}"
    return [
        f"time to live {reason} in {where}: nodes scan the whole table for what has expired, which costs reads; turn "
        f"it on for {TTL_ATTRIBUTE!r} (`understudy store init`, or aws dynamodb update-time-to-live)"
    ]


def _replicas(description: dict[str, Any], where: str) -> list[str]:
    if not description.get("Replicas") or description.get("MultiRegionConsistency") == "STRONG":
        return []
    return [
        f"{where} is a global table with eventual consistency: two regions may both take a write, and the later one "
        "wins. Let all nodes name one region, and no node another before this one is given up for good"
    ]


def _clock(answer: dict[str, Any]) -> list[str]:
    try:
        text = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        off = time.time() - parsedate_to_datetime(text).timestamp()
    except (KeyError, ValueError, TypeError):
        return []
    if abs(off) <= _CLOCK_MARGIN:
        return []
    return [
        f"the clock of this machine is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} that of AWS: sessions "
        f"expire that much {'sooner' if off > 0 else 'later'} here, and beyond five minutes every request is refused"
    ]
