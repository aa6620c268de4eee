"""`EventStream`: the JetStream stream beside a bucket that holds its event log: found, made, and read in order."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

from ..errors import StoreCorrupt, StoreVersionError
from ..event_log import EventLogBounds
from .bucket import Bucket
from .direct_get import direct_get
from .errors import NatsUnavailable, StorageFull
from .event_records import FORMAT

__all__ = ["EventStream", "Message"]

logger = logging.getLogger(__name__)

_MARK = "understudy.events"
_NO_SUCH_STREAM = {10059}
_NO_MESSAGE = {10037}
_MUST = {"retention": "limits", "discard": "old", "allow_direct": True, "deny_purge": False, "max_msgs": -1}

_LEAST_TOTAL = 16 * 2**20
"""Bytes: a stream smaller than this is not made where a larger one has no room."""

_BATCH = 1024
"""Messages asked for in one request, and"""
_BATCH_BYTES = 4 * 2**20
"""bytes of them that may be on their way at a time."""


class Message(NamedTuple):
    """A message of the stream. `key` is its subject without what is common to all."""

    sequence: int
    key: str
    data: bytes


@dataclass(frozen=True, slots=True)
class EventStream(Bucket):
    """The stream of the bucket `name`. Its keys are those of `nats_event_records`."""

    bounds: EventLogBounds = field(default_factory=EventLogBounds)

    @property
    def stream(self) -> str:
        """The name of the stream."""
        return f"EVENTS_{self.name}"

    @classmethod
    async def open(cls, bucket: Bucket, bounds: EventLogBounds) -> Self:
        """The stream beside `bucket`, made as it is if it is not there, with `bounds` as far as NATS has room.

        Raises:
            NatsUnavailable: NATS does not answer, or has no room.
            StoreVersionError, StoreCorrupt: It is a newer understudy's, something else's, or was changed.
        """
        doing = f"opening the event log of the bucket {bucket.name!r} in NATS"
        self = cls(bucket.client, bucket.name, bucket.timeout, bucket.replicas, bucket.storage, bucket.made, bounds)
        answer = await self.find(doing)
        if answer is None:
            answer = await self._make(doing)
            self._check(answer["config"])
        config: dict[str, Any] = answer["config"]
        wanted = {"max_age": _nanoseconds(bounds.max_age), "max_bytes": bounds.max_total_bytes}
        if any(config.get(key) != value for key, value in wanted.items()):
            config = await self._changed(config, wanted, doing)
        return replace(
            self,
            replicas=int(config.get("num_replicas") or 1),
            bounds=replace(bounds, max_age=config["max_age"] / 1e9, max_total_bytes=config["max_bytes"]),
        )

    async def find(self, doing: str) -> dict[str, Any] | None:
        """What NATS says of the stream; None if it is not there. Nothing is made. Raises as `open`."""
        answer = await self.api("STREAM.INFO", {}, doing, _NO_SUCH_STREAM)
        if answer is not None:
            self._check(answer["config"])
        return answer

    async def messages(self, pattern: str) -> AsyncGenerator[Message]:
        """All messages whose keys match `pattern`, in order, as one replica has them."""
        start = 1
        while True:
            end = start
            pending = 0
            async with aclosing(self._portion(pattern, start)) as portion:
                async for message, pending in portion:  # noqa: B007 - what the last one says
                    end = message.sequence + 1
                    yield message
            if end == start or not pending:
                return
            start = end

    async def messages_of_leader(self, pattern: str, start: int, up_to: int) -> AsyncGenerator[Message]:
        """Those with a sequence number of `start` to `up_to`, as the leader has them; a request for each."""
        cut = len(self._subject(""))
        while start <= up_to:
            request = {"seq": start, "next_by_subj": self._subject(pattern)}
            answer = await self.api("STREAM.MSG.GET", request, "reading from NATS", _NO_MESSAGE)
            if answer is None:
                return
            message = answer["message"]
            start = message["seq"] + 1
            if message["seq"] <= up_to:
                data = base64.b64decode(message.get("data", ""))
                yield Message(message["seq"], message["subject"][cut:], data)

    async def purge_before(self, pattern: str, sequence: int) -> None:
        """Remove the messages whose keys match `pattern` and whose sequence number is below `sequence`."""
        request = {"filter": self._subject(pattern), "seq": sequence}
        await self.api("STREAM.PURGE", request, "trimming a stream in NATS", writing=True)

    async def _portion(self, pattern: str, start: int) -> AsyncGenerator[tuple[Message, int]]:
        """Up to `_BATCH` messages, and how many are left after each."""
        cut = len(self._subject(""))
        request = {
            "seq": start,
            "next_by_subj": self._subject(pattern),
            "batch": _BATCH,
            "max_bytes": _BATCH_BYTES,
        }
        async with aclosing(direct_get(self.client, self.stream, request, timeout=self.timeout)) as replies:
            async for headers, reply in replies:
                message = Message(int(headers["Nats-Sequence"]), headers["Nats-Subject"][cut:], reply.data)
                yield message, int(headers.get("Nats-Num-Pending", "0"))

    async def _make(self, doing: str) -> dict[str, Any]:
        """Several nodes may do this at once: all but one are told that it is there."""
        size = self.bounds.max_total_bytes
        while True:
            config = _MUST | {
                "name": self.stream,
                "description": "event streams of understudy's sessions",
                "subjects": [self._subject(">")],
                "storage": self.storage,
                "num_replicas": self.replicas,
                "max_bytes": size,
                "max_age": _nanoseconds(self.bounds.max_age),
                "metadata": {_MARK: str(FORMAT)},
            }
            try:
                answer = await self.api("STREAM.CREATE", config, doing, writing=True)
            except StorageFull:
                # NATS sets aside what a stream may grow to.
                if size // 2 < _LEAST_TOTAL:
                    raise
                size //= 2
                continue
            assert answer is not None
            return answer

    async def _changed(self, config: dict[str, Any], wanted: Mapping[str, int], doing: str) -> dict[str, Any]:
        duplicate_window = min(int(config.get("duplicate_window") or 0), wanted["max_age"])
        request = config | dict(wanted) | {"duplicate_window": duplicate_window}
        try:
            answer = await self.api("STREAM.UPDATE", request, doing, writing=True)
        except NatsUnavailable as error:
            logger.warning(
                "the event log of the bucket %r in NATS keeps %d bytes for %g s, not %d bytes for %g s: %s",
                self.name,
                config["max_bytes"],
                config["max_age"] / 1e9,
                wanted["max_bytes"],
                wanted["max_age"] / 1e9,
                error,
            )
            return config
        assert answer is not None
        return answer["config"]

    def _check(self, config: Mapping[str, Any]) -> None:
        metadata: Mapping[str, str] = config.get("metadata") or {}
        mark = metadata.get(_MARK, "")
        if not mark.isdigit():
            raise StoreCorrupt(f"the stream {self.stream!r} in NATS is not understudy's; it is left as it is")
        if int(mark) > FORMAT:
            raise StoreVersionError(
                f"the stream {self.stream!r} in NATS has format {mark}; this understudy reads {FORMAT}"
            )
        for key, value in _MUST.items():
            if config.get(key, type(value)()) != value:
                raise StoreCorrupt(
                    f"the stream {self.stream!r} in NATS was changed: {key} is {config.get(key)!r} and must be "
                    f"{value!r}; put it back with `nats stream edit {self.stream}`"
                )

    def _subject(self, key: str) -> str:
        return f"understudy-events.{self.name}.{key}"


def _nanoseconds(seconds: float) -> int:
    return max(int(seconds * 1e9), 100_000_000)
