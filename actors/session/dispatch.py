"""The SDK kernel's view of one message: where its notifications, progress and requests to the client go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.jsonrpc_dispatcher import progress_token_from_params
from mcp.shared.message import MessageMetadata, ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import RequestId

from .tenants.running import refuse_others

if TYPE_CHECKING:
    from .exchange import Exchange
    from .messages import Call, Notice
    from .session_actor import SessionActor

__all__ = ["CallDispatch", "NoticeDispatch", "notification"]


def notification(method: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
    """A JSON-RPC notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return message


class CallDispatch:
    """`mcp.shared.dispatcher.DispatchContext` of one request.

    `session` is None in the modern era, which keeps nothing for a client and forbids to ask it anything. To send what
    another party's call has to say, by a context that was kept from an earlier one, is `WrongTenant`.
    """

    __slots__ = ("_call", "_cancel_requested", "_closed", "_exchange", "_session")

    def __init__(self, call: Call, session: SessionActor | None) -> None:
        self._call = call
        self._exchange: Exchange = call.exchange
        self._session = session
        self._cancel_requested: anyio.Event | None = None
        self._closed = False

    @property
    def transport(self) -> TransportContext:
        request = self._call.request
        return TransportContext(
            kind="streamable-http",
            can_send_request=self._session is not None,
            headers=request.headers if request is not None else None,
        )

    @property
    def can_send_request(self) -> bool:
        return self._session is not None and not self._closed

    @property
    def request_id(self) -> RequestId | None:
        return self._call.id

    @property
    def message_metadata(self) -> MessageMetadata:
        if self._call.resumable:
            return ServerMessageMetadata(request_context=self._call.request, close_sse_stream=self._close_sse_stream)
        return ServerMessageMetadata(request_context=self._call.request)

    async def _close_sse_stream(self) -> None:
        """Let the client poll: its connection closes, the stream goes on without it."""
        self._exchange.cut()

    @property
    def cancel_requested(self) -> anyio.Event:
        if self._cancel_requested is None:
            self._cancel_requested = anyio.Event()
            if self._call.cancelled:
                self._cancel_requested.set()
        return self._cancel_requested

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Ask the client on this request's stream and wait for its answer.

        Raises:
            NoBackChannelError: The era forbids it, or the request is over.
            MCPError: The client answered with an error, or not in time.
            WrongTenant: The running call is another party's.
        """
        refuse_others(self._call.tenant)
        if self._session is None or self._closed:
            raise NoBackChannelError(method)
        return await self._session.questions().ask(self._exchange, method, params, opts)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Send a notification on this request's stream. A log message below the session's level is dropped.

        Raises:
            WrongTenant: The running call is another party's.
        """
        refuse_others(self._call.tenant)
        if self._closed:
            return
        if method == "notifications/message" and self._session is not None and not self._session.wants_log(params):
            return
        await self._exchange.send_paced(notification(method, params))

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Tell of the call's progress, if its client has asked for that. Raises as `notify`."""
        refuse_others(self._call.tenant)
        token = progress_token_from_params(self._call.params)
        if token is None or self._closed:
            return
        params: dict[str, Any] = {"progressToken": token, "progress": progress}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = message
        await self._exchange.send_paced(notification("notifications/progress", params))

    def close(self) -> None:
        """The request is over: later sends are dropped, later questions refused."""
        self._closed = True


class NoticeDispatch:
    """`DispatchContext` of one notification: there is no stream to answer on."""

    __slots__ = ("_notice", "cancel_requested")

    can_send_request = False
    request_id = None

    def __init__(self, notice: Notice) -> None:
        self._notice = notice
        self.cancel_requested = anyio.Event()

    @property
    def transport(self) -> TransportContext:
        request = self._notice.request
        return TransportContext(
            kind="streamable-http", can_send_request=False, headers=request.headers if request is not None else None
        )

    @property
    def message_metadata(self) -> MessageMetadata:
        return ServerMessageMetadata(request_context=self._notice.request)

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        return

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        return
