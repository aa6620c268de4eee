"""`Session`: what a tool sees of the conversation it belongs to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from mcp.server.mcpserver import Resolve

from .errors import NoSession, ReadOnlyTurn, TurnOver
from .notifications import Notifier, checked_notification
from .state import ReadOnlyState, pack_state, unpack_state
from .tenants.running import refuse_others

if TYPE_CHECKING:
    from .dispatch import CallDispatch
    from .limiting import Allowance
    from .live import LiveObjects
    from .tenant import TenantContext

__all__ = ["Session", "TurnSession", "current_session"]


class TurnSession(Notifier):
    """The session as seen by one turn. Made by the runtime; good until the turn ends, and never in another
    party's call.

    In an exclusive turn `state` is a working copy that is saved, if it changed, before the reply leaves
    (reply-is-durable), and dropped if the call fails or is cancelled (all-or-nothing). In a read-only turn it is
    the state as last saved, and changing it is an error.
    """

    __slots__ = (
        "_checkpoint",
        "_live",
        "_max_state",
        "_method",
        "_notify",
        "_over",
        "_state",
        "_tool",
        "allowance",
        "dispatch",
        "id",
        "node",
        "read_only",
        "saved",
        "tenant",
    )

    def __init__(
        self,
        *,
        id: str,
        tenant: TenantContext,
        node: str,
        method: str,
        tool: object,
        saved: bytes,
        max_state: int,
        read_only: bool,
        live: Callable[[], LiveObjects],
        checkpoint: Callable[[TurnSession, bytes], Awaitable[None]],
        notify: Callable[[str, dict[str, Any] | None], Awaitable[None]],
        dispatch: CallDispatch | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        """`allowance`: says whether the state may take less than `max_state`."""
        self.id = id
        """The session's id: `Mcp-Session-Id` in the handshake era, the state handle in the modern one."""
        self.tenant = tenant
        """Who the call comes from, as resolved from its credential."""
        self.node = node
        """The id of the node this turn runs on."""
        self._method = method
        self._tool = tool
        self.read_only = read_only
        self.saved = saved
        """The packed state that this turn's changes are told by: as it began, or as it last saved."""
        self._max_state = max_state
        self.allowance = allowance
        self._state: dict[str, Any] | None = None
        self._live = live
        self._checkpoint = checkpoint
        self._notify = notify
        self.dispatch = dispatch
        """The way back to the client of the call that this turn runs."""
        self._over = False

    @property
    def running(self) -> bool:
        """Whether its turn has not ended yet."""
        return not self._over

    @property
    def what(self) -> str:
        """What is running, for messages: `tool 'count'`, or the method."""
        return f"tool {self._tool!r}" if self._tool is not None else self._method

    @property
    def state(self) -> dict[str, Any]:
        """The session's durable state: str to None, bool, int, float, str, bytes, aware datetime, list or dict.

        Changes at any depth count, and a datetime comes back in UTC. Nothing is read or compared for a turn that
        never asks for it.

        Raises:
            TurnOver: The turn has ended.
            WrongTenant: The running call is another party's.
        """
        refuse_others(self.tenant)
        if self._over:
            raise TurnOver(
                f"session.state was used after {self.what} had returned; a background task cannot change a session, "
                "do the work inside the call"
            )
        if self._state is None:
            self._state = ReadOnlyState.of(self.saved, self.what) if self.read_only else unpack_state(self.saved)
        return self._state

    @property
    def live(self) -> LiveObjects:
        """Objects that cannot be saved: closed at passivation, made anew after it by their factories. As `state`."""
        refuse_others(self.tenant)
        if self._over:
            raise TurnOver(f"session.live was used after {self.what} had returned")
        return self._live()

    async def save(self) -> None:
        """Make the state durable now: a checkpoint. What fails later in this turn falls back to here.

        Raises:
            ReadOnlyTurn: This turn may only read.
            StateError: The state holds what cannot be saved, or is too large; nothing was saved.
            OwnershipLost, ActorUnavailable: The store refused, or did not answer.
            TurnOver: The turn has ended.
            WrongTenant: The running call is another party's.
        """
        refuse_others(self.tenant)
        if self._over:
            raise TurnOver(f"session.save() was called after {self.what} had returned")
        if self.read_only:
            raise ReadOnlyTurn(self.what)
        if (changed := self.changed_state()) is not None:
            await self._checkpoint(self, changed)
            self.saved = changed

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send the client a notification on the session's standalone stream, in the order of these calls.

        It is not taken back if the turn fails. What belongs to the call itself (progress, log messages of its own) goes
        by the SDK's context, on the call's stream. Cancellation leaves it sent, or not sent at all.

        Raises:
            NotificationRefused: No notification that a server may send, its params are not JSON, or too large; or the
                session was opened by handle, and there is no such stream (`NoStandingStream`).
            TurnOver: The turn has ended; from outside of a call, use `runtime.session(id).notify(...)`.
            WrongTenant: The running call is another party's.
        """
        refuse_others(self.tenant)
        if self._over:
            raise TurnOver(
                f"session.notify() was called after {self.what} had returned; use runtime.session(id).notify(...) there"
            )
        await self._notify(method, checked_notification(method, params))

    def changed_state(self) -> bytes | None:
        """The packed state if this turn has changed it since the last save, else None.

        Raises:
            ReadOnlyTurn: It changed, in a turn that may only read.
            StateError: It holds what cannot be saved, or is too large.
        """
        if self._state is None:
            return None
        most, allowance = self._max_state, self.allowance
        if allowance is not None and allowance.bounds_state:
            most = allowance.max_state(len(self.saved), most)
        state = dict(self._state) if self.read_only else self._state
        packed = pack_state(state, most, by_tenant=most < self._max_state)
        if packed == self.saved:
            return None
        if self.read_only:
            raise ReadOnlyTurn(self.what)
        return packed

    @property
    def refused_write(self) -> bool:
        """Whether the state was written to at its top, in a turn that may only read."""
        return isinstance(self._state, ReadOnlyState) and self._state.refused

    def end_turn(self) -> None:
        """Called by the runtime when the turn is over; later use raises `TurnOver`."""
        self._over = True
        self._state = None
        self.dispatch = None
        # A timer that was cancelled long ago may still hold the turn's context: it must not hold the actor.
        self._live = self._checkpoint = self._notify = _gone

    def __repr__(self) -> str:
        return f"<session of {self.what}>"


def _gone(*_: object) -> NoReturn:
    raise TurnOver("the turn is over")


CURRENT: ContextVar[TurnSession | None] = ContextVar("understudy_session", default=None)


def current_session() -> TurnSession:
    """The session of the call that is running: for code that has no `session` parameter.

    Raises:
        NoSession: No call is running here, or a modern-era call that came without a state handle.
    """
    session = CURRENT.get()
    if session is None:
        raise NoSession(
            "no session here: this code runs outside a call hosted by understudy, or in a call of the 2026-07-28 era "
            "without a state handle (declare `session: Session` on the tool so that clients are asked for one)"
        )
    return session


Session = Annotated[TurnSession, Resolve(current_session)]
"""The type of a tool parameter that is filled with the conversation's session: `async def tool(session: Session)`."""
