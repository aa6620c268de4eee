"""`direct_get`: many messages of a stream by one request of JetStream's Direct Get API, which any replica answers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from nats import errors
from nats.aio.msg import Msg

from .client import NatsClient
from .connection import translated
from .errors import NatsUnavailable

__all__ = ["direct_get"]


async def direct_get(
    client: NatsClient, stream: str, request: Mapping[str, Any], *, timeout: float
) -> AsyncGenerator[tuple[dict[str, str], Msg]]:
    """What the server answers to `request`, until it says that there is no more: each message with its headers, which
    have `Nats-Sequence` and `Nats-Subject`. `timeout`: seconds for each.

    `request` has a `max_bytes`, after which the server stops. Close the generator: it holds a subscription.

    Raises:
        NatsUnavailable: NATS does not answer in time, or not so.
    """
    doing = "reading from NATS"
    inbox = client.new_inbox()
    try:
        untyped: Any = client  # whose subscribe has a parameter of unknown type
        subscription = await untyped.subscribe(inbox, pending_bytes_limit=16 * request["max_bytes"])
        try:
            await client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), inbox)
            while True:
                reply: Msg = await subscription.next_msg(timeout=timeout)
                headers: dict[str, str] = reply.headers or {}
                status = headers.get("Status")
                if status in ("204", "404"):
                    return
                if status is not None or "Nats-Sequence" not in headers:
                    raise NatsUnavailable(f"{doing}: the server answered {status or 'something else'}")
                yield headers, reply
        finally:
            await subscription.unsubscribe()
    except (errors.Error, OSError, TimeoutError) as error:
        raise translated(error, doing) from error
