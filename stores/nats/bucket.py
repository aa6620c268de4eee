"""`Bucket`: a JetStream key-value bucket by its requests: one key read, compared and set, removed; many listed."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, cast

from nats import errors
from nats.aio.msg import Msg

from .client import NatsClient
from .connection import api_error, translated
from .direct_get import direct_get
from .errors import NatsUnavailable

__all__ = ["Bucket", "Entry", "WrongRevision"]

_WRONG_REVISION = {10071, 10164}
_NO_SUCH_REVISION = {10037, 10043}
_DELETE_FAILED = 10057
_GONE = ("no message found", "deleted message", "stream store EOF")
"""What a failed delete says where there was nothing to delete; otherwise it failed."""
_NO_SUCH_STREAM = 10059

_BATCH = 200
"""Keys asked for in one request, and"""
_BATCH_BYTES = 4 * 2**20
"""bytes of values that may be on their way at a time."""

FOREVER = 10 * 365 * 86400


class WrongRevision(Exception):
    """The key has another revision than the one the write was meant for; nothing was written."""


class Entry(NamedTuple):
    """A value, and the revision that a compare-and-set of it names. `value` is None behind a delete marker."""

    revision: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """The bucket `name` at the server of `client`. Every request raises `NatsUnavailable`, or an error below it, within
    `timeout` seconds."""

    client: NatsClient
    name: str
    timeout: float
    replicas: int = 1
    storage: str = "file"
    made: str = ""
    """When it was made, by the clock of NATS."""

    @property
    def stream(self) -> str:
        """The stream that holds it."""
        return f"KV_{self.name}"

    @property
    def max_value(self) -> int:
        """Most bytes of a value that the server takes, beside key and headers."""
        return self.client.max_payload - 1024

    async def get(self, key: str) -> Entry | None:
        """What is under `key`; None if nothing."""
        doing = "reading from NATS"
        if self.replicas > 1:
            # Any replica may answer a direct get, one that lags behind too; this is answered by the leader.
            answer = await self.api("STREAM.MSG.GET", {"last_by_subj": self._subject(key)}, doing, absent={10037})
            if answer is None:
                return None
            message = answer["message"]
            headers = base64.b64decode(message.get("hdrs", ""))
            marker = b"KV-Operation:" in headers or b"Nats-Marker-Reason:" in headers
            return Entry(message["seq"], None if marker else base64.b64decode(message.get("data", "")))
        reply = await self._request(f"$JS.API.DIRECT.GET.{self.stream}.{self._subject(key)}", b"", doing)
        return _entry(reply, doing)

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expected: int | None = None,
        ttl: float | None = None,
        doing: str = "writing to NATS",
    ) -> int:
        """Write `value` if the revision of `key` is `expected` (0: there is nothing; None: whatever there is); its
        revision. NATS removes it `ttl` seconds after, if given.

        Raises:
            WrongRevision: It is another one.
        """
        headers: dict[str, str] = {}
        if expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        if ttl is not None and ttl < FOREVER:
            headers["Nats-TTL"] = f"{int(ttl) + 1}s"
        reply = await self._request(self._subject(key), value, doing, headers=headers, writing=True)
        answer = _json(reply, doing)
        error = answer.get("error")
        if error is None:
            return cast(int, answer["seq"])
        if error.get("err_code") in _WRONG_REVISION:
            raise WrongRevision
        raise api_error(error.get("err_code", 0), str(error.get("description")), doing, writing=True)

    async def remove(self, revision: int) -> bool:
        """Remove the value of this revision, and leave no marker; False if it is no longer there, as when its key was
        written again."""
        doing = "deleting from NATS"
        request = json.dumps({"seq": revision, "no_erase": True}).encode()
        reply = await self._request(f"$JS.API.STREAM.MSG.DELETE.{self.stream}", request, doing, writing=True)
        error = _json(reply, doing).get("error")
        if error is None:
            return True
        code, description = error.get("err_code", 0), str(error.get("description"))
        if code in _NO_SUCH_REVISION or (code == _DELETE_FAILED and description in _GONE):
            return False
        raise api_error(code, description, doing, writing=True)

    async def purge(self, keys: str) -> None:
        """Remove all that matches `keys`, a key with NATS wildcards."""
        await self.api("STREAM.PURGE", {"filter": self._subject(keys)}, "purging in NATS", writing=True)

    async def count(self) -> int:
        """Messages in the bucket."""
        answer = await self.api("STREAM.INFO", {}, "asking NATS for the bucket")
        assert answer is not None
        return cast(int, answer["state"]["messages"])

    async def keys(self, pattern: str) -> list[str]:
        """All keys that match `pattern`, in order."""
        found: list[str] = []
        cut = len(self._subject(""))
        while True:
            request = {"subjects_filter": self._subject(pattern), "offset": len(found)}
            answer = await self.api("STREAM.INFO", request, "listing keys in NATS")
            assert answer is not None
            subjects: Mapping[str, int] = answer["state"].get("subjects") or {}
            found += [subject[cut:] for subject in subjects]
            if not subjects or len(found) >= answer.get("total", 0):
                return sorted(found)

    async def get_many(self, keys: Iterable[str]) -> AsyncGenerator[tuple[str, Entry]]:
        """What is under each of `keys`, in no order, a few at a time in memory. Keys that are gone are left out."""
        remaining = iter(keys)
        while portion := set(islice(remaining, _BATCH)):
            while portion:
                got = 0
                async with aclosing(self._batch(portion)) as batch:
                    async for key, entry in batch:
                        portion.discard(key)
                        got += 1
                        yield key, entry
                if not got:
                    break
            if self.replicas > 1:
                for key in portion:
                    # The replica that answered may not have heard of it yet.
                    entry = await self.get(key)
                    if entry is not None:
                        yield key, entry

    async def _batch(self, keys: Iterable[str]) -> AsyncGenerator[tuple[str, Entry]]:
        cut = len(self._subject(""))
        request = {"multi_last": [self._subject(key) for key in keys], "batch": _BATCH, "max_bytes": _BATCH_BYTES}
        async with aclosing(direct_get(self.client, self.stream, request, timeout=self.timeout)) as replies:
            async for headers, reply in replies:
                yield headers["Nats-Subject"][cut:], _entry_of(headers, reply)

    async def api(
        self,
        call: str,
        request: Mapping[str, Any],
        doing: str,
        absent: set[int] | frozenset[int] = frozenset(),
        writing: bool = False,
    ) -> dict[str, Any] | None:
        """One call of JetStream's API on this stream; None if it answers one of the error codes in `absent`."""
        reply = await self._request(
            f"$JS.API.{call}.{self.stream}", json.dumps(request).encode() if request else b"", doing, writing=writing
        )
        answer = _json(reply, doing)
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("err_code") in absent:
            return None
        raise api_error(error.get("err_code", 0), str(error.get("description")), doing, writing=writing)

    async def _request(
        self, subject: str, payload: bytes, doing: str, *, headers: dict[str, str] | None = None, writing: bool = False
    ) -> Msg:
        try:
            return await self.client.request(subject, payload, self.timeout, headers=headers or None)
        except (errors.Error, OSError, TimeoutError) as error:
            raise translated(error, doing, writing=writing) from error

    def _subject(self, key: str) -> str:
        return f"$KV.{self.name}.{key}"


def _entry(reply: Msg, doing: str) -> Entry | None:
    headers = reply.headers or {}
    status = headers.get("Status")
    if status == "404":
        return None
    if status is not None or "Nats-Sequence" not in headers:
        raise NatsUnavailable(f"{doing}: the server answered {status or 'something else'}")
    return _entry_of(headers, reply)


def _entry_of(headers: Mapping[str, str], reply: Msg) -> Entry:
    marker = "KV-Operation" in headers or "Nats-Marker-Reason" in headers
    return Entry(int(headers["Nats-Sequence"]), None if marker else reply.data)


def _json(reply: Msg, doing: str) -> dict[str, Any]:
    try:
        answer = json.loads(reply.data)
    except ValueError as error:
        raise NatsUnavailable(f"{doing}: the answer is not JetStream's", outcome_unknown=True) from error
    if not isinstance(answer, dict):
        raise NatsUnavailable(f"{doing}: the answer is not JetStream's", outcome_unknown=True)
    return cast("dict[str, Any]", answer)
