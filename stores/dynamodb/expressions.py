"""The parameters of each request about a record: one step that compares and writes.

Names are written as `#name`, as some are reserved words of DynamoDB.
"""

from __future__ import annotations

from typing import Any

from .items import Item, Parts, number, ttl_of

__all__ = ["adopt", "claim", "create", "delete", "load", "save", "scan", "sweep", "touch"]

Parameters = dict[str, Any]

_TELL = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
"""What is there comes with the refusal: stale, missing and repeated are told apart without another request."""


def create(item: Item, now: float) -> Parameters:
    """PutItem: where there is no record, or one that has expired."""
    return {
        "Item": item,
        "ConditionExpression": "attribute_not_exists(#key) OR #ends <= :now",
        "ExpressionAttributeNames": {"#key": "sessionId", "#ends": "expiresAt"},
        "ExpressionAttributeValues": {":now": number(now)},
        **_TELL,
    }


def adopt(item: Item, over: tuple[int, int], now: float) -> Parameters:
    """PutItem: where there is no record, one that has expired, or one at epoch and version `over`."""
    request = create(item, now)
    request["ConditionExpression"] += " OR (#epoch = :epoch AND #version = :version)"
    request["ExpressionAttributeNames"] |= {"#epoch": "epoch", "#version": "version"}
    request["ExpressionAttributeValues"] |= {":epoch": {"N": str(over[0])}, ":version": {"N": str(over[1])}}
    return request | {"ReturnValues": "ALL_OLD"}


def claim(key: Item, owner: str, token: bytes, now: float) -> Parameters:
    """UpdateItem: the next epoch, unless `token` is what the last claim has left, which makes this its repeat."""
    return {
        "Key": key,
        "UpdateExpression": "SET #owner = :owner, #claim = :token ADD #epoch :one",
        "ConditionExpression": "#ends > :now AND #claim <> :token",
        "ExpressionAttributeNames": {
            "#epoch": "epoch",
            "#owner": "owner",
            "#claim": "claim",
            "#ends": "expiresAt",
        },
        "ExpressionAttributeValues": {
            ":one": {"N": "1"},
            ":owner": {"S": owner},
            ":token": {"B": token},
            ":now": number(now),
        },
        "ReturnValues": "ALL_NEW",
        **_TELL,
    }


def load(key: Item) -> Parameters:
    """GetItem, of what was written last."""
    return {"Key": key, "ConsistentRead": True}


def save(
    key: Item,
    epoch: int,
    version: int,
    body: bytes | Parts,
    before: Parts | None,
    *,
    now: float,
    expires: float,
) -> Parameters:
    """UpdateItem: under `epoch`, after the version before `version`. `before`: that one's snapshot, if in parts."""
    names = {
        "#epoch": "epoch",
        "#version": "version",
        "#updated": "updatedAt",
        "#ends": "expiresAt",
        "#ttl": "ttl",
        "#parts": "parts",
    }
    values = {
        ":epoch": {"N": str(epoch)},
        ":before": {"N": str(version - 1)},
        ":version": {"N": str(version)},
        ":now": number(now),
        ":ends": number(expires),
        ":ttl": ttl_of(expires),
        ":body": body.attribute() if isinstance(body, Parts) else {"B": body},
    }
    there = "#parts" if isinstance(body, Parts) else "#data"
    update = f"SET {there} = :body, #version = :version, #updated = :now, #ends = :ends, #ttl = :ttl"
    # By the condition the one before is where `before` says, so that only a move leaves something to remove.
    gone = "#data" if before is None else "#parts"
    if gone != there:
        update += f" REMOVE {gone}"
    if "#data" in (there, gone):
        names["#data"] = "data"
    return {
        "Key": key,
        "UpdateExpression": update,
        "ConditionExpression": f"#epoch = :epoch AND #version = :before AND #ends > :now AND {_is(before, values)}",
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        **_TELL,
    }


def touch(key: Item, epoch: int, parts: Parts | None, *, now: float, expires: float) -> Parameters:
    """UpdateItem: another end, under `epoch`, while the snapshot is where it was."""
    values = {
        ":epoch": {"N": str(epoch)},
        ":now": number(now),
        ":ends": number(expires),
        ":ttl": ttl_of(expires),
    }
    return {
        "Key": key,
        "UpdateExpression": "SET #ends = :ends, #ttl = :ttl",
        "ConditionExpression": f"#epoch = :epoch AND #ends > :now AND {_is(parts, values)}",
        "ExpressionAttributeNames": {
            "#epoch": "epoch",
            "#ends": "expiresAt",
            "#ttl": "ttl",
            "#parts": "parts",
        },
        "ExpressionAttributeValues": values,
        **_TELL,
    }


def delete(key: Item, epoch: int | None, parts: Parts | None, now: float) -> Parameters:
    """DeleteItem: a record that lives, while its snapshot is where it was; with `epoch`, only under that."""
    values: Item = {":now": number(now)}
    condition = f"#ends > :now AND {_is(parts, values)}"
    names = {"#ends": "expiresAt", "#parts": "parts"}
    if epoch is not None:
        condition += " AND #epoch = :epoch"
        names["#epoch"] = "epoch"
        values[":epoch"] = {"N": str(epoch)}
    return {
        "Key": key,
        "ConditionExpression": condition,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        **_TELL,
    }


def scan(tenant: str | None, after: Item | None, limit: int | None, now: float) -> Parameters:
    """Scan: records that live, without their snapshots, in the order in which DynamoDB keeps them."""
    names = {
        "#key": "sessionId",
        "#kind": "kind",
        "#tenant": "tenant",
        "#owner": "owner",
        "#epoch": "epoch",
        "#version": "version",
        "#created": "createdAt",
        "#updated": "updatedAt",
        "#ends": "expiresAt",
    }
    condition = "attribute_exists(#kind) AND #ends > :now"
    values: Item = {":now": number(now)}
    if tenant is not None:
        condition += " AND #tenant = :tenant"
        values[":tenant"] = {"S": tenant}
    return {
        "ConsistentRead": True,
        "FilterExpression": condition,
        "ProjectionExpression": ", ".join(names),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        **_from(after, limit),
    }


def sweep(after: Item | None, now: float) -> Parameters:
    """Scan: what has expired, records and parts."""
    names = {"#key": "sessionId", "#kind": "kind", "#parts": "parts", "#ends": "expiresAt"}
    return {
        "FilterExpression": "#ends <= :now",
        "ProjectionExpression": ", ".join(names),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {":now": number(now)},
        **_from(after, None),
    }


def _is(parts: Parts | None, values: Item) -> str:
    if parts is None:
        return "attribute_not_exists(#parts)"
    values[":parts"] = parts.attribute()
    return "#parts = :parts"


def _from(after: Item | None, limit: int | None) -> Parameters:
    return {
        **({} if after is None else {"ExclusiveStartKey": after}),
        **({} if limit is None else {"Limit": limit}),
    }
