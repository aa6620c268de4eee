"""`KVDirectory`: the directory in a JetStream key-value bucket."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from nats.errors import Error as NatsError
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError

from ...actors.packing import pack, unpack
from ...stores import Address
from .directory import DirectoryUnavailable, EntryChanged
from .entry import Entry, is_incarnation
from .names import directory_key
from .nats_api import WRONG_SEQUENCE

if TYPE_CHECKING:
    from nats.js import JetStreamContext
    from nats.js.kv import KeyValue

__all__ = ["KVDirectory"]

_FORMAT: Final = 1
ASLEEP: Final = 3600.0
"""Seconds that the directory knows of a session which sleeps. After that its record tells who had it last."""
REMOVED: Final = 60.0
"""Seconds that the mark of a session which has ended stands, for writes that come late."""


class KVDirectory:
    """A key for each address that is, or was lately, awake; its value tells whose it is.

    The revision is the stream's sequence number, so that a compare-and-set is one publish.
    """

    def __init__(self, bucket: KeyValue, jetstream: JetStreamContext, name: str) -> None:
        """`name` of the bucket."""
        self._bucket = bucket
        self._jetstream = jetstream
        self._prefix = f"$KV.{name}."
        self.look_ups = 0
        self.writes = 0

    async def look_up(self, address: Address) -> Entry | None:
        """See `Directory.look_up`."""
        self.look_ups += 1
        with _translated(address):
            try:
                found = await self._bucket.get(directory_key(address), validate_keys=False)
            except KeyNotFoundError:
                return None
        if found.revision is None:
            return None
        return _entry(found.value or b"", found.revision)

    async def write(self, address: Address, entry: Entry) -> int:
        """See `Directory.write`."""
        self.writes += 1
        value = pack([_FORMAT, entry.incarnation, entry.epoch])
        with _translated(address):
            key = directory_key(address)
            if entry.asleep:
                return await self._publish(key, value, entry.revision, ASLEEP)
            if not entry.revision:
                # Minds the mark of an entry that was removed.
                return await self._bucket.create(key, value, validate_keys=False)
            return await self._bucket.update(key, value, last=entry.revision, validate_keys=False)

    async def remove(self, address: Address, revision: int) -> None:
        """See `Directory.remove`."""
        self.writes += 1
        with _translated(address):
            marks = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
            await self._publish(directory_key(address), b"", revision, REMOVED, marks)

    async def _publish(
        self, key: str, value: bytes, revision: int, ttl: float, headers: Mapping[str, str] | None = None
    ) -> int:
        """A compare-and-set of what NATS is to forget after `ttl` seconds, which nats-py's bucket has no word for."""
        expected = {**(headers or {}), "Nats-Expected-Last-Subject-Sequence": str(revision)}
        try:
            written = await self._jetstream.publish(f"{self._prefix}{key}", value, headers=expected, msg_ttl=ttl)
        except APIError as error:
            if error.err_code in WRONG_SEQUENCE:
                raise KeyWrongLastSequenceError from None
            raise
        return written.seq

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {"look_ups": self.look_ups, "writes": self.writes}


def _entry(value: bytes, revision: int) -> Entry:
    """What a value says. One that cannot be read names nobody: a hint that is not understood is none."""
    try:
        match unpack(value):
            case [int(format), str(incarnation), int(epoch), *_] if (
                format == _FORMAT and epoch >= 0 and (not incarnation or is_incarnation(incarnation))
            ):
                return Entry(incarnation, epoch, revision)
            case _:
                pass
    except ValueError:
        pass
    return Entry("", 0, revision)


@contextmanager
def _translated(address: Address) -> Generator[None]:
    try:
        yield
    except KeyWrongLastSequenceError:
        raise EntryChanged(address) from None
    except (NatsError, OSError, TimeoutError, ValueError) as error:
        raise DirectoryUnavailable(f"the directory does not answer: {error!r}") from error
