"""`TenantTally`: what is counted of one tenant at this node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ...actors.session.messages import Call
from .outcomes import Outcome, outcome_of

__all__ = ["TALLY", "ObserveCall", "TenantTally", "count_refusal"]


class TenantTally:
    """Numbers of one tenant, or of all that share a label. They only grow, but for `streams`.

    What happens is counted in `sink`: the tally itself while the tenant has a label of its own, that of the others
    otherwise. So a tenant that loses its label leaves its numbers where they are, and what `other` says is what
    happened while it was among the others; both go on growing from there.
    """

    __slots__ = ("calls", "label", "refusals", "seconds", "sink", "streams", "timed", "weight")

    def __init__(self, label: str, sink: TenantTally | None = None) -> None:
        self.label = label
        self.sink = sink or self
        self.calls: defaultdict[Outcome, int] = defaultdict(int)
        self.refusals: defaultdict[int, int] = defaultdict(int)
        """By HTTP status."""
        self.seconds = 0.0
        self.timed = 0
        self.streams = 0
        """Event streams that are open now. It goes up and down here, whatever the label."""
        self.weight = 0.0
        """How much the tenant has asked for lately."""

    def __call__(self, call: Call, result: dict[str, Any] | None) -> None:
        """Count a call; see `Call.audit`."""
        exchange = call.exchange
        if exchange.elsewhere is not None or exchange.no_room is not None:
            # It has not run here: whoever runs it, or refuses it for want of room, counts it.
            return
        outcome = outcome_of(exchange.refusal, result)
        if call.over is not None and not call.over.ran:
            outcome = "refused"
        self.sink.calls[outcome] += 1
        if outcome == "refused" and exchange.refusal is not None:
            self.sink.refusals[exchange.refusal.status] += 1

    def took(self, seconds: float) -> None:
        """A call has been answered after so long."""
        sink = self.sink
        sink.seconds += seconds
        sink.timed += 1

    def refuse(self, status: int) -> None:
        """A request was refused that did not become a call."""
        self.sink.refusals[status] += 1

    @property
    def labelled(self) -> bool:
        """Whether it has a label of its own."""
        return self.sink is self


TALLY: ContextVar[TenantTally | None] = ContextVar("understudy_tally", default=None)
"""That of whoever sent the request that is being handled."""


ObserveCall = Callable[[float, TenantTally | None], None]
"""Told how many seconds a call took, from the arrival of its body, and whose it was."""


def count_refusal(status: int) -> None:
    """The request of this context is refused."""
    tally = TALLY.get()
    if tally is not None:
        tally.refuse(status)
