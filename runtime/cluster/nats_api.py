"""nats-py, typed: the parts of its interface whose types it leaves open."""
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from nats.errors import Error as NatsError
from nats.js.errors import APIError, KeyWrongLastSequenceError, NoKeysError

from ...stores.nats.connection import translated

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.js import JetStreamContext
    from nats.js.api import KeyValueConfig
    from nats.js.kv import KeyValue

__all__ = ["WRONG_SEQUENCE", "create_bucket", "delete_at", "keys_of", "lengthen", "listening", "subscribe"]

logger = logging.getLogger("understudy.cluster")

WRONG_SEQUENCE: Final = (10071, 10164)
"""JetStream's codes for a value that has changed since."""


async def subscribe(
    connection: Client, subject: str, heard: Callable[[Msg], Awaitable[None]], **limits: Any
) -> Subscription:
    """Have `heard` called with each message, one after the other. `limits`: nats-py's, on what waits for that.

    Raises:
        NatsUnavailable: There is no connection.
    """
    try:
        return await connection.subscribe(subject, cb=heard, **limits)
    except (NatsError, OSError, TimeoutError) as error:
        raise translated(error, f"listening on {subject}") from error


@asynccontextmanager
async def listening(connection: Client, subject: str, heard: Callable[[Msg], Awaitable[None]]) -> AsyncGenerator[None]:
    """`subscribe` for as long as the block lasts. Its end takes a second at most, and raises nothing."""
    subscription = await subscribe(connection, subject, heard)
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(1.0):
                await subscription.unsubscribe()
        except (NatsError, TimeoutError, OSError) as error:
            logger.debug("a subscription could not be ended: %r", error)


async def lengthen(jetstream: JetStreamContext, bucket: KeyValue, ttl: float) -> None:
    """Have `bucket` keep its values for `ttl` seconds at least. Raises nats-py's errors."""
    config = (await bucket.status()).stream_info.config
    if config.max_age and config.max_age < ttl:
        await jetstream.update_stream(config, max_age=ttl)


async def keys_of(bucket: KeyValue) -> list[str]:
    """All keys that have a value."""
    try:
        return await bucket.keys()
    except NoKeysError:
        return []


async def delete_at(bucket: KeyValue, key: str, revision: int | None) -> None:
    """Delete the value of a key if it still has this revision. Raises nats-py's errors.

    Raises:
        KeyWrongLastSequenceError: It has another, and stays. Unlike `update`, nats-py's `delete` does not say so.
    """
    try:
        await bucket.delete(key, last=revision, validate_keys=False)
    except APIError as error:
        if error.err_code in WRONG_SEQUENCE:
            raise KeyWrongLastSequenceError from None
        raise


async def create_bucket(jetstream: JetStreamContext, config: KeyValueConfig) -> KeyValue:
    """Make a bucket. Raises nats-py's errors."""
    return await jetstream.create_key_value(config)
