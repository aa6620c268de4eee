"""`Watch`: reads every byte that arrives for a client, and knows the marks of everybody else's secrets."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

__all__ = ["Watch", "Watched"]

_MARK = re.compile(rb"MARK[0-9a-f]{16}")
LONGEST = 20
"""Bytes of a mark."""


class Watch:
    """What all clients have got: how many of their own marks, and every mark that was not theirs."""

    def __init__(self) -> None:
        self.bytes = 0
        self.own: Counter[str] = Counter()
        """By the kind of the answer that they came in."""
        self.faults: list[str] = []

    def look(self, data: bytes, mark: str, where: str) -> None:
        """`data` has arrived for the owner of `mark`."""
        for found in _MARK.findall(data):
            if found != mark.encode():
                at = data.index(found)
                self.faults.append(f"{where} of {mark} got {found.decode()}: {data[max(0, at - 150) : at + 50]!r}")


class Watched(asyncio.StreamReader):
    """A stream whose bytes are looked at as they come off the socket, those of an answer that breaks off too."""

    def __init__(self, watch: Watch, limit: int) -> None:
        super().__init__(limit)
        self.mark = ""
        """Whose answer is awaited."""
        self.where = ""
        self._watch = watch
        self._tail = b""

    def asks(self, mark: str, where: str) -> None:
        """What comes from here on is for the owner of `mark`."""
        self.mark, self.where, self._tail = mark, where, b""

    def feed_data(self, data: bytes) -> None:
        """See `asyncio.StreamReader`."""
        self._watch.bytes += len(data)
        self._watch.look(self._tail + data, self.mark, self.where)
        # A mark that lies on the edge of two pieces is looked at with the second; one that lies in the first is not.
        tail = (self._tail + data)[-(LONGEST - 1) :]
        self._tail = tail
        super().feed_data(data)

    @classmethod
    async def connect(cls, watch: Watch, port: int, limit: int) -> tuple[Watched, asyncio.StreamWriter]:
        """As `asyncio.open_connection`.

        Raises:
            OSError: Nobody is there.
        """
        loop = asyncio.get_running_loop()
        reader = cls(watch, limit)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.create_connection(lambda: protocol, "127.0.0.1", port)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
