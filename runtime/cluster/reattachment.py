"""`Reattachment`: goes on with a client's stream whose owner has died, hangs, or has let go of the session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from ...actors.clock import Clock
from ...actors.session.servers import Servers
from ...stores import Address
from ..edge.repeats import FIRST_TRY
from ..telemetry.metrics import Latency
from ..wire.inbound import Inbound
from ..wire.refusals import Refused
from .client_watch import ClientWatch
from .counts import Counts
from .denials import deny
from .errands import Errands
from .forwarding import Forwarding
from .journey import Journey
from .keep_alive import KeepAlive
from .response import Response
from .steps import (
    Answered,
    Denial,
    Event,
    Forward,
    NotRunHere,
    NotRunThere,
    PathBroken,
    Pause,
    Refuse,
    Run,
    Step,
    Unreachable,
)
from .stream_requests import first_try, resumption

__all__ = ["Reattachment", "RunHere"]

logger = logging.getLogger("understudy.cluster")

RunHere = Callable[[Inbound, Address, Response], Awaitable[Event]]
"""Serves a request at this node, and tells what came of it as a `Run` step wants to hear it."""

LASTED: Final = 1.0
"""Seconds after which a stream that breaks off again has all the time to be found again. So one that every owner only
opens, and breaks off, comes to an end."""
SEARCHES_AT_ONCE: Final = 64
"""A node that dies may have been the owner of all the streams that are held here."""

_Found = Forward | Run | Refuse


class Reattachment:
    """What is asked of the next owner is the rest of the stream: a GET with the id of the last event that went to the
    client whole. That is a read, so it may be asked as often as need be, whatever the request was.

    The request itself is sent again only where it has not run, or may run twice and has shown nothing of itself: what
    it has shown would come again.
    """

    def __init__(
        self,
        forwarding: Forwarding,
        errands: Errands,
        *,
        servers: Servers,
        clock: Clock,
        keep_alive: KeepAlive,
        client_watch: ClientWatch,
        counts: Counts,
        failover: Latency,
    ) -> None:
        self._forwarding = forwarding
        self._errands = errands
        self._servers = servers
        self._clock = clock
        self._keep_alive = keep_alive
        self._client_watch = client_watch
        self._counts = counts
        self._failover = failover
        self._searches = asyncio.Semaphore(SEARCHES_AT_ONCE)

    @staticmethod
    def leads(response: Response, event: Event) -> bool:
        """Whether it is for `go_on` to say what follows from `event`."""
        if isinstance(event, Answered):
            return False
        return response.stream or (isinstance(event, PathBroken) and event.in_doubt)

    async def go_on(
        self, inbound: Inbound, response: Response, journey: Journey, event: Event, run: RunHere
    ) -> Step | None:
        """Lead the stream of `response`, or what may become one, to its end. `event`: why it does not go on, after a
        step of `journey`.

        None when it has ended, or the client has left; a `Refuse` if it is for the caller to end it, because the
        request has not run.

        Raises:
            Interrupted: The client has part of an event, of which the rest cannot be had in this response. It resumes.
            Refused: The request would only fail again.
        """
        going = _Stream(self, inbound, response, journey)
        try:
            return await going.lead(event, run)
        finally:
            self._keep_alive.leave(response)

    # What `_Stream` asks for

    async def search(self, stream: _Stream, step: Step) -> _Found | None:
        """Do `step`, and those after it, up to one that gives the request to somebody; None if the client leaves."""
        found: _Found | None = None

        async def searching() -> None:
            nonlocal found, step
            while not isinstance(step, Forward | Run | Refuse):
                if isinstance(step, Pause):
                    next_step = await self._errands.run(stream.journey, step)
                else:
                    async with self._searches:
                        next_step = await self._errands.run(stream.journey, step)
                assert next_step is not None, "only an answer ends a journey"
                step = next_step
            found = step

        self._keep_alive.hold(stream.response)
        if isinstance(step, Forward | Run | Refuse):
            return step
        left = await self._client_watch.during(stream.inbound.receive, searching(), at_once=True)
        return None if left else found

    async def attempt(self, stream: _Stream, step: Forward | Run, run: RunHere) -> Event:
        """Give what is asked to whom `step` says. A refusal to go on with the stream is an `Answered`."""
        request, response, journey = stream.request, stream.response, stream.journey
        if isinstance(step, Forward):
            return await self._forwarding.forward(
                request, journey.address, step.to, response, hops=journey.forwards, again=journey.maybe_ran
            )
        # Comments are for whoever writes what they stand between.
        self._keep_alive.leave(response)
        try:
            return await run(request, journey.address, response)
        except Refused as refused:
            if not stream.resuming:
                raise
            response.refused = refused.refusal.status
            return Answered()

    def attached(self, stream: _Stream) -> None:
        """The stream goes on."""
        seconds = self._clock.monotonic() - stream.broke
        self._counts.streams_reattached += 1
        if stream.node_died:
            stream.node_died = False
            self._counts.failovers += 1
            self._failover.observe(seconds)
        logger.debug("a stream of %s goes on after %.3f s at %s", stream.journey.address, seconds, stream.step)

    def now(self) -> float:
        return self._clock.monotonic()

    async def in_doubt(self, stream: _Stream) -> None:
        await deny(stream.inbound, stream.response, Denial.IN_DOUBT, self._servers)


class _Stream:
    """One stream on its way to its next owner."""

    __slots__ = (
        "_anew",
        "_attached",
        "_by",
        "broke",
        "inbound",
        "journey",
        "node_died",
        "request",
        "response",
        "resuming",
        "step",
    )

    def __init__(self, by: Reattachment, inbound: Inbound, response: Response, journey: Journey) -> None:
        self._by = by
        self.inbound = inbound
        self.response = response
        self.journey = journey
        self.request = inbound
        """What is sent: the client's own request, the resumption of its stream, or a `FIRST_TRY`."""
        self.resuming = inbound.scope["method"] == "GET"
        self.broke = by.now()
        """Since when its owner is looked for."""
        self.node_died = False
        self.step: Forward | Run | None = None
        """Who was given the request last."""
        self._anew = False
        """A standalone stream that could not be resumed has been opened anew."""
        self._attached = False
        """The last attempt has got the stream."""

    async def lead(self, event: Event, run: RunHere) -> Step | None:
        by, journey, response = self._by, self.journey, self.response
        journey.renew(self.broke)
        while True:
            step = journey.advance(self._prepare(event), by.now())
            assert step is not None
            while True:
                found = await by.search(self, step)
                if found is None:
                    response.ended = True
                    return None
                if isinstance(found, Refuse):
                    return await self._end(found)
                self.step, began = found, by.now()
                try:
                    event = await by.attempt(self, found, run)
                except Refused:
                    if not self.resuming or self.inbound.scope["method"] == "GET":
                        raise
                    await by.in_doubt(self)
                    return None
                if not isinstance(event, Answered):
                    break
                if not response.refused:
                    return None
                if response.refused >= 500 or response.refused == 429:
                    # It has the session, but neither the room nor the store to go on just now.
                    event = Unreachable()
                    break
                if not await self._without_resuming():
                    return None
                step = journey.resume(by.now())
            if by.now() - began > LASTED:
                self.broke = by.now()
                self.node_died = False
                journey.renew(self.broke)

    def _prepare(self, event: Event) -> Event:
        """Say what the next attempt asks for, after `event`; what `event` means for the journey then."""
        response = self.response
        response.next_attempt()
        last_id = response.last_id
        attached, self._attached = self._attached, False
        if attached and self.request.purpose == FIRST_TRY and isinstance(event, NotRunThere | NotRunHere):
            # The first try waited for its turn when the session left: it has not run, nor will it.
            self.resuming = False
            self.request = self.inbound
        self.node_died |= isinstance(event, PathBroken)
        if not self.resuming and isinstance(event, PathBroken) and event.maybe_ran:
            if last_id is not None:
                self.resuming = _shown(last_id) or not event.repeatable
            elif event.in_doubt and self._may_be_in_flight(event):
                self.resuming = True
                self.request = first_try(self.inbound)
        if not self.resuming:
            response.again()
            return event
        if last_id is not None:
            self.request = resumption(self.inbound, last_id)
        response.resume(self._goes_on, whole=self.request.purpose == FIRST_TRY)
        return replace(event, repeatable=True) if isinstance(event, PathBroken) else event

    def _goes_on(self) -> None:
        self._attached = True
        self._by.attached(self)

    def _may_be_in_flight(self, broken: PathBroken) -> bool:
        """Whether the owner may live, and the era is one in which it can tell calls apart."""
        return b"mcp-session-id" in self.inbound.headers and not self.journey.proves_death(broken, self._by.now())

    async def _without_resuming(self) -> bool:
        """The owner knows nothing of the stream: prepare to ask for what does without it, or end it; whether to ask."""
        response, inbound = self.response, self.inbound
        if inbound.scope["method"] != "GET":
            # It may not run twice, or has shown something, which it would say again.
            await self._by.in_doubt(self)
            return False
        if b"last-event-id" in inbound.headers or self._anew or response.refused == 404:
            # The client asks by itself, and is told.
            await response.finish()
            return False
        self._anew = True
        self.request = inbound
        response.next_attempt()
        response.again()
        response.resume(self._goes_on)
        return True

    async def _end(self, refuse: Refuse) -> Step | None:
        if not self.resuming:
            return refuse
        if self.inbound.scope["method"] == "GET":
            await self.response.finish()
        else:
            await self._by.in_doubt(self)
        return None


def _shown(last_id: bytes | None) -> bool:
    """Whether more than the priming event has come."""
    return last_id is not None and not last_id.endswith(b"-0")
