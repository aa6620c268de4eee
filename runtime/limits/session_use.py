"""`SessionUse`: what one session uses, at the node that has it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from ...actors.session import TenantContext
from ...stores import Address
from .local_rate import LocalRate

if TYPE_CHECKING:
    from .allowance import Allowance

__all__ = ["MAX_SESSIONS", "SessionUse", "SessionUses"]

MAX_SESSIONS: Final = 100_000
"""Sessions of which it is known what they used; beyond it those go that use nothing now, and were not used of late."""
_LOOK_AT: Final = 64
_Key = tuple[Address, str, str]


class SessionUse:
    """Counted by this node alone. A session that moves to another node, or is forgotten, begins anew."""

    __slots__ = ("allowance", "calls", "in_flight", "reads", "recent", "results", "streams")

    def __init__(self) -> None:
        self.calls = LocalRate()
        self.reads = LocalRate()
        self.results = LocalRate()
        self.in_flight = 0
        self.recent = False
        """It was used since it was last looked at, for one to forget."""
        self.allowance: Allowance | None = None
        """Of its calls."""
        self.streams: dict[str, OpenStream] = {}
        """By the name of the stream: of two connections to one, the newer takes over from the older."""

    def resting(self, now: float) -> bool:
        """Whether nothing is lost if it is made anew when it is needed."""
        if self.in_flight or self.streams:
            return False
        return self.calls.resting(now) and self.reads.resting(now) and self.results.resting(now)


class OpenStream:
    """Connections that share a permit."""

    __slots__ = ("connections", "counted", "opening")

    def __init__(self) -> None:
        self.connections = 0
        self.counted = False
        """Whether it has its permit."""
        self.opening = asyncio.Lock()


class SessionUses:
    """Those of all sessions of a node. For a principal that the session does not answer to it is another one, as it
    would be if there were none: what its owner uses must not show.
    """

    def __init__(self, most: int = MAX_SESSIONS) -> None:
        self._most = most
        self.uses: OrderedDict[_Key, SessionUse] = OrderedDict()
        """By session, tenant and principal; those first that are to be looked at next, for one to forget."""

    def of(self, session: Address, tenant: TenantContext) -> SessionUse:
        """What is known of a session, as `tenant` uses it."""
        key = (session, tenant.tenant, tenant.principal)
        use = self.uses.get(key)
        if use is not None:
            use.recent = True
            return use
        use = self.uses[key] = SessionUse()
        if len(self.uses) > self._most:
            self._make_room()
        return use

    def _make_room(self) -> None:
        """What is in flight is bounded by mailboxes and connections, and is never forgotten. Of the others one goes
        that was not used since it was last looked at here, or else the first: to keep all in the order of their use
        would cost each call something.
        """
        first: _Key | None = None
        for _ in range(min(_LOOK_AT, len(self.uses) - 1)):
            key, use = next(iter(self.uses.items()))
            if not (use.in_flight or use.streams):
                if not use.recent:
                    self._forget(key)
                    return
                first = first or key
            use.recent = False
            self.uses.move_to_end(key)
        if first is not None:
            self._forget(first)

    def forget_resting(self, now: float) -> None:
        """Drop those that nothing is known of any more, of some: the next time, of the next."""
        for _ in range(min(_LOOK_AT, len(self.uses))):
            key, use = next(iter(self.uses.items()))
            if use.resting(now):
                self._forget(key)
            else:
                self.uses.move_to_end(key)

    def _forget(self, key: _Key) -> None:
        # It refers back: nothing is left to the garbage collector.
        self.uses.pop(key).allowance = None

    def __len__(self) -> int:
        return len(self.uses)
