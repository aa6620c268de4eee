"""`DynamoInspector`: what of a store is in a table, without changing it; and making the table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from ..inspection import Layout
from .asking import Asking
from .client import Client, connect
from .creating import create_table
from .errors import DynamoRefused
from .items import FORMAT, INTERNAL
from .opening import SCHEMA, check_schema, check_table, time_to_live, warnings_of
from .settings import DynamoSettings
from .table import TTL_ATTRIBUTE, table_description

__all__ = ["DynamoInspector"]

_SCHEMA_STEP = f"PutItem {INTERNAL}understudy format {FORMAT} store (16 random digits)"


class DynamoInspector:
    """A `Maker` of one table. Made by `reach`."""

    def __init__(self, client: Client, settings: DynamoSettings, timeout: float) -> None:
        self._client = client
        self._settings = settings
        self._ask = Asking(client, settings.table, connections=settings.connections, timeout=timeout)

    @classmethod
    async def reach(cls, url: str, *, timeout: float) -> Self:
        """Find region and credentials; nothing is sent. Raises as `DynamoSettings.from_url` and `connect`."""
        settings = DynamoSettings.from_url(url)
        return cls(await connect(settings, timeout=timeout), settings, timeout)

    async def look(self) -> Layout:
        """See `Inspector.look`."""
        where = f"DynamoDB {self._client.where}"
        wanted = table_description(self._settings.table)
        ttl_step = f"UpdateTimeToLive {json.dumps(wanted.pop('TimeToLiveSpecification'))}"
        described = await self._described()
        if described is None:
            return Layout(where, None, FORMAT, (), (f"CreateTable {json.dumps(wanted)}", ttl_step, _SCHEMA_STEP), ())
        check_table(described["Table"], where)
        ttl = await self._ask("DescribeTimeToLive", writes=False)
        schema = (await self._ask("GetItem", writes=False, Key=SCHEMA, ConsistentRead=True)).get("Item")
        there = [f"table {self._settings.table}"]
        steps: list[str] = []
        if time_to_live(ttl) == TTL_ATTRIBUTE:
            there.append(f"time to live on {TTL_ATTRIBUTE}")
        elif time_to_live(ttl) is None:
            steps.append(ttl_step)
        if schema is not None:
            check_schema(schema, where)
            there.append(f"item {INTERNAL}understudy")
        else:
            steps.append(_SCHEMA_STEP)
        return Layout(
            where,
            None if schema is None else FORMAT,
            FORMAT,
            tuple(there),
            tuple(steps),
            warnings_of(described, ttl, where),
        )

    async def make(self) -> None:
        """See `Maker.make`: the table, and its time to live. Raises as `create_table`."""
        await create_table(self._settings)

    async def sizes(self) -> Mapping[str, int]:
        """See `Inspector.sizes`. As DynamoDB counts, every six hours or so."""
        table = (await self._ask("DescribeTable", writes=False))["Table"]
        return {"stored_bytes": int(table.get("TableSizeBytes", 0))}

    async def aclose(self) -> None:
        """See `Inspector.aclose`."""
        await self._client.aclose()

    async def _described(self) -> dict[str, Any] | None:
        try:
            return await self._ask("DescribeTable", writes=False)
        except DynamoRefused as error:
            if error.code == "ResourceNotFoundException":
                return None
            raise
