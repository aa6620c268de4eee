"""`NatsCounters`: the counters of a cluster, in a key-value bucket that its NATS keeps in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ...stores.nats.bucket import Bucket, Entry, WrongRevision
from ...stores.nats.errors import NatsUnavailable
from .counters import CountersBusy, CountersUnavailable, Step

__all__ = ["NatsCounters"]

T = TypeVar("T")

MAX_SEEN: Final = 4096
"""Records that are remembered as they were last seen, so that to change one that nobody else has is one request."""
TRIES: Final = 3
REMOVED: Final = 10.0
"""Seconds after which NATS forgets a record that is none: such buckets have nothing deleted out of them."""
_NOTHING: Final = Entry(0, None)


class NatsCounters:
    """A change is one publish that names the revision it replaces; if that was not the last, a look and another one.

    What is kept in memory is gone after a restart of NATS, as are the spent tokens of the last minute and the permits,
    which nodes enter again soon (see `generation`).
    """

    shared = True

    def __init__(self, open_bucket: Callable[[], Awaitable[Bucket]]) -> None:
        """`open_bucket` opens the bucket, or makes it: also anew, as it is gone when NATS was restarted.

        Raises what this class translates: `NatsUnavailable`.
        """
        self._open_bucket = open_bucket
        self._bucket: Bucket | None = None
        self._connections = 0
        self._opened = 0
        self._seen: OrderedDict[str, Entry] = OrderedDict()
        self.conflicts = 0

    async def change(self, key: str, step: Step[T], lasting: float | None = None) -> tuple[bytes | None, T]:
        """See `Counters.change`."""
        try:
            bucket = self._bucket or await self.open()
            connections = bucket.client.stats["reconnects"]
            if connections != self._connections:
                # Another bucket may be there by now, which counts its revisions from the beginning.
                self._connections = connections
                self._seen.clear()
            return await self._change(bucket, key, step, lasting)
        except NatsUnavailable as error:
            self._bucket = None
            raise CountersUnavailable(str(error)) from error

    @property
    def generation(self) -> int:
        """See `Counters`: the bucket, which is in memory, was opened anew, or the way to it was."""
        return self._opened + (0 if self._bucket is None else self._bucket.client.stats["reconnects"])

    async def open(self) -> Bucket:
        """Open the bucket, which takes longer than a change may.

        Raises:
            NatsUnavailable, ClusterError: It cannot be opened, or made.
        """
        bucket = await self._open_bucket()
        self._opened += 1
        self._seen.clear()
        self._bucket = bucket
        return bucket

    async def _change(self, bucket: Bucket, key: str, step: Step[T], lasting: float | None) -> tuple[bytes | None, T]:
        # Whatever goes wrong below, what was seen before proves nothing any more.
        entry = self._seen.pop(key, None)
        for _ in range(TRIES):
            fresh = entry is None
            if entry is None:
                entry = await bucket.get(key) or _NOTHING
            present = entry.value or None
            record, result = step(present)
            if record == present:
                if not fresh:
                    # Nothing would be written, and so nothing would tell that others have.
                    entry = None
                    continue
                self._remember(key, entry)
                return record, result
            written = await _write(bucket, key, record, entry.revision, lasting)
            if written is not None:
                self._remember(key, written)
                return record, result
            self.conflicts += 1
            entry = None
        raise CountersBusy(f"{TRIES} times others have changed {key} first")

    def _remember(self, key: str, entry: Entry) -> None:
        self._seen[key] = entry
        self._seen.move_to_end(key)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)

    def stats(self) -> dict[str, int]:
        """Plain numbers."""
        return {"limits_counter_conflicts_total": self.conflicts}


async def _write(bucket: Bucket, key: str, record: bytes | None, revision: int, lasting: float | None) -> Entry | None:
    """What stands now; None if somebody else was faster."""
    lasting = REMOVED if record is None else lasting
    try:
        return Entry(await bucket.put(key, record or b"", expected=revision, ttl=lasting), record)
    except WrongRevision:
        return None
