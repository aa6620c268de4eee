"""`SessionStreams`: the streams of one session that are in memory, and the bound over all of them."""

from __future__ import annotations

from collections.abc import Callable

from ...actors.session.exchange import Exchange
from ...stores import Address
from .stream_room import StreamRoom
from .transcript import Transcript

__all__ = ["SessionStreams"]


class SessionStreams:
    """A `Household`.

    At the bound streams go that nobody reads or writes. Where there are none, a tool that writes waits for its reader;
    what has waited long enough goes ahead, and then the oldest events of the largest stream go: a reader that has not
    taken them loses its connection.
    """

    __slots__ = (
        "_make_room",
        "_room",
        "address",
        "bytes",
        "kept",
        "requests",
        "standalone",
        "standing",
        "transcripts",
        "trimming",
    )

    def __init__(self, address: Address, room: StreamRoom, make_room: Callable[[SessionStreams], bool]) -> None:
        """`room`: the node's. `make_room`: drops a stream that is left; whether there was one."""
        self.address = address
        self.standalone: Exchange | None = None
        self.requests: dict[str, Exchange] = {}
        self.standing: Transcript | None = None
        """Of the standalone stream, if it is logged."""
        self.transcripts: dict[str, Transcript] | None = None
        """Of those streams of requests that are logged, by name."""
        self.kept = 0
        """How many of them are being left."""
        self.bytes = 0
        self.trimming = False
        self._room = room
        self._make_room = make_room

    def holds(self, exchange: Exchange) -> bool:
        return exchange is self.standalone or self.requests.get(exchange.id) is exchange

    def transcript(self, exchange: Exchange) -> Transcript | None:
        """How far this stream is logged, if it is."""
        if exchange is self.standalone:
            return self.standing
        return self.transcripts.get(exchange.id) if self.transcripts is not None else None

    def leave_standing(self) -> tuple[Exchange | None, Transcript | None]:
        """Have no standalone stream any more; that which was."""
        left = self.standalone, self.standing
        self.standalone = self.standing = None
        return left

    @property
    def empty(self) -> bool:
        return self.standalone is None and not self.requests

    @property
    def all(self) -> list[Exchange]:
        """The standalone stream last."""
        streams = list(self.requests.values())
        return [*streams, self.standalone] if self.standalone is not None else streams

    # `Household`

    def took(self, size: int) -> None:
        """See `Household.took`."""
        self._room.took(self.bytes, self.bytes + size)
        self.bytes += size
        if size > 0 and self.bytes > self._room.share and not self.trimming:
            self.trimming = True
            try:
                self._fit()
            finally:
                self.trimming = False

    @property
    def crowded(self) -> bool:
        """See `Household.crowded`."""
        return self.bytes > self._room.share * 3 // 4 and not self.kept

    def _fit(self) -> None:
        while self.bytes > self._room.share and self._make_room(self):
            pass
        while self.bytes > self._room.share:
            largest = max(self.all, key=lambda exchange: exchange.size)
            if largest.last <= largest.oldest:
                # One event each, and no-silent-loss: each may be an outcome.
                return
            largest.forget(1)
