"""`Notices`: what the host program tells clients, on its way to the nodes that own their sessions.

A notice travels as a client's request does (`Router.route`), so that dead owners, hand-offs and claims are met once. To
tell it from one, its `Inbound` has a purpose; a node of an earlier version takes it for a POST that names no session
and refuses it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any, Final, NoReturn

from mcp_types import INVALID_REQUEST

from ..actors import Access, Elsewhere, Registry
from ..actors.errors import DeadlineExceeded, TurnCancelled
from ..actors.session import ANONYMOUS, SESSION
from ..actors.session.errors import NoStandingStream
from ..actors.session.messages import Tell
from ..actors.session.wire import NOT_FOUND, SERVER_BUSY, Refusal
from ..stores import Address, UnderstudyError
from .http import answer
from .inbound import Inbound
from .jsonrpc import Request, read_message
from .refusals import Refused
from .routing import Router, refused
from .session_errors import SessionNotFound, SessionUnavailable, session_address

__all__ = ["NOTICE", "Notices"]

NOTICE: Final = "notice"
"""The purpose of an `Inbound` that is one."""
TIMEOUT: Final = 30.0
SERVE_TIMEOUT: Final = 20.0
"""Seconds that the owner may take, of which waking the session is most."""
_METHOD: Final = "understudy/notice"
_TOLD: Final = 202
_NO_STREAM: Final = 409
_IN_DOUBT: Final = {"outcome": "unknown"}


class Notices:
    """Both ends: `tell` where the host program is, `serve` where the session is."""

    def __init__(self, registry: Registry, router: Router | None, *, timeout: float = TIMEOUT) -> None:
        """`timeout`: seconds after which `tell` gives up. `router`: finds other nodes; None: there are none."""
        self._registry = registry
        self._router = router
        self._timeout = timeout

    async def tell(self, id: str, method: str, params: dict[str, Any] | None, tenant: str | None) -> None:
        """Have session `id` tell its client. See `SessionReference.notify`, which has checked what is told."""
        address = session_address(SESSION, id)
        reply = _Reply()
        inbound = _inbound(address, {"method": method, "params": params, "tenant": tenant}, reply)
        try:
            async with asyncio.timeout(self._timeout):
                if self._router is None:
                    await self.serve(inbound)
                else:
                    await self._router.route(inbound, address, self.serve)
        except Refused as error:
            _fail(address, error.refusal.status, error.refusal.message, error.refusal.data, error.refusal.retry_after)
        except Elsewhere:
            _fail(address, 503, "no node could act for it")
        except TimeoutError:
            _fail(address, 503, f"it was not told within {self._timeout:g} s", _IN_DOUBT)
        reply.check(address)

    async def serve(self, inbound: Inbound) -> None:
        """A `Leg`."""
        address, told = _read(inbound.body)
        try:
            await self._registry.ask(address, told, access=Access.SHARED, timeout=SERVE_TIMEOUT)
        except NoStandingStream as error:
            raise Refused(Refusal(INVALID_REQUEST, str(error), status=_NO_STREAM), 0) from error
        except DeadlineExceeded as error:
            doubt = _IN_DOUBT if error.started else None
            raise Refused(Refusal(SERVER_BUSY, "its node took too long", doubt, 503, 1.0), 0) from error
        except TurnCancelled as error:
            refusal = Refusal(SERVER_BUSY, "it ended, or its node stopped, meanwhile", _IN_DOUBT, 503, 1.0)
            raise Refused(refusal, 0) from error
        except UnderstudyError as error:
            raise refused(error, address, 0) from error
        await answer(inbound.send, _TOLD, headers=())


class _Reply:
    """What came back, as ASGI's send."""

    def __init__(self) -> None:
        self._status = 0
        self._retry_after: float | None = None
        self._body = b""

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._retry_after = next(
                (float(value) for name, value in message["headers"] if name == b"retry-after"), None
            )
        else:
            self._body += message.get("body", b"")

    def check(self, address: Address) -> None:
        """
        Raises:
            UnderstudyError: The client was not told, or perhaps not.
        """
        if self._status == _TOLD:
            return
        try:
            error: Any = json.loads(self._body)["error"]
            text, data = str(error["message"]), error.get("data")
        except (ValueError, LookupError, TypeError, AttributeError):
            text, data = f"its node answered with status {self._status}", _IN_DOUBT
        _fail(address, self._status, text, data, self._retry_after)


def _fail(address: Address, status: int, text: str, data: Any = None, retry_after: float | None = None) -> NoReturn:
    if status == NOT_FOUND.status:
        raise SessionNotFound(address)
    if status == _NO_STREAM:
        raise NoStandingStream
    unknown = data == _IN_DOUBT
    doubt = "whether its client was told is not known" if unknown else "its client was not told"
    raise SessionUnavailable(
        f"{address}: {doubt}: {text}", address, retry_after=retry_after or 1.0, outcome_unknown=unknown
    )


def _inbound(address: Address, told: dict[str, Any], reply: _Reply) -> Inbound:
    body = {"jsonrpc": "2.0", "id": 0, "method": _METHOD, "params": {"session": address.id, **told}}
    return Inbound(
        scope={"type": "http", "method": "POST", "path": "", "headers": []},
        headers={},
        tenant=ANONYMOUS,
        receive=_forever,
        send=reply.send,
        body=json.dumps(body, ensure_ascii=False).encode(),
        purpose=NOTICE,
    )


async def _forever() -> NoReturn:
    """Nobody leaves: `tell` is cancelled instead."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets it")


def _read(body: bytes) -> tuple[Address, Tell]:
    """
    Raises:
        Refused: It is no notice, or one of a later version.
    """
    message = read_message(body)
    params = message.params if type(message) is Request else None
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
