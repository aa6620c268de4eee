"""The SDK's `Connection`, slimmed for a session that is mostly asleep.

A bare `Connection` costs 3 KB, nearly all of it an event, an exit stack and the parsed client parameters that most
sessions share letter for letter. Here the first two exist when somebody asks for them, and the third is shared.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import AsyncExitStack
from typing import Any, cast

import anyio
from mcp.server.connection import Connection
from mcp.server.runner import aclose_shielded
from mcp.shared.dispatcher import Outbound
from mcp.shared.inbound import InboundModernRoute
from mcp_types import InitializeRequestParams
from pydantic_core import to_json

__all__ = ["NO_CHANNEL", "SessionConnection", "envelope_connection", "shared_client_params"]


class _AlreadySet:
    """An event that has happened. A session exists only after its handshake, so nobody ever waits for it."""

    def set(self) -> None:
        pass

    def is_set(self) -> bool:
        return True

    async def wait(self) -> None:
        await anyio.lowlevel.checkpoint()


_ALREADY_SET = cast("anyio.Event", _AlreadySet())


class SessionConnection(Connection):
    """A connection whose exit stack and scratch state are made on first use."""

    def __init__(
        self,
        outbound: Outbound,
        *,
        protocol_version: str,
        session_id: str | None = None,
        client_params: InitializeRequestParams | None = None,
    ) -> None:
        # Not super().__init__: what it makes is what this class exists to leave out.
        self.outbound = outbound
        self.protocol_version = protocol_version
        self.session_id = session_id
        self.client_capabilities = None
        self.client_params = client_params
        self.initialized = _ALREADY_SET

    @property
    def exit_stack(self) -> AsyncExitStack:  # pyright: ignore[reportIncompatibleVariableOverride]
        stack = self.__dict__.get("_lazy_exit_stack")
        if stack is None:
            stack = self.__dict__["_lazy_exit_stack"] = AsyncExitStack()
        return stack

    @property
    def state(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        state = self.__dict__.get("_lazy_state")
        if state is None:
            state = self.__dict__["_lazy_state"] = dict[str, Any]()
        return cast("dict[str, Any]", state)

    async def aclose(self) -> None:
        """Unwind the exit stack if anybody pushed to it."""
        if "_lazy_exit_stack" in self.__dict__:
            await aclose_shielded(self)


NO_CHANNEL = Connection.from_envelope("2026-07-28", None, None).outbound
"""The SDK's outbound for a client that cannot be pushed to."""

_ENVELOPES_LIMIT = 1024
_envelopes: OrderedDict[bytes, Connection] = OrderedDict()


def envelope_connection(route: InboundModernRoute) -> SessionConnection:
    """The connection of one modern-era request. What the envelope declares is parsed once for equal clients."""
    spelled = to_json((route.protocol_version, route.client_info, route.client_capabilities))
    parsed = _envelopes.get(spelled)
    if parsed is None:
        parsed = Connection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities)
        if len(spelled) <= _ENVELOPE_MAX_BYTES:
            _envelopes[spelled] = parsed
            if len(_envelopes) > _ENVELOPES_LIMIT:
                _envelopes.popitem(last=False)
    connection = SessionConnection(
        NO_CHANNEL, protocol_version=route.protocol_version, client_params=parsed.client_params
    )
    connection.client_capabilities = parsed.client_capabilities
    return connection


_ENVELOPE_MAX_BYTES = 16 * 1024
_CLIENT_PARAMS_LIMIT = 1024
_client_params: OrderedDict[bytes, InitializeRequestParams] = OrderedDict()


def shared_client_params(packed: bytes) -> InitializeRequestParams:
    """The client parameters that `packed` (JSON) spells; one object for all sessions of equal clients, not to mutate.

    Raises:
        pydantic.ValidationError: `packed` is no `initialize` params.
    """
    params = _client_params.get(packed)
    if params is None:
        params = InitializeRequestParams.model_validate_json(packed)
        _client_params[packed] = params
        if len(_client_params) > _CLIENT_PARAMS_LIMIT:
            _client_params.popitem(last=False)
    else:
        _client_params.move_to_end(packed)
    return params
