"""An event store for the SDK, as its documentation and examples have it: in memory, in order, found by event id."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp_types import JSONRPCMessage

__all__ = ["InMemoryEventStore"]

MAX_EVENTS = 4096
"""Of one stream, as in understudy; the SDK's example keeps 100."""
MAX_STREAMS = 1024
"""The SDK's example has no bound, and would be slowed down by what it never lets go of."""


class _Stored(NamedTuple):
    id: EventId
    message: JSONRPCMessage | None
    """None for a priming event."""


class InMemoryEventStore(EventStore):
    """Stores what the SDK hands it, and does nothing else: no copy, no JSON, no lock.

    The id of an event says where it is, so that none is ever looked for.
    """

    def __init__(self) -> None:
        self._streams: OrderedDict[StreamId, tuple[int, list[_Stored]]] = OrderedDict()

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        kept = self._streams.get(stream_id)
        if kept is None:
            kept = self._streams[stream_id] = (1, [])
            if len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
        first, events = kept
        event_id = f"{stream_id}-{first + len(events)}"
        events.append(_Stored(event_id, message))
        if len(events) > 2 * MAX_EVENTS:
            self._streams[stream_id] = (first + MAX_EVENTS, events[MAX_EVENTS:])
        return event_id

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        stream_id, _, number = last_event_id.rpartition("-")
        kept = self._streams.get(stream_id)
        if kept is None or not number.isdecimal():
            return None
        first, events = kept
        for stored in events[max(int(number) + 1 - first, 0) :]:
            if stored.message is not None:
                await send_callback(EventMessage(stored.message, stored.id))
        return stream_id
