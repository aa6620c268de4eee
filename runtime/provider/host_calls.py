"""`HostCalls`: what the host program asks of sessions, on its way to the nodes that own them.

It travels as a client's request does (`Router.route`), so that dead owners, hand-offs and claims are met once. To tell
it from one, its `Inbound` has a purpose; a node of an earlier version takes it for a POST that names no session and
refuses it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from ...actors import Elsewhere
from ...actors.session import ANONYMOUS, TenantContext
from ...stores import Address
from ..telemetry.outcomes import IN_DOUBT
from ..wire.inbound import Inbound
from ..wire.jsonrpc import Request, read_message
from ..wire.refusals import Refused
from ..wire.routing import Leg, Router

__all__ = ["HostCalls", "HostReply", "asked_of"]


@dataclass(frozen=True, slots=True)
class HostReply:
    """What came of a call."""

    status: int
    """HTTP's; 0 where a node has answered nothing that can be read."""
    result: Any = None
    """Of a JSON body that is no error."""
    error: str | None = None
    data: dict[str, Any] | None = None
    """Of the error, if that is an object."""
    retry_after: float | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether it may have run, although there is no answer to it."""
        return self.error is not None and self.data == IN_DOUBT


class HostCalls:
    """The host program's end of such calls, of one `purpose`. The other end is a `Leg`, which `asked_of` helps."""

    def __init__(self, purpose: str, router: Router | None, serve: Leg) -> None:
        """`router`: finds other nodes; None: there are none."""
        self._purpose = purpose
        self._router = router
        self._serve = serve

    async def ask(
        self,
        address: Address | None,
        method: str,
        params: dict[str, Any],
        *,
        timeout: float,
        tenant: TenantContext = ANONYMOUS,
    ) -> HostReply:
        """Have the owner of `address` do `method`; None: whichever node has room for a new session.

        Never raises but when cancelled: then it may or may not have run, as after `timeout` seconds.
        """
        receiver = _Receiver()
        inbound = Inbound(
            scope={"type": "http", "method": "POST", "path": "", "headers": []},
            headers={},
            tenant=tenant,
            receive=_forever,
            send=receiver.send,
            body=_body(method, params),
            purpose=self._purpose,
        )
        try:
            async with asyncio.timeout(timeout):
                if self._router is None:
                    await self._serve(inbound)
                else:
                    await self._router.route(inbound, address, self._serve)
        except Refused as error:
            refusal = error.refusal
            return HostReply(refusal.status, None, refusal.message, _object(refusal.data), refusal.retry_after)
        except Elsewhere:
            return HostReply(503, None, "no node could act for it")
        except TimeoutError:
            return HostReply(503, None, f"no answer came within {timeout:g} s", IN_DOUBT)
        return receiver.reply()


def asked_of(inbound: Inbound) -> Request | None:
    """The call in `inbound`; None if it is nothing that can be read.

    Raises:
        Refused: It is no JSON.
    """
    message = read_message(inbound.body)
    return message if type(message) is Request else None


class _Receiver:
    """What came back, as ASGI's send."""

    def __init__(self) -> None:
        self._status = 0
        self._retry_after: float | None = None
        self._body = bytearray()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._retry_after = next(
                (float(value) for name, value in message["headers"] if name == b"retry-after"), None
            )
        else:
            self._body += message.get("body", b"")

    def reply(self) -> HostReply:
        try:
            body: Any = json.loads(self._body) if self._body else None
            error: Any = cast("dict[str, Any]", body).get("error") if isinstance(body, dict) else None
            if error is not None:
                data = _object(error.get("data"))
                return HostReply(self._status, None, str(error["message"]), data, self._retry_after)
        except (ValueError, LookupError, TypeError, AttributeError):
            return HostReply(0, None, f"its node answered with status {self._status}", IN_DOUBT)
        if not 200 <= self._status < 300:
            return HostReply(self._status, None, f"its node answered with status {self._status}", IN_DOUBT)
        return HostReply(self._status, body)


def _object(data: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", data) if isinstance(data, dict) else None


def _body(method: str, params: dict[str, Any]) -> bytes:
    # A request of a method that nobody may repeat: see `sort_of`.
    return json.dumps({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}, ensure_ascii=False).encode()


async def _forever() -> NoReturn:
    """Nobody leaves: `ask` is cancelled instead."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets it")
