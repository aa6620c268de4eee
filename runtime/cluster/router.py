"""`ClusterRouter`: leads each request to its actor, here or at another node. Binds `Journey` to the world."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

from ...actors import Registry
from ...actors.clock import Clock
from ...actors.errors import Elsewhere
from ...actors.session.servers import Servers
from ...stores import Address, SessionStore
from ..edge.sse import READER_PATIENCE
from ..telemetry.metrics import Latency
from ..wire.inbound import Inbound
from ..wire.refusals import Refused
from ..wire.routing import NoRoom
from .asked_in_vain import AskedInVain
from .client_watch import ClientWatch
from .counts import Counts
from .denials import REFUSALS, deny, turn_down
from .directory import Directory
from .errands import Errands
from .forwarded_calls import ForwardedCalls
from .forwarding import Forwarding, ForwardingLink
from .holdings import Holdings
from .interruptible import Interruptible
from .journey import Journey
from .keep_alive import KeepAlive
from .ownership import Ownership
from .reattachment import Reattachment
from .response import Interrupted, Response
from .steps import Answered, Denial, Event, Forward, NoRoomHere, NotRunHere, PathBroken, Refuse, Run, Step

__all__ = ["ClusterRouter", "ForwardingLink"]

logger = logging.getLogger("understudy.cluster")

RunHere = Callable[[Inbound], Awaitable[None]]


class ClusterRouter:
    """The edge's `Router`, the registry's `Gate`, and what the link serves."""

    def __init__(
        self,
        ownership: Ownership,
        directory: Directory,
        holdings: Holdings,
        *,
        store: SessionStore,
        servers: Servers,
        clock: Clock,
        keep_alive: KeepAlive,
        client_watch: ClientWatch,
        counts: Counts,
        failover: Latency,
        patience: float,
    ) -> None:
        """`patience`: seconds that a request may look for its actor; longer than a lease."""
        self._ownership = ownership
        self._holdings = holdings
        self._servers = servers
        self._clock = clock
        self._keep_alive = keep_alive
        self._counts = counts
        self._failover = failover
        self._patience = patience
        self._listeners = Interruptible()
        self._in_vain = AskedInVain()
        self._errands = Errands(ownership, directory, store=store, clock=clock, counts=counts)
        self._forwarding = Forwarding(servers=servers, keep_alive=keep_alive, client_watch=client_watch, counts=counts)
        self._reattachment = Reattachment(
            self._forwarding,
            self._errands,
            servers=servers,
            clock=clock,
            keep_alive=keep_alive,
            client_watch=client_watch,
            counts=counts,
            failover=failover,
        )
        self._served = ForwardedCalls(ownership, holdings, self._errands, self._in_vain, clock=clock, counts=counts)
        self.serve = self._served.serve
        """What the link does with the calls of other nodes."""
        self._registry: Registry

    # What exists only once the node is about to join

    @property
    def registry(self) -> Registry:
        return self._registry

    @registry.setter
    def registry(self, registry: Registry) -> None:
        self._registry = self._served.registry = registry

    @property
    def link(self) -> ForwardingLink:
        return self._forwarding.link

    @link.setter
    def link(self, link: ForwardingLink) -> None:
        self._forwarding.link = link

    @property
    def strike(self) -> Callable[[str], Awaitable[None]]:
        """`Membership.strike`."""
        return self._errands.strike

    @strike.setter
    def strike(self, strike: Callable[[str], Awaitable[None]]) -> None:
        self._errands.strike = strike

    @property
    def serve_here(self) -> RunHere:
        """The edge's entry for requests that come over the link."""
        return self._served.serve_here

    @serve_here.setter
    def serve_here(self, serve_here: RunHere) -> None:
        self._served.serve_here = serve_here

    # `Gate`

    def may_run(self) -> bool:
        """See `Gate.may_run`."""
        return self._ownership.may_run(self._clock.monotonic())

    def may_claim(self, address: Address) -> bool:
        """See `Gate.may_claim`. An address without a record may be asked for by anybody: it does not exist."""
        ownership = self._ownership
        return (ownership.holds(address) and not ownership.handing_off(address)) or address in self._in_vain

    def claimed(self, address: Address, epoch: int) -> Awaitable[bool] | None:
        """See `Gate.claimed`."""
        return self._holdings.claimed(address, epoch)

    # `Router`

    async def route(self, inbound: Inbound, address: Address | None, run: RunHere) -> None:
        """See `Router.route`."""
        response = Response(inbound.send)
        inbound.send = response.send
        if inbound.scope["method"] == "GET":
            await self._listeners.during(self._route(inbound, address, response, run))
            await response.finish()
        else:
            await self._route(inbound, address, response, run)

    def end_listening(self) -> None:
        """End the streams of clients that only listen: this node is about to leave, and they would never end."""
        self._listeners.interrupt()

    async def _route(self, inbound: Inbound, address: Address | None, response: Response, run: RunHere) -> None:
        try:
            try:
                await self._lead(inbound, address, response, run)
            except (Refused, Elsewhere) as error:
                if not response.started:
                    raise
                # A node that let go of the request has opened the stream: the answer is its last message.
                refusal = error.refusal if isinstance(error, Refused) else REFUSALS[Denial.UNAVAILABLE]
                await turn_down(inbound, response, refusal, self._servers)
        except Interrupted as interrupted:
            response.ended = True
            # Of a stream nothing is lost: the client resumes.
            level = logging.INFO if response.stream else logging.WARNING
            logger.log(level, "%s: its connection is closed", interrupted)
        except TimeoutError:
            if not response.started:
                raise
            response.ended = True
            logger.info("a client took nothing for %g s: its connection is given up", READER_PATIENCE)

    async def _lead(self, inbound: Inbound, address: Address | None, response: Response, run: RunHere) -> None:
        if address is None:
            await self._unaddressed(inbound, response, run)
            return
        if self._registry.live(address) is not None and self.may_run():
            try:
                await run(inbound)
                return
            except (Elsewhere, NoRoom):
                response.next_attempt()
        await self._travel(inbound, address, response, run)

    async def _unaddressed(self, inbound: Inbound, response: Response, run: RunHere) -> None:
        """What names no session: served here, or the opening of one, which goes where there is room."""
        deadline = self._clock.monotonic() + self._patience
        while True:
            try:
                await run(inbound)
                return
            except NoRoom as full:
                if full.address is not None:
                    response.next_attempt()
                    await self._travel(inbound, full.address, response, run)
                elif not await self._place(inbound, response):
                    raise
                return
            except Elsewhere as elsewhere:
                response.next_attempt()
                if elsewhere.address in self._registry or self.may_run():
                    # The session was named in the body only.
                    await self._travel(inbound, elsewhere.address, response, run)
                    return
            if self._clock.monotonic() >= deadline:
                await deny(inbound, response, Denial.UNAVAILABLE, self._servers)
                return
            await self._clock.sleep(0.05)

    async def _place(self, inbound: Inbound, response: Response) -> bool:
        """Have another node open the session; False if none takes it."""
        tried: frozenset[str] = frozenset()
        while (peer := self._ownership.peers.roomiest(self._clock.monotonic(), besides=tried)) is not None:
            tried |= {peer.incarnation}
            self._ownership.peers.assign(peer)
            try:
                event = await self._forwarding.forward(
                    inbound, None, peer.incarnation, response, purpose=inbound.purpose or "open"
                )
            finally:
                self._keep_alive.leave(response)
            if isinstance(event, Answered):
                self._counts.placed += 1
                return True
            if isinstance(event, PathBroken) and event.in_doubt:
                await deny(inbound, response, Denial.IN_DOUBT, self._servers)
                return True
        return False

    async def _travel(self, inbound: Inbound, address: Address, response: Response, run: RunHere) -> None:
        now = self._clock.monotonic
        journey = Journey(self._ownership, address, now(), patience=self._patience)
        run_here = partial(self._run, run)
        broke: float | None = None
        step: Step | None
        if response.stream:
            step = await self._reattachment.go_on(inbound, response, journey, NotRunHere(), run_here)
        else:
            step = journey.begin(now())
        while step is not None and not isinstance(step, Refuse):
            if isinstance(step, Forward):
                began = now()
                event = await self._forwarding.forward(
                    inbound, address, step.to, response, hops=journey.forwards, again=journey.maybe_ran
                )
                if broke is None and isinstance(event, PathBroken) and not event.in_doubt:
                    broke = began
            elif isinstance(step, Run):
                event = await self._run(run, inbound, address, response)
            else:
                step = await self._errands.run(journey, step)
                continue
            if self._reattachment.leads(response, event):
                step = await self._reattachment.go_on(inbound, response, journey, event, run_here)
            else:
                step = journey.advance(event, now())
        self._counts.hops_corrected += journey.corrections
        if step is None:
            if broke is not None and not response.stream:
                self._counts.failovers += 1
                self._failover.observe(now() - broke)
        elif step.denial is Denial.UNKNOWN:
            await self._in_vain.during(address, run(inbound))
        else:
            await deny(inbound, response, step.denial, self._servers)

    async def _run(self, run: RunHere, inbound: Inbound, address: Address, response: Response) -> Event:
        try:
            await run(inbound)
        except Elsewhere:
            response.next_attempt()
            return NotRunHere()
        except NoRoom:
            response.next_attempt()
            return NoRoomHere()
        finally:
            if address not in self._registry:
                self._holdings.rest(address)
        return Answered()
