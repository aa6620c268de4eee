"""`NatsInspector`: what is in NATS of a bucket and its event log, without changing it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from ..event_log import EventLogBounds
from ..inspection import Layout
from .bucket import Bucket
from .client import NatsClient
from .connection import close, connect
from .event_stream import EventStream
from .opening import FORMAT, BucketOptions, bucket_of, check_bucket, configuration, find_bucket

__all__ = ["NatsInspector"]


class NatsInspector:
    """An `Inspector` of a bucket. Made by `reach`."""

    def __init__(self, client: NatsClient, options: BucketOptions, timeout: float) -> None:
        self._client = client
        self._options = options
        self._timeout = timeout

    @classmethod
    async def reach(cls, url: str, *, timeout: float) -> Self:
        """Connect to NATS. Raises as `NatsStore.from_url`."""
        settings, options = bucket_of(url)
        client = await connect(settings, name="understudy store inspector", deadline=timeout)
        return cls(client, options, timeout)

    async def look(self) -> Layout:
        """See `Inspector.look`."""
        bucket, found = await find_bucket(self._client, self._options, timeout=self._timeout)
        version = None if found is None else check_bucket(found["config"], self._options)
        events = await _events(bucket).find("looking at the event log in NATS")
        # What a new one is made with stands in the place of what is not there.
        config: Mapping[str, Any] = configuration(self._options) if found is None else found["config"]
        there: list[str] = []
        steps: list[str] = []
        for what, answer, text in (
            (f"bucket {bucket.name} (stream {bucket.stream})", found, json.dumps(config, sort_keys=True)),
            (f"event log (stream EVENTS_{bucket.name})", events, "as large and as old as the nodes are told"),
        ):
            if answer is None:
                steps.append(f"make {what}: {text}")
            else:
                there.append(f"{what}, {answer['config']['storage']} storage, "
                             f"{answer['config'].get('num_replicas') or 1} replicas")  # fmt: skip
        where = f"NATS bucket {bucket.name} at {self._client.connected_url.netloc.rpartition('@')[2]}"  # pyright: ignore[reportOptionalMemberAccess]
        return Layout(where, version, FORMAT, tuple(there), tuple(steps), tuple(_warnings(config)))

    async def sizes(self) -> Mapping[str, int]:
        """See `Inspector.sizes`. Costs two requests: NATS knows no part of a value, so `snapshot_bytes` is not told."""
        bucket, found = await find_bucket(self._client, self._options, timeout=self._timeout)
        events = await _events(bucket).find("looking at the event log in NATS")
        sizes: dict[str, int] = {}
        if found is not None:
            sizes["stored_bytes"] = int(found["state"]["bytes"])
        if events is not None:
            sizes["event_appends"] = int(events["state"]["messages"])
            sizes["event_bytes"] = int(events["state"]["bytes"])
        return sizes

    async def aclose(self) -> None:
        """See `Inspector.aclose`."""
        await close(self._client, timeout=2.0)


def _events(bucket: Bucket) -> EventStream:
    return EventStream(bucket.client, bucket.name, bucket.timeout, bounds=EventLogBounds())


def _warnings(config: Mapping[str, Any]) -> list[str]:
    said: list[str] = []
    if config["storage"] == "memory":
        said.append("the bucket is in the memory of NATS: sessions are lost with its server; use storage=file")
    if int(config.get("num_replicas") or 1) == 1:
        said.append(
            "the bucket has one replica: what was acknowledged is lost with its disk, and with the machine's power "
            "unless nats-server has sync_interval: always, which no client can see; set it, or replicas=3"
        )
    return said
