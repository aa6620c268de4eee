"""`Mailbox`: the bounded queue of an actor's envelopes."""

from __future__ import annotations

import asyncio
from collections import deque

from .envelope import Envelope

__all__ = ["Mailbox"]


class Mailbox(deque[Envelope]):
    """Envelopes in order of arrival, at most `limit` of them.

    A deque, not a wrapper around one: taking the next envelope is on every turn's path. Made only when a message
    has to wait and dropped when none does, because an empty deque is 600 bytes.
    """

    __slots__ = ("limit",)

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def put(self, envelope: Envelope) -> bool:
        """Queue `envelope`; False if there is no room even after the withdrawn ones have been answered."""
        if len(self) >= self.limit and not self._forget_cancelled():
            return False
        self.append(envelope)
        return True

    def _forget_cancelled(self) -> bool:
        cancelled = [envelope for envelope in self if envelope.cancelled]
        if not cancelled:
            return False
        kept = [envelope for envelope in self if not envelope.cancelled]
        self.clear()
        self.extend(kept)
        for envelope in cancelled:
            if envelope.reply is not None:
                envelope.reply.fail(asyncio.CancelledError())
        return True
