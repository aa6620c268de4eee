"""`create_table`: the table, made and ready."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .asking import Asking
from .client import connect
from .errors import DynamoRefused, DynamoUnavailable
from .settings import DynamoSettings
from .table import table_description

__all__ = ["create_table"]

_EVERY = 0.5
"""Seconds between two looks at a table that is being made."""


async def create_table(
    settings: DynamoSettings,
    *,
    timeout: float = 60.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> bool:
    """Make the table as `table_description` has it, wait until it takes requests, and turn its time to live on.

    True if it was made, False if it was there; the time to live is turned on either way, and nothing else of a table
    that is there is changed. Needs the permissions `dynamodb:CreateTable`, `DescribeTable`, `DescribeTimeToLive` and
    `UpdateTimeToLive`. May be repeated after a failure or a cancellation.

    Raises:
        DynamoSettingsError: No such profile, or no region.
        DynamoUnavailable: It was refused, or is not ready after `timeout` seconds; each with what to do.
    """
    client = await connect(settings, timeout=10.0)
    try:
        ask = Asking(client, settings.table, connections=settings.connections, timeout=10.0)
        wanted = table_description(settings.table)
        ttl = wanted.pop("TimeToLiveSpecification")
        del wanted["TableName"]
        made = await _made(ask, wanted)
        try:
            async with asyncio.timeout(timeout):
                while (status := await _status(ask)) != "ACTIVE":
                    await sleep(_EVERY)
        except TimeoutError:
            raise DynamoUnavailable(f"{client.where} is not ready after {timeout:g} s; try again") from None
        assert status == "ACTIVE"
        now = (await ask("DescribeTimeToLive", writes=False))["TimeToLiveDescription"]
        if now.get("TimeToLiveStatus", "DISABLED") not in ("ENABLED", "ENABLING"):
            await ask("UpdateTimeToLive", writes=True, TimeToLiveSpecification=ttl)
        return made
    finally:
        await client.aclose()


async def _made(ask: Asking, wanted: dict[str, object]) -> bool:
    try:
        await ask("CreateTable", writes=True, **wanted)
    except DynamoRefused as error:
        if error.code == "ResourceInUseException":
            return False
        raise
    return True


async def _status(ask: Asking) -> str:
    try:
        return (await ask("DescribeTable", writes=False))["Table"]["TableStatus"]
    except DynamoRefused as error:
        # What was just made may not be seen at once.
        if error.code == "ResourceNotFoundException":
            return "CREATING"
        raise
