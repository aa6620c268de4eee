"""aiobotocore doing by hand what the DynamoDB store's operations do: without any condition, and with those of a fence.

What a request compares and changes is text, read anew each time, and the answer to a claim is the whole item. In moto,
which plays DynamoDB where there is no AWS and is one Python process, a fence and a record's attributes make a claim 1.8
times the work, whoever asks. So a report has two figures: beside `DynamoClient` what a fenced record costs there and
what the store adds, together; beside `FencingDynamoClient` what the store adds. The store is judged by the second.
"""
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

__all__ = ["DynamoClient", "FencingDynamoClient", "fencing_dynamodb", "raw_dynamodb"]

TTL = 3600
"""Seconds."""

Client = TypeVar("Client", bound="DynamoClient")


class DynamoClient:
    """aiobotocore's client, with as many connections as the store has, and its own repeats and checks."""

    name = "aiobotocore"

    def __init__(self, client: Any, table: str, prefix: str) -> None:
        self._client = client
        self._table = table
        self._prefix = prefix

    def _item(self, at: int) -> dict[str, Any]:
        return {"TableName": self._table, "Key": {"sessionId": {"S": f"{self._prefix}/{at}"}}}

    async def create(self, at: int, value: bytes) -> None:
        """Write the item for the first time."""
        await self.save(at, value)

    async def claim(self, at: int) -> bytes:
        answer = await self._client.update_item(
            **self._item(at),
            UpdateExpression="ADD epoch :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
            ReturnValues="ALL_NEW",
        )
        return answer["Attributes"]["value"]["B"]

    async def load(self, at: int) -> bytes:
        return (await self._client.get_item(**self._item(at), ConsistentRead=True))["Item"]["value"]["B"]

    async def save(self, at: int, value: bytes) -> None:
        await self._client.update_item(
            **self._item(at),
            UpdateExpression="SET #value = :value, expires = :expires",
            ExpressionAttributeNames={"#value": "value"},
            ExpressionAttributeValues={":value": {"B": value}, ":expires": {"N": str(int(time.time()) + TTL)}},
        )

    async def touch(self, at: int) -> None:
        await self._client.update_item(
            **self._item(at),
            UpdateExpression="SET expires = :expires",
            ExpressionAttributeValues={":expires": {"N": str(int(time.time()) + TTL)}},
        )

    async def delete(self, at: int) -> None:
        await self._client.delete_item(**self._item(at))


class FencingDynamoClient(DynamoClient):
    """The same, with the requests that anybody needs who keeps sessions there with one writer each.

    A record has the attributes of one of the store's, but for `kind`, so that no store takes it for its own. A claim
    raises the epoch of a record that has not expired; a save and a touch compare epoch and expiry, a save the version
    too. Unlike the store it cannot tell the repeat of a claim from another's, and does not look where a snapshot is.
    """

    name = "aiobotocore, fencing"

    def __init__(self, client: Any, table: str, prefix: str) -> None:
        super().__init__(client, table, prefix)
        self._epochs: dict[int, int] = {}
        self._versions: dict[int, int] = {}

    async def create(self, at: int, value: bytes) -> None:
        """Write the record: at epoch and version 1."""
        now = time.time()
        await self._client.put_item(
            TableName=self._table,
            Item={
                "sessionId": {"S": f"{self._prefix}/{at}"},
                "tenant": {"S": "bench"},
                "owner": {"S": "bench"},
                "epoch": {"N": "1"},
                "version": {"N": "1"},
                "createdAt": {"N": repr(now)},
                "updatedAt": {"N": repr(now)},
                "expiresAt": {"N": repr(now + TTL)},
                "ttl": {"N": str(int(now) + TTL + 1)},
                "claim": {"B": secrets.token_bytes(9)},
                "data": {"B": value},
            },
        )
        self._epochs[at] = self._versions[at] = 1

    async def claim(self, at: int) -> bytes:
        answer = await self._client.update_item(
            **self._item(at),
            UpdateExpression="SET #owner = :owner ADD epoch :one",
            ConditionExpression="expiresAt > :now",
            ExpressionAttributeNames={"#owner": "owner"},
            ExpressionAttributeValues={
                ":one": {"N": "1"},
                ":owner": {"S": "bench"},
                ":now": {"N": repr(time.time())},
            },
            ReturnValues="ALL_NEW",
        )
        record = answer["Attributes"]
        self._epochs[at] = int(record["epoch"]["N"])
        self._versions[at] = int(record["version"]["N"])
        return record["data"]["B"]

    async def load(self, at: int) -> bytes:
        return (await self._client.get_item(**self._item(at), ConsistentRead=True))["Item"]["data"]["B"]

    async def save(self, at: int, value: bytes) -> None:
        now = time.time()
        version = self._versions[at]
        await self._client.update_item(
            **self._item(at),
            UpdateExpression=(
                "SET #data = :data, version = :version, updatedAt = :now, expiresAt = :expires, #ttl = :ttl"
            ),
            ConditionExpression="epoch = :epoch AND version = :before AND expiresAt > :now",
            ExpressionAttributeNames={"#data": "data", "#ttl": "ttl"},
            ExpressionAttributeValues={
                ":data": {"B": value},
                ":version": {"N": str(version + 1)},
                ":before": {"N": str(version)},
                ":epoch": {"N": str(self._epochs[at])},
                ":now": {"N": repr(now)},
                ":expires": {"N": repr(now + TTL)},
                ":ttl": {"N": str(int(now) + TTL + 1)},
            },
        )
        self._versions[at] = version + 1

    async def touch(self, at: int) -> None:
        now = time.time()
        await self._client.update_item(
            **self._item(at),
            UpdateExpression="SET expiresAt = :expires, #ttl = :ttl",
            ConditionExpression="epoch = :epoch AND expiresAt > :now",
            ExpressionAttributeNames={"#ttl": "ttl"},
            ExpressionAttributeValues={
                ":epoch": {"N": str(self._epochs[at])},
                ":now": {"N": repr(now)},
                ":expires": {"N": repr(now + TTL)},
                ":ttl": {"N": str(int(now) + TTL + 1)},
            },
        )


def raw_dynamodb(url: str, keys: int, value: bytes) -> AbstractAsyncContextManager[DynamoClient]:
    return _filled(DynamoClient, url, keys, value)


def fencing_dynamodb(url: str, keys: int, value: bytes) -> AbstractAsyncContextManager[FencingDynamoClient]:
    return _filled(FencingDynamoClient, url, keys, value)


@asynccontextmanager
async def _filled(make: type[Client], url: str, keys: int, value: bytes) -> AsyncGenerator[Client]:
    """A client whose keys begin as nobody else's do, with an item at each, which goes with it."""
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession

    from ..stores.dynamodb.settings import DynamoSettings

    settings = DynamoSettings.from_url(url)
    session: Any = AioSession(profile=settings.profile)
    config: Any = AioConfig(max_pool_connections=settings.connections)
    where = {"region_name": settings.region, "endpoint_url": settings.endpoint, "config": config}
    async with session.create_client("dynamodb", **where) as made:
        client = make(made, settings.table, f"understudy-bench-{secrets.token_hex(4)}")
        try:
            for at in range(keys):
                await client.create(at, value)
            yield client
        finally:
            for at in range(keys):
                await client.delete(at)
