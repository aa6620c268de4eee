"""`ClusterRouter`: leads each request to its actor, here or at another node. Binds `Journey` to the world."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, cast

from mcp_types import INTERNAL_ERROR, INVALID_REQUEST

from ...actors import Registry
from ...actors.clock import Clock
from ...actors.errors import Elsewhere
from ...actors.session.servers import Servers
from ...actors.session.wire import SERVER_BUSY, Refusal
from ...stores import Address, RecordInfo, SessionStore, StoreError
from ..http import Send, fold_headers
from ..inbound import Inbound
from ..link import CallFailed, CallHead, InboundCall, LinkClosed, NotRun, PeerGone, Unsendable
from ..link.head import MAX_HOPS
from ..metrics import Latency
from ..refusals import Refused
from ..routing import NoRoom
from ..sse import READER_PATIENCE
from ..trace import TRACE
from .client_watch import ClientWatch
from .counts import Counts
from .directory import Directory, DirectoryUnavailable, EntryChanged
from .entry import Entry, is_incarnation
from .holdings import Holdings
from .interruptible import Interruptible
from .journey import Journey
from .keep_alive import KeepAlive
from .ownership import Ownership
from .repeatable import Sort, sort_of
from .response import Interrupted, Response
from .steps import (
    Answered,
    Denial,
    Event,
    Forward,
    Found,
    Load,
    Loaded,
    LookUp,
    NoRoomHere,
    NotRunHere,
    NotRunThere,
    PathBroken,
    Pause,
    Refuse,
    Run,
    Step,
    Taken,
    TakenAway,
    Unreachable,
    Write,
)

__all__ = ["ClusterRouter", "ForwardingLink"]

logger = logging.getLogger("understudy.cluster")

RunHere = Callable[[Inbound], Awaitable[None]]

REMOTE_PATIENCE: Final = 5.0
"""Seconds that a request which was forwarded here may look for its actor before it goes back."""
LOOK_UP_TIMEOUT: Final = 2.0

ELSEWHERE: Final = "elsewhere"
"""Why a node gives a request back that it has not run."""

_TOO_LARGE: Final = Refusal(INVALID_REQUEST, "Request body too large", status=413)
_UNSENDABLE: Final = Refusal(INVALID_REQUEST, "Request headers too large", status=431)
_FAILED: Final = Refusal(INTERNAL_ERROR, "Internal server error", status=500)
_INTERRUPTED: Final = frozenset(("closing", "cancelled"))
"""Why a link ends calls that its node might as well have answered."""
_REFUSALS: Final = {
    Denial.BUSY: Refusal(SERVER_BUSY, "The server takes no more sessions now", None, 503, 1.0),
    Denial.UNAVAILABLE: Refusal(SERVER_BUSY, "The session is not available now; nothing was changed", None, 503, 1.0),
    Denial.IN_DOUBT: Refusal(
        SERVER_BUSY,
        "Whether the call ran is not known, because its node could not be reached any more; look before you repeat it",
        {"outcome": "unknown"},
        503,
        1.0,
    ),
}


class ForwardingLink(Protocol):
    """What the router needs of `Link`."""

    async def forward(self, peer: str, head: CallHead, body: bytes, send: Send) -> None: ...


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
        self._directory = directory
        self._holdings = holdings
        self._store = store
        self._servers = servers
        self._clock = clock
        self._keep_alive = keep_alive
        self._client_watch = client_watch
        self._counts = counts
        self._failover = failover
        self._patience = patience
        self._listeners = Interruptible()
        self._asked_in_vain: dict[Address, int] = {}
        self.registry: Registry
        self.link: ForwardingLink
        self.strike: Callable[[str], Awaitable[None]]
        """`Membership.strike`."""
        self.serve_here: RunHere
        """The edge's entry for requests that come over the link."""

    # `Gate`

    def may_run(self) -> bool:
        """See `Gate.may_run`."""
        return self._ownership.may_run(self._clock.monotonic())

    def may_claim(self, address: Address) -> bool:
        """See `Gate.may_claim`. An address without a record may be asked for by anybody: it does not exist."""
        ownership = self._ownership
        return (ownership.holds(address) and not ownership.handing_off(address)) or address in self._asked_in_vain

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

    async def _route(self, inbound: Inbound, address: Address | None, response: Response, run: RunHere) -> None:
        try:
            try:
                await self._lead(inbound, address, response, run)
            except (Refused, Elsewhere) as error:
                if not response.started:
                    raise
                # A node that let go of the request has opened the stream: the answer is its last message.
                refusal = error.refusal if isinstance(error, Refused) else _REFUSALS[Denial.UNAVAILABLE]
                await self._refuse(inbound, response, refusal)
        except Interrupted:
            logger.warning("a JSON answer broke off in the middle: its connection is closed")
        except TimeoutError:
            if not response.started:
                raise
            response.ended = True
            logger.info("a client took nothing for %g s: its connection is given up", READER_PATIENCE)

    async def _lead(self, inbound: Inbound, address: Address | None, response: Response, run: RunHere) -> None:
        if address is None:
            await self._unaddressed(inbound, response, run)
            return
        if self.registry.live(address) is not None and self.may_run():
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
                if elsewhere.address in self.registry or self.may_run():
                    # The session was named in the body only.
                    await self._travel(inbound, elsewhere.address, response, run)
                    return
            if self._clock.monotonic() >= deadline:
                await self._refuse(inbound, response, _REFUSALS[Denial.UNAVAILABLE])
                return
            await self._clock.sleep(0.05)

    async def _place(self, inbound: Inbound, response: Response) -> bool:
        """Have another node open the session; False if none takes it."""
        tried: frozenset[str] = frozenset()
        while (peer := self._ownership.peers.roomiest(self._clock.monotonic(), besides=tried)) is not None:
            tried |= {peer.incarnation}
            self._ownership.peers.assign(peer)
            event = await self._forward(inbound, None, peer.incarnation, response, purpose="open")
            if isinstance(event, Answered):
                self._counts.placed += 1
                return True
            if isinstance(event, PathBroken) and event.maybe_ran and not event.repeatable:
                await self._deny(inbound, response, Denial.IN_DOUBT)
                return True
        return False

    async def _travel(self, inbound: Inbound, address: Address, response: Response, run: RunHere) -> None:
        now = self._clock.monotonic
        journey = Journey(self._ownership, address, now(), patience=self._patience)
        step: Step | None = journey.begin(now())
        broke: float | None = None
        while step is not None and not isinstance(step, Refuse):
            if isinstance(step, Forward):
                began = now()
                event: Event = await self._forward(inbound, address, step.to, response, hops=journey.forwards)
                if broke is None and isinstance(event, PathBroken):
                    broke = began
            elif isinstance(step, Run):
                event = await self._run(inbound, address, response, run)
            else:
                event = await self._do(journey, step, address)
            step = journey.advance(event, now()) if not isinstance(event, _Resumed) else journey.resume(now())
        self._counts.hops_corrected += journey.corrections
        if step is None:
            if broke is not None:
                self._counts.failovers += 1
                self._failover.observe(now() - broke)
        elif step.denial is Denial.UNKNOWN:
            await self._run_in_vain(inbound, address, run)
        else:
            await self._deny(inbound, response, step.denial)

    async def _do(self, journey: Journey, step: Step, address: Address) -> Event:
        """The steps that are the same for the edge's requests and for those that were forwarded here."""
        match step:
            case LookUp():
                try:
                    return Found(await self._directory.look_up(address))
                except DirectoryUnavailable:
                    return Unreachable()
            case Load():
                return await self._load(address)
            case Write(entry, striking):
                try:
                    if striking:
                        await self.strike(striking)
                    revision = await self._directory.write(address, entry)
                except EntryChanged:
                    self._counts.claims_lost += 1
                    return TakenAway()
                except DirectoryUnavailable:
                    return Unreachable()
                self._counts.claims_won += 1
                return Taken(revision)
            case Pause(seconds):
                await self._clock.sleep(seconds)
                return _RESUMED
            case _:
                raise AssertionError(f"{step} is not for here")

    async def _load(self, address: Address) -> Event:
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT):
                record: RecordInfo | None = await self._store.load(address)
        except (StoreError, TimeoutError):
            return Unreachable()
        if record is None:
            return Loaded(None)
        peer = self._ownership.peers.get(record.owner)
        return Loaded(peer.incarnation if peer is not None else "", record.epoch)

    def end_listening(self) -> None:
        """End the streams of clients that only listen: this node is about to leave, and they would never end."""
        self._listeners.interrupt()

    # Here

    async def _run(self, inbound: Inbound, address: Address, response: Response, run: RunHere) -> Event:
        try:
            await run(inbound)
        except Elsewhere:
            response.next_attempt()
            return NotRunHere()
        except NoRoom:
            response.next_attempt()
            return NoRoomHere()
        finally:
            if address not in self.registry:
                self._holdings.rest(address)
        return Answered()

    async def _run_in_vain(self, inbound: Inbound, address: Address, run: RunHere) -> None:
        """There is no such session: let the leg say so, in the words of its era."""
        self._asked_in_vain[address] = self._asked_in_vain.get(address, 0) + 1
        try:
            await run(inbound)
        finally:
            self._asked_in_vain[address] -= 1
            if not self._asked_in_vain[address]:
                del self._asked_in_vain[address]

    # There

    async def _forward(
        self,
        inbound: Inbound,
        address: Address | None,
        to: str,
        response: Response,
        *,
        purpose: str = "",
        hops: int = 1,
    ) -> Event:
        counts = self._counts
        counts.forwards += 1
        head = _head(inbound, address, purpose, hops)
        send = self._keep_alive.watch(response)
        try:
            await self._client_watch.during(inbound.receive, self.link.forward(to, head, inbound.body, send))
        except NotRun as refused:
            if refused.reason == "too_large":
                raise Refused(_TOO_LARGE) from refused
            response.next_attempt()
            return NotRunThere(_hint(refused.data), full=refused.reason == "full")
        except Unsendable as error:
            logger.warning("a call cannot be forwarded: %s", error)
            raise Refused(_UNSENDABLE) from error
        except LinkClosed:
            response.next_attempt()
            return PathBroken(maybe_ran=False, dead=False)
        except PeerGone as gone:
            counts.paths_broken += 1
            response.next_attempt()
            sort = await sort_of(inbound, self._servers) if gone.maybe_ran else Sort(True)
            return PathBroken(gone.maybe_ran, sort.repeatable)
        except CallFailed as failed:
            response.next_attempt()
            if failed.reason == ELSEWHERE:
                return NotRunThere()
            logger.warning("node %s could not answer a call: %s", to, failed)
            sort = await sort_of(inbound, self._servers)
            if sort.repeatable and failed.reason not in _INTERRUPTED:
                # It would only fail again.
                raise Refused(_FAILED, sort.request_id) from failed
            return PathBroken(True, sort.repeatable, dead=False)
        finally:
            self._keep_alive.leave(response)
        return Answered()

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
        if self.registry.live(address) is not None and self.may_run():
            try:
                await self.serve_here(inbound)
                return
            except (Elsewhere, NoRoom):
                if _begun(call):
                    call.give_up(ELSEWHERE)
                    return
        journey = Journey(self._ownership, address, now(), remote=True, patience=REMOTE_PATIENCE)
        step: Step | None = journey.begin(now())
        while step is not None and not isinstance(step, Refuse):
            if isinstance(step, Run):
                event = await self._serve_run(call, inbound, address)
            else:
                try:
                    event = await self._do(journey, step, address)
                except asyncio.CancelledError:
                    # This node leaves: who forwarded the request is to know that it has not run.
                    await self._turn_away(call, inbound, address, Refuse(Denial.ELSEWHERE))
                    raise
            step = journey.advance(event, now()) if not isinstance(event, _Resumed) else journey.resume(now())
        if isinstance(step, Refuse):
            await self._turn_away(call, inbound, address, step)

    async def _serve_run(self, call: InboundCall, inbound: Inbound, address: Address) -> Event:
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
                await self._run_in_vain(inbound, address, self.serve_here)
                return
            except (Elsewhere, NoRoom):
                logger.debug("%s has a record all of a sudden: who forwarded looks again", address)
        if refuse.denial is Denial.BUSY:
            self._holdings.moved(address)
        entry = refuse.entry
        data = {"owner": entry.incarnation, "epoch": entry.epoch, "revision": entry.revision} if entry else {}
        call.refuse("full" if refuse.denial is Denial.BUSY else ELSEWHERE, data)

    # Refusing

    async def _deny(self, inbound: Inbound, response: Response, denial: Denial) -> None:
        await self._refuse(inbound, response, _REFUSALS[denial])

    async def _refuse(self, inbound: Inbound, response: Response, refusal: Refusal) -> None:
        sort = await sort_of(inbound, self._servers)
        if not sort.expects_answer and refusal is _REFUSALS[Denial.IN_DOUBT]:
            # At most once is all that a notification is promised.
            await response.accept()
            return
        await response.refuse(refusal, sort.request_id)


class _Resumed:
    """A pause is over."""


_RESUMED: Final = cast("Event", _Resumed())


def _begun(call: InboundCall) -> bool:
    """Whether the head of its stream has been sent, while it waited for its turn: only its edge can go on with that."""
    return call.channel.answered or call.channel.held


def _hint(data: Mapping[str, Any]) -> Entry | None:
    match data:
        case {"owner": str(owner), "epoch": int(epoch), "revision": int(revision)} if is_incarnation(owner):
            return Entry(owner, epoch, revision)
        case _:
            return None


def _head(inbound: Inbound, address: Address | None, purpose: str, hops: int) -> CallHead:
    scope = inbound.scope
    tenant = inbound.tenant
    return CallHead(
        method=scope["method"],
        path=scope["path"],
        query=scope.get("query_string", b""),
        headers=list(scope["headers"]),
        scheme=scope.get("scheme", "http"),
        client=scope.get("client"),
        server=scope.get("server"),
        http_version=scope.get("http_version", "1.1"),
        root_path=scope.get("root_path", ""),
        tenant=tenant,
        address=address,
        purpose=purpose,
        hops=min(hops, MAX_HOPS - 1),
        budget=None,
        trace=TRACE.get(),
    )


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
    )
