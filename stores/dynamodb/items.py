"""Records as items of the table, and back.

A record is `sessionId` (kind/id), `kind`, `tenant`, `owner`, `epoch`, `version`, `createdAt`, `updatedAt`, `expiresAt`
(seconds since the Unix epoch, with a fraction), `ttl` (whole seconds, for DynamoDB's own sweeping), `data` (the
snapshot) or `parts` (where it is), and `claim` (which call made its writer the writer). Keys that begin with `#` are
the store's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..address import Address
from ..errors import StoreCorrupt
from ..record import Record, RecordInfo
from .table import KEY

__all__ = [
    "FORMAT",
    "INTERNAL",
    "Item",
    "Parts",
    "info_of",
    "item_of",
    "key",
    "latest",
    "lives",
    "number",
    "record_of",
    "ttl_of",
]

Item = dict[str, Any]
"""Attributes in the form of the API: `{"S": ...}`, `{"N": ...}`, `{"B": ...}`."""

FORMAT = 1
"""Of everything in the table."""

INTERNAL = "#"
"""What the keys of items begin with that are no records; no kind does."""

_LATEST = 1e11
"""The year 5138: a time beyond it is that, so that every time is a plain number."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Where a snapshot is that does not fit into its record."""

    generation: str
    count: int
    size: int

    def key(self, address: Address, part: int) -> str:
        """The key of one part."""
        return f"{INTERNAL}part/{address}/{self.generation}/{part}"

    def attribute(self) -> Item:
        """As the record has it."""
        return {"S": f"{self.generation}/{self.count}/{self.size}"}

    @staticmethod
    def of(item: Item) -> Parts | None:
        """Those of a record's item, if it has any."""
        if "parts" not in item:
            return None
        generation, count, size = item["parts"]["S"].split("/")
        return Parts(generation, int(count), int(size))


def key(address: Address) -> Item:
    """The key of a record."""
    return {KEY: {"S": f"{address.kind}/{address.id}"}}


def latest(time: float) -> float:
    """A time that an item can have."""
    return min(time, _LATEST)


def number(time: float) -> Item:
    """A time. Exactly: DynamoDB keeps 38 digits, and a float has 17."""
    return {"N": repr(latest(time))}


def ttl_of(expires: float) -> Item:
    """When DynamoDB itself may remove the item: not before its end."""
    return {"N": str(math.ceil(latest(expires)))}


def lives(item: Item, now: float) -> bool:
    """Whether the record has not expired."""
    return float(item["expiresAt"]["N"]) > now


def item_of(record: Record, claim: bytes, body: bytes | Parts) -> Item:
    """A new record."""
    return {
        KEY: {"S": str(record.address)},
        "kind": {"S": record.address.kind},
        "tenant": {"S": record.tenant},
        "owner": {"S": record.owner},
        "epoch": {"N": str(record.epoch)},
        "version": {"N": str(record.version)},
        "createdAt": number(record.created),
        "updatedAt": number(record.updated),
        "expiresAt": number(record.expires),
        "ttl": ttl_of(record.expires),
        "claim": {"B": claim},
        **({"parts": body.attribute()} if isinstance(body, Parts) else {"data": {"B": body}}),
    }


def info_of(item: Item) -> RecordInfo:
    """A record without its snapshot.

    Raises:
        StoreCorrupt: Attributes are missing, or are not what we write.
    """
    try:
        return RecordInfo(*_fields(item))
    except (KeyError, ValueError) as error:
        raise _corrupt(item) from error


def record_of(item: Item, snapshot: bytes | None = None) -> Record:
    """A record, with the snapshot that was in parts or else its own.

    Raises:
        StoreCorrupt: As `info_of`.
    """
    try:
        return Record(*_fields(item), item["data"]["B"] if snapshot is None else snapshot)
    except (KeyError, ValueError) as error:
        raise _corrupt(item) from error


def _fields(item: Item) -> tuple[Address, str, int, int, str, float, float, float]:
    kind = item["kind"]["S"]
    return (
        Address(kind, item[KEY]["S"][len(kind) + 1 :]),
        item["tenant"]["S"],
        int(item["epoch"]["N"]),
        int(item["version"]["N"]),
        item["owner"]["S"],
        float(item["createdAt"]["N"]),
        float(item["updatedAt"]["N"]),
        float(item["expiresAt"]["N"]),
    )


def _corrupt(item: Item) -> StoreCorrupt:
    name = str(item.get(KEY, {}).get("S", "?"))[:200]
    return StoreCorrupt(f"item {name!r} of the DynamoDB table is no record of understudy; it is left as it is")
