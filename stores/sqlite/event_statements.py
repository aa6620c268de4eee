"""What `SQLiteEventLog` says to SQLite: one function an operation, run inside a transaction of `GroupCommit`.

An append is judged before it writes, under the lock of the transaction, so a refusal leaves nothing behind. `now` is
seconds since the Unix epoch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ..address import Address
from ..event_log import STREAM_OVERHEAD, EventLogBounds, LoggedStream
from ..event_rules import Tail, missing_events

__all__ = ["append", "drop", "expire", "names", "read"]

_FIND = """
    SELECT number, last, writer, ended, oldest, bytes, appended, length(head) FROM streams
    WHERE kind = ? AND id = ? AND stream = ?
"""
_BEGIN = """
    INSERT INTO streams (kind, id, stream, head, last, oldest, writer, ended, appended, bytes)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number
"""
_CONTINUE = "UPDATE streams SET last = ?, oldest = ?, writer = ?, ended = ?, appended = ?, bytes = ? WHERE number = ?"
_INSERT = "INSERT INTO events (stream, number, event) VALUES (?, ?, ?)"
_SIZES = "SELECT number, length(event) FROM events WHERE stream = ? ORDER BY number"
_TRIM = "DELETE FROM events WHERE stream = ? AND number < ?"
_READ = """
    SELECT number, head, last, oldest, writer, ended FROM streams
    WHERE kind = ? AND id = ? AND stream = ? AND appended > ?
"""
_EVENTS = "SELECT event FROM events WHERE stream = ? AND number > ? ORDER BY number"
_NAMES = "SELECT stream FROM streams WHERE kind = ? AND id = ?"
_LONGEST_AGO = "SELECT number, bytes, length(head), appended FROM streams ORDER BY appended, number LIMIT ?"
_FORGET_EVENTS = "DELETE FROM events WHERE stream = ?"
_FORGET = "DELETE FROM streams WHERE number = ?"
_COUNT = "UPDATE event_totals SET bytes = bytes + ? RETURNING bytes"

_AT_A_TIME = 16


def append(
    cursor: sqlite3.Cursor,
    address: Address,
    stream: str,
    first: int,
    events: Sequence[bytes],
    head: bytes,
    writer: str,
    ends: bool,
    now: float,
    bounds: EventLogBounds,
) -> tuple[int, int, int] | None:
    """How many events were appended, how many gave way in the stream, and how many streams did; None if it was a
    repeat."""
    found = cursor.execute(_FIND, (*address, stream)).fetchone()
    grown = 0
    if found is not None and found[6] + bounds.max_age <= now:
        grown -= _forget(cursor, found[0], found[5], found[7])
        found = None
    if found is None:
        last, oldest, held = first - 1, first, 0
        grown += len(head) + STREAM_OVERHEAD
        row = (*address, stream, head, last, oldest, writer, ends, now, held)
        (number,) = cursor.execute(_BEGIN, row).fetchone()
    else:
        number, last, wrote, ended, oldest, held, _, _ = found
        tail = Tail(last, wrote, bool(ended))
        there = missing_events(address, stream, tail, first, len(events), writer, ends=ends)
        if there is None:
            return None
        events = events[there:]
    if events:
        cursor.executemany(_INSERT, [(number, n, event) for n, event in enumerate(events, last + 1)])
        last += len(events)
    before, size = held, sum(map(len, events))
    trimmed = 0
    if last - oldest >= bounds.max_events or held + size > bounds.max_bytes:
        trimmed, freed = _trim(cursor, number, last, oldest, held + size, bounds)
        oldest += trimmed
        held -= freed
    held += size
    cursor.execute(_CONTINUE, (last, oldest, writer, ends, now, held, number))
    (total,) = cursor.execute(_COUNT, (grown + held - before,)).fetchone()
    evicted = 0
    if total > bounds.max_total_bytes:
        evicted = _make_room(cursor, total - bounds.max_total_bytes, number)
    return len(events), trimmed, evicted


def read(cursor: sqlite3.Cursor, address: Address, stream: str, after: int, since: float) -> LoggedStream | None:
    """The stream, if its newest append is later than `since`."""
    found = cursor.execute(_READ, (*address, stream, since)).fetchone()
    if found is None:
        return None
    number, head, last, oldest, writer, ended = found
    events = tuple(event for (event,) in cursor.execute(_EVENTS, (number, after)))
    return LoggedStream(head, last + 1 - len(events), events, last, oldest, writer, bool(ended))


def names(cursor: sqlite3.Cursor, address: Address) -> list[str]:
    """The streams of the actor, those that are too old included."""
    return [name for (name,) in cursor.execute(_NAMES, tuple(address))]


def drop(cursor: sqlite3.Cursor, streams: Sequence[tuple[Address, str]]) -> None:
    freed = 0
    for address, stream in streams:
        found = cursor.execute(_FIND, (*address, stream)).fetchone()
        if found is not None:
            freed += _forget(cursor, found[0], found[5], found[7])
    if freed:
        cursor.execute(_COUNT, (-freed,))


def expire(cursor: sqlite3.Cursor, limit: int, since: float, max_total_bytes: int) -> int:
    """Remove up to `limit` streams that nobody has appended to since `since`, or longest ago and there is too much; how
    many went."""
    (total,) = cursor.execute(_COUNT, (0,)).fetchone()
    freed = gone = 0
    for number, held, head, appended in cursor.execute(_LONGEST_AGO, (limit,)).fetchall():
        if appended > since and total - freed <= max_total_bytes:
            break
        freed += _forget(cursor, number, held, head)
        gone += 1
    if freed:
        cursor.execute(_COUNT, (-freed,))
    return gone


def _trim(
    cursor: sqlite3.Cursor, number: int, last: int, oldest: int, held: int, bounds: EventLogBounds
) -> tuple[int, int]:
    """How many events of the stream were removed to keep within its bounds, and their bytes."""
    freed = keep_from = 0
    for event, size in cursor.execute(_SIZES, (number,)):
        keep_from = event
        if event == last or (last - event < bounds.max_events and held - freed <= bounds.max_bytes):
            break
        freed += size
    if keep_from <= oldest:
        return 0, 0
    cursor.execute(_TRIM, (number, keep_from))
    return keep_from - oldest, freed


def _make_room(cursor: sqlite3.Cursor, excess: int, but_for: int) -> int:
    freed = gone = 0
    while freed < excess:
        # One more than what may be passed over, so that what comes back is never only that.
        others = [row for row in cursor.execute(_LONGEST_AGO, (_AT_A_TIME,)).fetchall() if row[0] != but_for]
        if not others:
            break
        for number, held, head, _ in others:
            freed += _forget(cursor, number, held, head)
            gone += 1
            if freed >= excess:
                break
    cursor.execute(_COUNT, (-freed,))
    return gone


def _forget(cursor: sqlite3.Cursor, number: int, held: int, head: int) -> int:
    """Remove a stream with `held` bytes of events and a head of `head`; the bytes that this counts for."""
    cursor.execute(_FORGET_EVENTS, (number,))
    cursor.execute(_FORGET, (number,))
    return held + head + STREAM_OVERHEAD
