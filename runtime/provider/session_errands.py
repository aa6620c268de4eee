"""`SessionErrands`: what the host program asks of a session, done where the session is. See `SessionProvider`."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Final

from mcp_types import INVALID_REQUEST
from mcp_types.version import LATEST_MODERN_VERSION

from ...actors import Access, Envelope, FutureReply, NodeDraining, Registry, RegistryFull
from ...actors.errors import ActorUnavailable, DeadlineExceeded, Elsewhere, SnapshotError, TurnCancelled
from ...actors.session import SESSION, ForeignSession, LimitExceeded, SessionSeed, StateConflict, StateError
from ...actors.session.announcement import Announce, announced
from ...actors.session.limiting import CallLimits
from ...actors.session.messages import OpenHandle, Update, Wake
from ...actors.session.snapshot import SessionSnapshot
from ...actors.session.state import pack_state, unpack_state
from ...actors.session.state_update import StateUpdate
from ...actors.session.tenant import TenantContext
from ...actors.session.wire import SERVER_BUSY, Refusal, refusal_of
from ...stores import Address, Record, UnderstudyError
from ..telemetry.outcomes import IN_DOUBT
from ..wire.http import answer
from ..wire.inbound import Inbound
from ..wire.refusals import Refused
from ..wire.routing import NoRoom, refused
from .host_calls import asked_of

__all__ = ["CONFLICT", "END", "ERRAND", "OPEN", "UNFIT", "UPDATE", "WAKE", "SessionErrands"]

ERRAND: Final = "session"
"""The purpose of an `Inbound` that carries one."""
WAKE: Final = "understudy/session/wake"
UPDATE: Final = "understudy/session/update"
END: Final = "understudy/session/end"
OPEN: Final = "understudy/session/open"
CONFLICT: Final = 412
UNFIT: Final = 422
LONGEST: Final = 600.0
"""Seconds that an errand may wait for its turn, whatever it asks for."""


class SessionErrands:
    """The owner's end."""

    def __init__(
        self,
        registry: Registry,
        *,
        max_state: int,
        ended: Callable[[Address], None],
        ended_asleep: Callable[[Record], None] | None = None,
        opened: Callable[[Address, TenantContext], None] | None = None,
        updated: Callable[[Address, SessionSnapshot], None] | None = None,
        announce: Announce | None = None,
        limits: CallLimits | None = None,
    ) -> None:
        """`ended`: told of each session that is deleted: its streams are somebody else's to end. `ended_asleep`:
        told of each that could not be woken for it. `opened` is told of each that is opened, `updated` of each whose
        update went well, `announce` awaited.
        """
        self._registry = registry
        self._max_state = max_state
        self._ended = ended
        self._ended_asleep = ended_asleep
        self._opened = opened
        self._updated = updated
        self._announce = announce
        self._limits = limits

    async def serve(self, inbound: Inbound) -> None:
        """A `Leg`."""
        message = asked_of(inbound)
        if message is None:
            raise _unreadable()
        match message.params:
            case {"session": str(id), "tenant": str() | None as tenant, "timeout": float(timeout), **rest}:
                address, timeout = Address(SESSION, id), min(timeout, LONGEST)
                result = await self._do(message.method, address, tenant, timeout, rest)
            case {"state": str(state), "timeout": float(timeout)} if message.method == OPEN:
                result = await self._open(inbound.tenant, state, min(timeout, LONGEST))
            case _:
                raise _unreadable()
        await answer(inbound.send, 200, json.dumps(result).encode())

    async def _do(
        self, method: str, address: Address, tenant: str | None, timeout: float, rest: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            if method == UPDATE:
                update = _update(rest.get("update"))
                snapshot: SessionSnapshot = await self._registry.ask(address, Update(update, tenant), timeout=timeout)
                if self._updated is not None:
                    self._updated(address, snapshot)
                return {"state": b64encode(snapshot.state).decode()}
            if method == WAKE:
                await self._registry.ask(address, Wake(tenant), access=Access.SHARED, timeout=timeout)
                return {}
            if method == END:
                return {"ended": await self._end(address, tenant, timeout)}
        except StateConflict as error:
            refusal = Refusal(INVALID_REQUEST, str(error), {"keys": list(error.keys)}, CONFLICT)
            raise Refused(refusal, 0) from error
        except StateError as error:
            raise Refused(Refusal(INVALID_REQUEST, str(error), status=UNFIT), 0) from error
        except DeadlineExceeded as error:
            # A turn that a deadline stops is rolled back.
            text = f"its turn did not come within {timeout:g} s"
            raise Refused(Refusal(SERVER_BUSY, text, None, 503, 1.0), 0) from error
        except TurnCancelled as error:
            text = "it ended, or its node stopped, meanwhile"
            raise Refused(Refusal(SERVER_BUSY, text, None, 503, 1.0), 0) from error
        except UnderstudyError as error:
            raise refused(error, address, 0) from error
        raise _unreadable()

    async def _end(self, address: Address, tenant: str | None, timeout: float) -> bool:
        registry = self._registry
        try:
            # Woken, so that all who watch sessions leave see it end.
            await registry.ask(address, Wake(tenant), access=Access.SHARED, timeout=timeout)
        except (SnapshotError, ActorUnavailable):
            # Nobody can wake it, and it is to be gone all the same, if the store is there.
            record = await registry.peek(address)
            if record is None or tenant not in (None, record.tenant):
                raise ForeignSession(address) from None
        else:
            record = None
        registry.pin(address)
        try:
            ended = await registry.end(address)
        finally:
            registry.unpin(address)
        self._ended(address)
        if ended and record is not None and self._ended_asleep is not None:
            self._ended_asleep(record)
        return ended

    async def _open(self, tenant: TenantContext, state: str, timeout: float) -> dict[str, Any]:
        try:
            packed = pack_state(unpack_state(b64decode(state)), self._max_state)
        except StateError as error:
            raise Refused(Refusal(INVALID_REQUEST, str(error), status=UNFIT), 0) from error
        except (ValueError, TypeError, AttributeError):
            raise _unreadable() from None
        limits = self._limits
        try:
            if limits is not None and (opening := limits.opening(tenant)) is not None:
                await opening
        except LimitExceeded as error:
            raise Refused(refusal_of(error, modern=False), 0) from error
        address = Address.new(SESSION)
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        message = OpenHandle(tenant, LATEST_MODERN_VERSION, packed)
        try:
            envelope = Envelope(message, Access.EXCLUSIVE, FutureReply(opened))
            self._registry.open(address, SessionSeed("handle", tenant), tenant.tenant, envelope)
        except (RegistryFull, NodeDraining, Elsewhere) as error:
            if limits is not None:
                limits.not_opened(tenant)
            if isinstance(error, Elsewhere):
                raise
            raise NoRoom(None, error, refusal_of(error, modern=False), 0) from error
        # Not awaited itself: a turn that is cut short cancels it, which is not the caller's cancellation.
        await asyncio.wait((opened,), timeout=timeout)
        if not opened.done() or opened.cancelled():
            text = f"it was not opened within {timeout:g} s, or its node stopped meanwhile"
            raise Refused(Refusal(SERVER_BUSY, text, IN_DOUBT, 503, 1.0), 0)
        if (failure := opened.exception()) is not None:
            raise Refused(refusal_of(failure, modern=False), 0) from failure
        if self._opened is not None:
            self._opened(address, tenant)
        await announced(self._announce, address)
        return {"session": address.id}


def _update(spelled: object) -> StateUpdate:
    try:
        return StateUpdate.unpack(b64decode(spelled)) if isinstance(spelled, str) else _none()
    except ValueError:
        raise _unreadable() from None


def _none() -> StateUpdate:
    raise ValueError("it is no text")


def _unreadable() -> Refused:
    return Refused(Refusal(SERVER_BUSY, "This node cannot do this: it is of another version", status=400), 0)
