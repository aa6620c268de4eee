"""What a session actor is sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mcp.shared.inbound import InboundModernRoute
from mcp_types import RequestId

from ..foreign_errors import ends_the_task
from .errors import HandlerExit, LimitExceeded, RequestCancelled
from .exchange import Exchange
from .state import EMPTY_STATE
from .state_update import StateUpdate
from .tenant import TenantContext

if TYPE_CHECKING:
    from starlette.requests import Request

    from ..envelope import Envelope
    from .limiting import Allowance
    from .session_actor import SessionActor
    from .surface import Surface

__all__ = ["MOVED", "Authorize", "Call", "Merge", "Notice", "OpenHandle", "Tell", "Update", "Wake"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOVED: Final[dict[str, Any]] = {}
"""The result of a call's turn that handed the call on to another turn, whose outcome is the call's."""


@dataclass(slots=True, eq=False)
class Call:
    """A JSON-RPC request of the client, and the `Reply` of its own turn: the outcome goes to its exchange."""

    id: RequestId
    method: str
    params: dict[str, Any] | None
    tenant: TenantContext
    exchange: Exchange
    request: Request | None = None
    """The HTTP request it came in, for handlers that ask for headers."""
    route: InboundModernRoute | None = None
    """The envelope of a 2026-07-28 request; None in the handshake era."""
    resumable: bool = False
    """The client can come back to its stream, so a handler may close it early."""
    envelope: Envelope | None = None
    """What carries it, while it waits."""
    task: asyncio.Task[Any] | None = None
    """What runs its handler, while that runs."""
    cancelled: bool = False
    actor: SessionActor | None = None
    """Who counts it as in flight."""
    surface: Surface | None = None
    """What its credential sees; None where everybody sees everything."""
    unheard: frozenset[str] = frozenset()
    """Resources that it asks to hear of, and is not to."""
    audit: Callable[[Call, dict[str, Any] | None], None] | None = None
    """Told once of the outcome, which the exchange has by then, and of the result if there is one."""
    over: LimitExceeded | None = None
    """The limit that it was refused by, if it was."""
    allowance: Allowance | None = None
    """What its tenant and its session may use; None where that has no limits."""
    release: Callable[[Call], None] | None = None
    """Called once when the call has its outcome: it is in flight no more."""
    encoded: tuple[dict[str, Any], bytes] | None = None
    """A result of its handler's, and that as JSON: if it comes to be the outcome, it need not be encoded again."""

    def resolve(self, result: Any) -> None:
        """`Reply`: the turn is over and what it changed is saved."""
        if result is MOVED:
            return
        if self.actor is not None:
            self.actor.forget(self)
        encoded, self.encoded = self.encoded, None
        if encoded is not None and encoded[0] is result:
            self.exchange.resolve(result, encoded[1])
        else:
            self.exchange.resolve(result)
        self._ended(result)

    def fail(self, error: BaseException) -> None:
        """`Reply`: there was no turn, or it changed nothing."""
        if self.actor is not None:
            self.actor.forget(self)
        if isinstance(error, LimitExceeded):
            self.over = error
        self.exchange.fail(error)
        self._ended(None)

    def _ended(self, result: dict[str, Any] | None) -> None:
        # The two hold each other: without this every call is left to the garbage collector, which halts everybody.
        self.envelope = None
        self.let_go()
        if self.audit is not None:
            audit, self.audit = self.audit, None
            audit(self, result)

    def let_go(self) -> None:
        """It is in flight no more."""
        if self.release is not None:
            release, self.release = self.release, None
            release(self)

    async def run(self, handler: Awaitable[T]) -> T:
        """Run its handler, or a part of it, in the present task, so that `cancel` reaches it.

        Raises:
            RequestCancelled: `cancel` was called before the handler was done.
            HandlerExit: The handler raised `SystemExit` or the like.
            Whatever else the handler raises.
        """
        # A cancel scope of anyio's would do the same for 2.6 us a call; the task is this call's alone.
        task = self.task = asyncio.current_task()
        assert task is not None
        try:
            result = await handler
        except asyncio.CancelledError:
            if not self.cancelled:
                raise
            task.uncancel()
            raise RequestCancelled from None
        except Exception:
            raise
        except BaseException as error:
            if ends_the_task(error):
                raise
            # SystemExit would end the node, and with it everybody's sessions.
            logger.exception("the handler of %s tried to end the process", self.method)
            raise HandlerExit(error) from error
        finally:
            self.task = None
        if self.cancelled:
            task.uncancel()
            raise RequestCancelled
        return result

    def cancel(self) -> None:
        """Stop it, wherever it is: waiting, running, or over. Its outcome is `RequestCancelled`."""
        if self.cancelled:
            return
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()
        elif self.envelope is not None:
            self.envelope.cancel()


@dataclass(slots=True, eq=False)
class Notice:
    """A JSON-RPC notification of the client."""

    method: str
    params: dict[str, Any] | None
    tenant: TenantContext
    request: Request | None = None


@dataclass(slots=True, eq=False)
class Merge:
    """Put what an interleaved turn changed into the state. Both are packed states; the turn's result is None."""

    before: bytes
    after: bytes
    allowance: Allowance | None = None
    """What the state is held to."""


@dataclass(slots=True, eq=False)
class OpenHandle:
    """Open this session as a state handle. The turn's result is None; the session exists once it is saved."""

    tenant: TenantContext
    protocol_version: str
    state: bytes = EMPTY_STATE
    """What it starts with, packed."""


@dataclass(slots=True, eq=False)
class Authorize:
    """Ask whether the session answers to this principal. The turn raises `ForeignSession` if not."""

    tenant: TenantContext
    by_handle: bool = False
    """Asked in the modern era; otherwise a session that was opened by no handshake counts as unknown."""


@dataclass(slots=True, eq=False)
class Tell:
    """Send the client a notification outside of any call. The turn's result is None; by then it is on the stream."""

    method: str
    params: dict[str, Any] | None
    """As `checked_notification` gives them."""
    tenant: str | None = None
    """Whose session it must be. None: anybody's."""


@dataclass(slots=True, eq=False)
class Update:
    """Change the state from outside of any call. The turn's result is the session's snapshot as it is then."""

    update: StateUpdate
    tenant: str | None = None
    """As in `Tell`."""


@dataclass(slots=True, eq=False)
class Wake:
    """Be in memory, and count this as a use. The turn's result is None."""

    tenant: str | None = None
    """As in `Tell`."""
