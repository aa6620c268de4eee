"""`ForwardedCalls`: serves requests that the edges of other nodes have taken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ...actors import Registry
from ...actors.clock import Clock
from ...actors.errors import Elsewhere
from ...stores import Address
from ..link import InboundCall
from ..telemetry.trace import TRACE
from ..wire.http import fold_headers
from ..wire.inbound import Inbound
from ..wire.routing import NoRoom
from .asked_in_vain import AskedInVain
from .counts import Counts
from .errands import Errands
from .forwarding import ELSEWHERE
from .holdings import Holdings
from .journey import Journey
from .ownership import Ownership
from .steps import Answered, Denial, Event, NoRoomHere, NotRunHere, Refuse, Run, Step

__all__ = ["ForwardedCalls"]

logger = logging.getLogger("understudy.cluster")

PATIENCE: Final = 5.0
"""Seconds that a request which was forwarded here may look for its actor before it goes back."""


class ForwardedCalls:
    """The owner's end of the link."""

    def __init__(
        self,
        ownership: Ownership,
        holdings: Holdings,
        errands: Errands,
        in_vain: AskedInVain,
        *,
        clock: Clock,
        counts: Counts,
    ) -> None:
        self._ownership = ownership
        self._holdings = holdings
        self._errands = errands
        self._in_vain = in_vain
        self._clock = clock
        self._counts = counts
        self.registry: Registry
        self.serve_here: Callable[[Inbound], Awaitable[None]]
        """The edge's entry for requests that come over the link."""

    async def serve(self, call: InboundCall) -> None:
        """Handle a request that another node's edge has forwarded."""
        head = call.head
        inbound = await _inbound(call)
        TRACE.set(head.trace)
        if head.address is None:
            await self._serve_opening(call, inbound)
            return
        address = Address(*head.address)
        self._counts.forwards_served += 1
        now = self._clock.monotonic
        if self.registry.live(address) is not None and self._ownership.may_run(now()):
            try:
                await self.serve_here(inbound)
                return
            except (Elsewhere, NoRoom):
                if _begun(call):
                    call.give_up(ELSEWHERE)
                    return
        journey = Journey(self._ownership, address, now(), remote=True, patience=PATIENCE)
        step: Step | None = journey.begin(now())
        while step is not None and not isinstance(step, Refuse):
            if call.over:
                # Its edge has given it up, and may have asked again: late, it would take the stream from that.
                return
            if isinstance(step, Run):
                step = journey.advance(await self._run(call, inbound, address), now())
                continue
            try:
                step = await self._errands.run(journey, step)
            except asyncio.CancelledError:
                # This node leaves: who forwarded the request is to know that it has not run.
                await self._turn_away(call, inbound, address, Refuse(Denial.ELSEWHERE))
                raise
        if isinstance(step, Refuse):
            await self._turn_away(call, inbound, address, step)

    async def _run(self, call: InboundCall, inbound: Inbound, address: Address) -> Event:
        try:
            await self.serve_here(inbound)
        except Elsewhere:
            if not _begun(call):
                return NotRunHere()
            call.give_up(ELSEWHERE)
        except NoRoom:
            return NoRoomHere()
        finally:
            if address not in self.registry:
                self._holdings.rest(address)
        return Answered()

    async def _serve_opening(self, call: InboundCall, inbound: Inbound) -> None:
        try:
            await self.serve_here(inbound)
        except (Elsewhere, NoRoom):
            call.refuse("full")

    async def _turn_away(self, call: InboundCall, inbound: Inbound, address: Address, refuse: Refuse) -> None:
        if refuse.denial is Denial.UNKNOWN:
            try:
                await self._in_vain.during(address, self.serve_here(inbound))
                return
            except (Elsewhere, NoRoom):
                logger.debug("%s has a record all of a sudden: who forwarded looks again", address)
        if refuse.denial is Denial.BUSY:
            self._holdings.moved(address)
        entry = refuse.entry
        data = {"owner": entry.incarnation, "epoch": entry.epoch, "revision": entry.revision} if entry else {}
        call.refuse("full" if refuse.denial is Denial.BUSY else ELSEWHERE, data)


def _begun(call: InboundCall) -> bool:
    """Whether the head of its stream has been sent, while it waited for its turn: only its edge can go on with that."""
    return call.channel.answered or call.channel.held


async def _inbound(call: InboundCall) -> Inbound:
    head = call.head
    request = await call.receive()
    return Inbound(
        scope=head.scope(),
        headers=fold_headers(head.headers)[0],
        tenant=head.tenant,
        receive=call.receive,
        send=call.send,
        body=request.get("body", b""),
        remote=True,
        purpose=head.purpose,
        again=head.again,
    )
