"""`Calls`: the calls on one path, in both directions, and what each frame means to them."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .channel import MAX_REQUEST_BODY, CallerChannel, OwnerChannel
from .counters import LinkCounters
from .errors import PeerGone
from .frames import (
    Body,
    Call,
    Cancel,
    Failed,
    Frame,
    GrantRequest,
    GrantResponse,
    NotRunFrame,
    Ping,
    Pong,
    RequestBody,
    Start,
)
from .head import CallHead
from .inbound import InboundCall
from .outbound import OutboundCall
from .serving import Serving

if TYPE_CHECKING:
    from .path import Path

__all__ = ["CallHost", "Calls"]


class CallHost(Protocol):
    """What the calls of a path ask of their link."""

    counters: LinkCounters
    serving: Serving


class Calls:
    """Belongs to one `Path`."""

    __slots__ = (
        "_arrivals",
        "_channels",
        "_counters",
        "_inbound",
        "_outbound",
        "_path",
        "_serving",
        "awaiting",
        "awaiting_since",
    )

    def __init__(self, path: Path, host: CallHost) -> None:
        self.awaiting = 0
        """Calls of ours of whose response nothing has come."""
        self.awaiting_since = inf
        """When that was last 0."""
        self._path = path
        self._counters = host.counters
        self._serving = host.serving
        self._channels = 0
        self._outbound: dict[int, OutboundCall] = {}
        self._arrivals: dict[int, tuple[OwnerChannel, float]] = {}
        """Calls of the peer whose body is not complete, and since when."""
        self._inbound: dict[int, InboundCall] = {}
        """Calls of the peer that are served and whose response is not complete."""

    def __bool__(self) -> bool:
        return bool(self._outbound or self._inbound or self._arrivals)

    @property
    def asks(self) -> bool:
        """Whether calls of ours are under way."""
        return bool(self._outbound)

    def open(self, body: bytes) -> OutboundCall:
        """A call to the peer."""
        self._channels += 1
        call = self._outbound[self._channels] = OutboundCall(self._path, CallerChannel(self._channels, body))
        if not self.awaiting:
            self.awaiting_since = self._path.now()
        self.awaiting += 1
        return call

    def forget(self, call: OutboundCall) -> None:
        """`call` is over."""
        if self._outbound.pop(call.channel.id, None) is not None:
            self._answered(call)

    def forget_inbound(self, call: InboundCall) -> None:
        """The response of `call` is complete, or nobody waits for it."""
        self._inbound.pop(call.channel.id, None)

    def on_frame(self, frame: Frame, now: float) -> str | None:
        """Act on `frame`; why the path cannot go on, if it breaks the rules.

        Whom it concerns has acted on it when this returns: the handler of a call, who waits for a response.
        """
        return self._HANDLERS[type(frame)](self, frame, now)

    def end_undelivered(self, why: str, undelivered: set[int]) -> None:
        """The peer is gone: end what it surely has not run. `undelivered`: channels of ours whose call surely never
        arrived whole."""
        for call in list(self._outbound.values()):
            if not call.channel.request_sent or call.channel.id in undelivered:
                self.forget(call)
                call.channel.fail(PeerGone(self._path.peer, why, maybe_ran=False))
                call.wakeup.wake()

    def end(self, why: str, undelivered: set[int]) -> None:
        """The path is over. `undelivered`: as for `end_undelivered`."""
        for call in list(self._outbound.values()):
            channel = call.channel
            maybe_ran = channel.request_sent and channel.id not in undelivered
            channel.fail(PeerGone(self._path.peer, why, maybe_ran=maybe_ran))
            call.wakeup.wake()
        self._outbound.clear()
        for channel, _ in self._arrivals.values():
            self._serving.assemble(-channel.size)
        self._arrivals.clear()
        for call in list(self._inbound.values()):
            self._counters.cancelled += 1
            call.caller_gone()

    def _on_response(self, frame: Start | Body | NotRunFrame | Failed, _: float) -> None:
        call = self._outbound.get(frame.channel)
        if call is None:
            self._counters.late += 1
            return
        channel = call.channel
        channel.on_response(frame, self._path.peer)
        if channel.ended:
            self.forget(call)
        elif call.awaiting:
            self._answered(call)
        call.wakeup.wake_at_once()

    def _on_grant_response(self, frame: GrantResponse, _: float) -> None:
        call = self._inbound.get(frame.channel)
        if call is not None:
            call.channel.on_grant(frame.size)
            call.wake()

    def _on_grant_request(self, frame: GrantRequest, _: float) -> None:
        call = self._outbound.get(frame.channel)
        if call is not None:
            call.channel.on_grant(frame.size)
            call.wakeup.wake()

    def _on_ping(self, frame: Ping, _: float) -> None:
        self._path.send(Pong(frame.nonce))

    def _on_pong(self, frame: Pong, _: float) -> None:
        """That it was heard is all there is to it."""

    def _on_call(self, call: Call, now: float) -> str | None:
        if call.channel in self._inbound or call.channel in self._arrivals:
            return f"it opened channel {call.channel} twice"
        channel = OwnerChannel(call)
        refusal = self._serving.refusal(call.head.tenant.tenant)
        if refusal is not None:
            self._refuse(channel, refusal)
        elif channel.complete:
            self._serve(channel, call.head)
        elif self._serving.assemble(channel.size):
            self._arrivals[channel.id] = (channel, now)
        else:
            self._refuse(channel, "busy")
        return None

    def _on_request_body(self, frame: RequestBody, now: float) -> str | None:
        arrival = self._arrivals.get(frame.channel)
        if arrival is None:
            # Refused, most likely, while this was under way.
            self._counters.late += 1
            return None
        channel, began = arrival
        before = channel.size
        try:
            grant = channel.on_body(frame)
        except ValueError as error:
            return str(error)
        if channel.size > MAX_REQUEST_BODY or not self._serving.assemble(len(frame.part)):
            del self._arrivals[channel.id]
            self._serving.assemble(-before)
            self._refuse(channel, "too_large" if channel.size > MAX_REQUEST_BODY else "busy")
        elif not channel.complete:
            if grant is not None:
                self._path.send(grant)
        else:
            del self._arrivals[channel.id]
            self._serving.assemble(-channel.size)
            head = channel.head_after(now - began)
            refusal = self._serving.refusal(head.tenant.tenant)
            if refusal is None:
                self._serve(channel, head)
            else:
                self._refuse(channel, refusal)
        return None

    def _on_cancel(self, frame: Cancel, _: float) -> None:
        arrival = self._arrivals.pop(frame.channel, None)
        if arrival is not None:
            self._serving.assemble(-arrival[0].size)
        call = self._inbound.get(frame.channel)
        if call is not None:
            self._counters.cancelled += 1
            self._path.session.drop(-frame.channel)
            call.caller_gone()

    def _serve(self, channel: OwnerChannel, head: CallHead) -> None:
        call = self._inbound[channel.id] = InboundCall(self._path, channel, head)
        self._serving.serve(call)

    def _refuse(self, channel: OwnerChannel, reason: str) -> None:
        self._counters.refused += 1
        self._path.send(channel.refuse(reason, {}))

    def _answered(self, call: OutboundCall) -> None:
        if call.awaiting:
            call.awaiting = False
            self.awaiting -= 1

    _HANDLERS: ClassVar[dict[type[Frame], Callable[[Calls, Any, float], str | None]]] = {
        Call: _on_call,
        RequestBody: _on_request_body,
        GrantRequest: _on_grant_request,
        Cancel: _on_cancel,
        Start: _on_response,
        Body: _on_response,
        GrantResponse: _on_grant_response,
        NotRunFrame: _on_response,
        Failed: _on_response,
        Ping: _on_ping,
        Pong: _on_pong,
    }
