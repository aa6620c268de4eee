"""`Books`: what a client got over all the connections on which it read one stream, and what is wrong with it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from chaos.sse import ServerSentEvent

__all__ = ["Books", "Connection"]


@dataclass(slots=True)
class Books:
    """One stream of a request. Each event is number n of its stream, each number n is the nth that the tool sent."""

    stream: str = ""
    ids: list[str] = field(default_factory=list)
    """In the order in which they came."""
    faults: list[str] = field(default_factory=list)
    log_may_lack: bool = False
    """The node that wrote the stream went on without the log for a while. If it is given up, the end that others give
    the stream may have a number that the client has seen."""
    outcome: dict[str, Any] | None = None
    _got: dict[int, tuple[int, bytes]] = field(default_factory=dict[int, tuple[int, bytes]])
    """By the event's number: what it said (0: the end), and its digest."""
    connections: int = 0

    @property
    def latest(self) -> int:
        """The number of the newest event of any connection."""
        return max(self._got, default=0)

    @property
    def last_id(self) -> str:
        return f"{self.stream}-{self.latest}"

    @property
    def said(self) -> int:
        """The highest number of the tool's."""
        return max((number for number, _ in self._got.values()), default=0)

    def connection(self, after: int = 0, *, again: bool = False, node: str = "") -> Connection:
        """A connection that begins after an event. `again`: what it brings may have come before."""
        self.connections += 1
        return Connection(self, after, again, f"connection {self.connections} ({node}, after {after})")

    def is_known(self, number: int) -> bool:
        return number in self._got

    def note(self, number: int, said: int, digest: bytes, *, again: bool, where: str) -> None:
        known = self._got.get(number)
        if known is None:
            self._got[number] = (said, digest)
        elif known != (said, digest):
            self.faults.append(f"{where}: event {number} was {known[0]} and is {said} now")
        elif not again:
            self.faults.append(f"{where}: event {number} ({said}) came a second time")


@dataclass(slots=True)
class Connection:
    """What came on one connection."""

    books: Books
    after: int
    again: bool
    where: str
    ended: bool = False
    """The outcome has come on it."""

    def take(self, event: ServerSentEvent) -> bool:
        """Note an event. True if it is the outcome."""
        books = self.books
        if event.id is None:
            if event.data:
                self._fault(f"an event without an id: {event.data[:200]!r}")
            return False
        stream, _, digits = event.id.rpartition("-")
        number = int(digits)
        if not books.stream:
            books.stream = stream
        elif stream != books.stream:
            self._fault(f"event {event.id} is of another stream than {books.stream}")
            return False
        books.ids.append(event.id)
        if event.kind != "message" or not event.data:
            if number != self.after:
                self._fault(f"an empty event is {number}, where {self.after} was the last")
            return False
        if self.ended:
            self._fault(f"event {number} came after the end: {event.data[:200]!r}")
        message = json.loads(event.data)
        if number == self.after and self._is_end_again(message):
            self.ended = True
            books.outcome = books.outcome or message
            return True
        if number != self.after + 1:
            self._fault(f"event {number} follows {self.after}")
        self.after = number
        return self._read(number, message, hashlib.sha256(event.data).digest())

    def _is_end_again(self, message: dict[str, Any]) -> bool:
        """Who comes back after the error that ended a broken stream gets it once more: it may take that number for an
        event of the node that died, which the log never had."""
        outcome = self.books.outcome
        return "error" in message and (message == outcome or (outcome is None and self.books.log_may_lack))

    def _read(self, number: int, message: dict[str, Any], digest: bytes) -> bool:
        said = 0
        if message.get("method") == "notifications/progress":
            said = int(message["params"]["progress"])
            if said != number:
                self._fault(f"event {number} says {said}")
        elif "method" in message:
            self._fault(f"event {number} is {message}")
        else:
            self.ended = True
            if self.books.outcome is None:
                self.books.outcome = message
        self.books.note(number, said, digest, again=self.again, where=self.where)
        return self.ended

    def _fault(self, what: str) -> None:
        self.books.faults.append(f"{self.where}: {what}")
