"""`Notices`: what the host program tells clients, by way of the nodes that own their sessions."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from mcp_types import INVALID_REQUEST

from ...actors import Access, Registry
from ...actors.errors import DeadlineExceeded, TurnCancelled
from ...actors.session import SESSION
from ...actors.session.errors import NoStandingStream
from ...actors.session.messages import Tell
from ...actors.session.wire import NOT_FOUND, SERVER_BUSY, Refusal
from ...stores import Address, UnderstudyError
from ..provider.host_calls import HostCalls, HostReply, asked_of
from ..provider.session_errors import SessionNotFound, SessionUnavailable, session_address
from ..telemetry.outcomes import IN_DOUBT
from ..wire.http import answer
from ..wire.inbound import Inbound
from ..wire.refusals import Refused
from ..wire.routing import Router, refused

__all__ = ["NOTICE", "Notices"]

NOTICE: Final = "notice"
"""The purpose of an `Inbound` that is one."""
TIMEOUT: Final = 30.0
SERVE_TIMEOUT: Final = 20.0
"""Seconds that the owner may take, of which waking the session is most."""
_METHOD: Final = "understudy/notice"
_TOLD: Final = 202
_NO_STREAM: Final = 409


class Notices:
    """Both ends: `tell` where the host program is, `serve` where the session is."""

    def __init__(self, registry: Registry, router: Router | None, *, timeout: float = TIMEOUT) -> None:
        """`timeout`: seconds after which `tell` gives up. `router`: finds other nodes; None: there are none."""
        self._registry = registry
        self._calls = HostCalls(NOTICE, router, self.serve)
        self._timeout = timeout

    async def tell(self, id: str, method: str, params: dict[str, Any] | None, tenant: str | None) -> None:
        """Have session `id` tell its client. See `SessionReference.notify`, which has checked what is told."""
        address = session_address(SESSION, id)
        told = {"session": id, "method": method, "params": params, "tenant": tenant}
        reply = await self._calls.ask(address, _METHOD, told, timeout=self._timeout)
        if reply.status != _TOLD:
            _fail(address, reply)

    async def serve(self, inbound: Inbound) -> None:
        """A `Leg`."""
        address, told = _read(inbound)
        try:
            await self._registry.ask(address, told, access=Access.SHARED, timeout=SERVE_TIMEOUT)
        except NoStandingStream as error:
            raise Refused(Refusal(INVALID_REQUEST, str(error), status=_NO_STREAM), 0) from error
        except DeadlineExceeded as error:
            doubt = IN_DOUBT if error.started else None
            raise Refused(Refusal(SERVER_BUSY, "its node took too long", doubt, 503, 1.0), 0) from error
        except TurnCancelled as error:
            refusal = Refusal(SERVER_BUSY, "it ended, or its node stopped, meanwhile", IN_DOUBT, 503, 1.0)
            raise Refused(refusal, 0) from error
        except UnderstudyError as error:
            raise refused(error, address, 0) from error
        await answer(inbound.send, _TOLD, headers=())


def _fail(address: Address, reply: HostReply) -> NoReturn:
    if reply.status == NOT_FOUND.status:
        raise SessionNotFound(address)
    if reply.status == _NO_STREAM:
        raise NoStandingStream
    doubt = "whether its client was told is not known" if reply.in_doubt else "its client was not told"
    raise SessionUnavailable(
        f"{address}: {doubt}: {reply.error}",
        address,
        retry_after=reply.retry_after or 1.0,
        outcome_unknown=reply.in_doubt,
    )


def _read(inbound: Inbound) -> tuple[Address, Tell]:
    """
    Raises:
        Refused: It is no notice, or one of a later version.
    """
    message = asked_of(inbound)
    params = message.params if message is not None else None
    match params:
        case {
            "session": str(id),
            "method": str(method),
            "params": dict() | None,
            "tenant": str() | None as tenant,
        }:
            return Address(SESSION, id), Tell(method, params["params"], tenant)
        case _:
            raise Refused(Refusal(SERVER_BUSY, "This node cannot read the notice", status=400), 0)
