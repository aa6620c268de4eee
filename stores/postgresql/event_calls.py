"""The calls of `PostgresEventLog`: what each asks, and what it sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..address import Address
from .connection import Connection
from .event_statements import EventStatements
from .waiting import Kind

__all__ = ["Append", "Appended", "EventCalls", "Read", "Trim"]

_MOST = 128
"""Appends in one statement."""


class Append(NamedTuple):
    address: Address
    stream: str
    first: int
    events: tuple[bytes, ...]
    head: bytes
    writer: str
    ends: bool
    now: float


class Appended(NamedTuple):
    """The stream after the append; or as it was, and why nothing was written."""

    done: bool
    number: int | None
    """What the tables know the stream by; None: there was none when the statement began, and then there was."""
    oldest: int
    last: int
    bytes: int
    writer: str
    ended: bool
    appended: float


class Read(NamedTuple):
    address: Address
    stream: str
    since: float
    after: int
    max_bytes: int
    max_events: int


class Trim(NamedTuple):
    number: int
    max_bytes: int
    max_events: int


class EventCalls:
    """The kinds of call, for the tables in one schema."""

    def __init__(self, schema: str, max_age: float) -> None:
        self._sql = EventStatements(schema)
        self._max_age = max_age
        self.append = Kind("append", True, self._append, _MOST)
        self.read = Kind("read", False, self._read)
        self.trim = Kind("trim", True, self._trim)
        self.mark = Kind("mark", True, self._mark)
        self.mark_all = Kind("mark_all", True, self._mark_all)
        self.mark_one = Kind("mark_one", True, self._mark_one)
        self.mark_old = Kind("mark_old", True, self._mark_old)
        self.mark_longest_ago = Kind("mark_longest_ago", True, self._mark_longest_ago)
        self.remove = Kind("remove", True, self._remove)

    async def _append(self, connection: Connection, asked: Sequence[Append]) -> list[Any]:
        # In the order of their keys, as every node has it: two that append to the same ones cannot deadlock.
        order = sorted(range(len(asked)), key=lambda place: asked[place][:2])
        appends = [asked[place] for place in order]
        numbered = [
            (place, number, event)
            for place, append in enumerate(appends, 1)
            for number, event in enumerate(append.events, append.first)
        ]
        rows = await connection.fetch(
            self._sql.append,
            [append.address.kind for append in appends],
            [append.address.id for append in appends],
            [append.stream for append in appends],
            [append.head for append in appends],
            [append.first for append in appends],
            [len(append.events) for append in appends],
            [append.writer for append in appends],
            [append.ends for append in appends],
            [append.now for append in appends],
            [sum(map(len, append.events)) for append in appends],
            self._max_age,
            [place for place, _, _ in numbered],
            [number for _, number, _ in numbered],
            [event for _, _, event in numbered],
            writing=True,
        )
        answers: list[Any] = [None] * len(asked)
        for place, *answer in rows:
            answers[order[place - 1]] = Appended(*answer)
        return answers

    async def _read(self, connection: Connection, asked: Sequence[Read]) -> list[Any]:
        [(address, stream, since, after, max_bytes, max_events)] = asked
        rows = await connection.fetch(
            self._sql.read, *address, stream, since, after, max_bytes, max_events, writing=False
        )
        return [rows[0] if rows else None]

    async def _trim(self, connection: Connection, asked: Sequence[Trim]) -> list[Any]:
        rows = await connection.fetch(self._sql.trim, *asked[0], writing=True)
        return [rows[0][0] if rows else 0]

    async def _mark(self, connection: Connection, asked: Sequence[Sequence[tuple[Address, str]]]) -> list[Any]:
        streams = sorted(asked[0])
        rows = await connection.fetch(
            self._sql.mark,
            [address.kind for address, _ in streams],
            [address.id for address, _ in streams],
            [stream for _, stream in streams],
            writing=True,
        )
        return [[number for (number,) in rows]]

    async def _mark_all(self, connection: Connection, asked: Sequence[Address]) -> list[Any]:
        rows = await connection.fetch(self._sql.mark_all, *asked[0], writing=True)
        return [[number for (number,) in rows]]

    async def _mark_one(self, connection: Connection, asked: Sequence[tuple[int, float]]) -> list[Any]:
        rows = await connection.fetch(self._sql.mark_one, *asked[0], writing=True)
        return [[number for (number,) in rows]]

    async def _mark_old(self, connection: Connection, asked: Sequence[tuple[float, int]]) -> list[Any]:
        [(due, numbers)] = await connection.fetch(self._sql.mark_old, *asked[0], writing=True)
        return [(due, numbers)]

    async def _mark_longest_ago(self, connection: Connection, asked: Sequence[tuple[int, int]]) -> list[Any]:
        rows = await connection.fetch(self._sql.mark_longest_ago, *asked[0], writing=True)
        return [[number for (number,) in rows]]

    async def _remove(self, connection: Connection, asked: Sequence[list[int]]) -> list[Any]:
        [(count,)] = await connection.fetch(self._sql.remove, asked[0], writing=True)
        return [count]
