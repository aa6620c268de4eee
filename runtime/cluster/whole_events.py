"""`WholeEvents`: a stream of server-sent events that comes in pieces, passed on event by event."""

from __future__ import annotations

from typing import Final

__all__ = ["HOLD", "WholeEvents"]

END: Final = b"\n\n"
HOLD: Final = 64 * 1024
"""Bytes of an incomplete event that wait for the rest of it. A larger one goes out in pieces."""
_ID: Final = b"id: "
_LINE_ID: Final = b"\nid: "


class WholeEvents:
    """Keeps the beginning of an event back until the rest of it is there, and notes the id of the last whole one.

    So that a stream whose writer dies in the middle of an event can go on with another writer, as if that event had
    never begun. Of an event larger than `HOLD` a part may be out by then: see `partial`.

    Reads events as `runtime.sse` writes them: fields end with a newline, events with two, and data holds none.
    """

    __slots__ = ("_held", "_open_id", "last_id", "partial")

    def __init__(self) -> None:
        self.last_id: bytes | None = None
        """Of the last event with an id that has gone out whole."""
        self.partial = False
        """A part of an event has gone out, and its rest has not."""
        self._held = b""
        self._open_id: bytes | None = None
        """The id of the event of which a part has gone out."""

    def pass_on(self, piece: bytes) -> bytes:
        """What of `piece`, and of what was kept back before it, is to go out now."""
        stream = self._held + piece if self._held else piece
        end = len(stream) if stream.endswith(END) else stream.rfind(END) + len(END)
        if end < len(END):
            return self._begun(stream)
        whole, self._held = (stream, b"") if end == len(stream) else (stream[:end], stream[end:])
        self._note(whole)
        return whole + self._begun(self._held) if len(self._held) > HOLD else whole

    def _begun(self, part: bytes) -> bytes:
        """`part` is of an event that is not whole: what of it is to go out all the same."""
        self._held = part
        if len(part) <= HOLD and not self.partial:
            return b""
        if not self.partial:
            self.partial = True
            self._open_id = _id_at(part, len(_ID)) if part.startswith(_ID) else None
        # A newline may be the first half of the event's end.
        self._held = part[len(part.rstrip(b"\n")) :]
        return part[: len(part) - len(self._held)]

    def _note(self, whole: bytes) -> None:
        found = whole.rfind(_LINE_ID)
        if found >= 0:
            self.last_id = _id_at(whole, found + len(_LINE_ID))
        elif self.partial:
            # What it begins with is no field, but somewhere in the data.
            self.last_id = self._open_id or self.last_id
        elif whole.startswith(_ID):
            self.last_id = _id_at(whole, len(_ID))
        self.partial = False
        self._open_id = None

    def rest(self) -> bytes:
        """What is kept back: nothing will follow."""
        held, self._held = self._held, b""
        return held

    def break_off(self) -> None:
        """The writer is gone: what is kept back of its last event is dropped."""
        self._held = b""

    def void(self) -> bytes:
        """What has to go out for the part of an event that is out to be passed over by its reader.

        The last value of a field counts (WHATWG HTML, Server-sent events, 9.2.6), so that it becomes an event of a type
        that nobody knows, with the id of the event before it.
        """
        id = b"id: " + (self.last_id or b"") + b"\n" if self.last_id or self._open_id else b""
        self.partial = False
        self._open_id = None
        return b"\n" + id + b"event: broken-off\n\n"


def _id_at(events: bytes, start: int) -> bytes | None:
    end = events.find(b"\n", start)
    return events[start:end] if end >= 0 else None
