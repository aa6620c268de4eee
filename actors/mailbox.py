"""`Mailbox`: the bounded queue of an actor's envelopes."""

from __future__ import annotations

import asyncio
from collections import deque

from .answer import fail
from .envelope import Envelope

__all__ = ["Mailbox"]


class Mailbox(deque[Envelope]):
    """Envelopes in order of arrival, at most `limit` of them.

    A deque, not a wrapper around one: taking the next envelope is on every turn's path. Made only when a message
    has to wait and dropped when none does, because an empty deque is 600 bytes.
    """

    __slots__ = ("_patience", "limit")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self._patience = 0
        """Refusals before the next look for withdrawn envelopes: who knocks at a full mailbox must not make it work."""

    def put(self, envelope: Envelope) -> bool:
        """Queue `envelope`; False if there is no room, even after withdrawn envelopes have been answered and removed.

        They are looked for at the first refusal, and then once in `limit`.
        """
        if len(self) >= self.limit and not self._made_room():
            return False
        self.append(envelope)
        return True

    def _made_room(self) -> bool:
        if self._patience:
            self._patience -= 1
            return False
        withdrawn = [envelope for envelope in self if envelope.cancelled]
        if not withdrawn:
            self._patience = self.limit
            return False
        kept = [envelope for envelope in self if not envelope.cancelled]
        self.clear()
        self.extend(kept)
        for envelope in withdrawn:
            fail(envelope.reply, asyncio.CancelledError())
        return True
