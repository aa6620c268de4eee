"""`SessionAsking`: how `SessionProvider` gets its answers: from the node that owns a session, or from the store."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast

from ...actors.errors import ActorUnavailable
from ...actors.session import SESSION, LimitExceeded, SessionSnapshot, StateConflict, StateError, TenantContext
from ...actors.session.wire import NOT_FOUND
from ...stores import Address, Page, Record, StoreUnavailable, UnderstudyError
from ..errors import ConfigurationError, NotStarted
from .host_calls import HostReply
from .session_errands import CONFLICT, END, OPEN, UNFIT, UPDATE, WAKE
from .session_errors import OutcomeUnknown, SessionNotFound, SessionUnavailable, session_address

if TYPE_CHECKING:
    from ..node import Node

__all__ = ["FIRST_PAUSE", "SessionAsking", "checked_timeout"]

LONGEST: Final = 600.0
FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.25
_DONE: Final = {WAKE: "is awake", UPDATE: "was changed", END: "was ended"}


class SessionAsking:
    """`timeout` is in seconds, `LONGEST` at most; a `tenant` that is given must be the session's."""

    def __init__(self, node: Callable[[], Node | None], store_timeout: float) -> None:
        """`node`: the running one; None while there is none."""
        self._running = node
        self._store_timeout = store_timeout
        self._random = Random()

    # The owner

    async def patient(
        self, id: str, method: str, params: dict[str, Any], tenant: str | None, timeout: float
    ) -> dict[str, Any]:
        """`ask`, for what may be asked twice: again, where the answer was lost."""
        until = time.monotonic() + checked_timeout(timeout)
        pause = FIRST_PAUSE * 4
        doubt: OutcomeUnknown | None = None
        while True:
            try:
                return await self.ask(id, method, params, tenant, max(until - time.monotonic(), 0.1))
            except OutcomeUnknown as unknown:
                doubt = unknown
            except SessionNotFound:
                if method == END and doubt is not None:
                    # The try whose answer was lost has ended it.
                    return {"ended": True}
                raise
            if until - time.monotonic() <= pause:
                raise doubt
            pause = await self.rest(pause)

    async def ask(
        self, id: str, method: str, params: dict[str, Any], tenant: str | None, timeout: float
    ) -> dict[str, Any]:
        """Have the owner do `method`, one of `session_errands`; its result. Raises as `SessionProvider` says of what it
        is for.
        """
        address = session_address(SESSION, id)
        params = {"session": id, "tenant": tenant, "timeout": _owners_part(timeout), **params}
        reply = await self._node.session_calls.ask(address, method, params, timeout=timeout)
        if reply.error is None:
            return reply.result
        raise _failure(address, reply, _DONE[method])

    async def ask_for_new(self, packed_state: bytes, tenant: TenantContext, timeout: float) -> str:
        """Have a session opened, by whichever node has room; its id."""
        params = {"state": b64encode(packed_state).decode(), "timeout": _owners_part(timeout)}
        reply = await self._node.session_calls.ask(None, OPEN, params, timeout=timeout, tenant=tenant)
        if reply.error is None:
            return reply.result["session"]
        raise _failure(Address(SESSION, "new"), reply, "was opened")

    async def rest(self, pause: float) -> float:
        """Wait for about `pause` seconds, so that those who failed together do not come again together; how long the
        next pause should be.
        """
        await asyncio.sleep(pause * (0.5 + self._random.random()))
        return min(pause * 2, _LONGEST_PAUSE)

    # The store

    async def load(self, id: str, tenant: str | None) -> tuple[Record, SessionSnapshot]:
        """The session as last saved.

        Raises:
            SessionNotFound, SessionUnavailable, NotStarted: As `record`.
            SnapshotError: What is stored cannot be read.
        """
        record = await self.record(id, tenant)
        return record, SessionSnapshot.unpack(record.snapshot)

    async def record(self, id: str, tenant: str | None) -> Record:
        """
        Raises:
            SessionNotFound: There is no such session.
            SessionUnavailable: The store cannot be reached.
            NotStarted: The runtime is not running.
        """
        node = self._node
        address = session_address(SESSION, id)
        try:
            record = await node.registry.peek(address)
        except ActorUnavailable as error:
            text = f"{address} cannot be looked at now: {error.__cause__ or error}"
            raise SessionUnavailable(text, address, retry_after=error.retry_after) from error
        if record is None or tenant not in (None, record.tenant):
            raise SessionNotFound(address)
        return record

    async def page(self, tenant: str | None, limit: int, cursor: str | None) -> Page:
        """
        Raises:
            ConfigurationError: `cursor` is from nowhere.
            StoreUnavailable: The store cannot be reached.
            NotStarted: The runtime is not running.
        """
        node = self._node
        timeout = self._store_timeout
        try:
            async with asyncio.timeout(timeout):
                return await node.store.list(tenant=tenant, cursor=cursor, limit=limit)
        except TimeoutError:
            raise StoreUnavailable(f"the store did not answer within {timeout:g} s", outcome_unknown=False) from None
        except ValueError as error:
            raise ConfigurationError(f"sessions cannot be listed so: {error}") from error

    @property
    def _node(self) -> Node:
        node = self._running()
        if node is None:
            raise NotStarted
        return node


def checked_timeout(timeout: float) -> float:
    """
    Raises:
        ConfigurationError: It is no time that anybody waits for.
    """
    if not isinstance(cast("object", timeout), int | float) or not 0 < timeout <= LONGEST:
        raise ConfigurationError(f"timeout is {timeout!r:.80}; it must be above 0 and at most {LONGEST:g} seconds")
    return timeout


def _owners_part(timeout: float) -> float:
    """Of the caller's time: the rest is for the way."""
    return max(checked_timeout(timeout) - 2.0, timeout / 2)


def _failure(address: Address, reply: HostReply, done: str) -> UnderstudyError:
    text = reply.error or ""
    data: dict[str, Any] = reply.data or {}
    if reply.status == NOT_FOUND.status:
        return SessionNotFound(address)
    if reply.status == CONFLICT:
        return StateConflict(text, tuple(data.get("keys", ())))
    if reply.status == UNFIT:
        return StateError(text)
    if "limit" in data:
        return LimitExceeded(text, limit=data["limit"], retry_after=reply.retry_after, unchecked=reply.status == 503)
    wait = reply.retry_after or 1.0
    if reply.in_doubt:
        return OutcomeUnknown(f"{address}: whether it {done} is not known: {text}", address, retry_after=wait)
    return SessionUnavailable(f"{address}: it cannot be reached now: {text}", address, retry_after=wait)
