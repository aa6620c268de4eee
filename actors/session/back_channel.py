"""`BackChannel`: a session's questions to its client (elicitation, sampling, roots) and their answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mcp.shared.dispatcher import CallOptions, ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT, ErrorData

from .errors import SessionError

if TYPE_CHECKING:
    from .exchange import Exchange

__all__ = ["BackChannel"]

logger = logging.getLogger(__name__)

MAX_PENDING = 256
_LOST = "its node has lost the session, and the answer would go to another; look before the call is repeated"


class _CutOff(Exception):
    """Answers go elsewhere."""


class BackChannel:
    """Questions that wait for their answers.

    An answer arrives as a POST of its own, at any node, and is matched by the question's id. Ids carry the epoch, so
    that an answer to a question of an earlier life of the session finds nobody.
    """

    __slots__ = ("_asked", "_cut_off", "_patience", "_pending", "_prefix")

    def __init__(self, prefix: str, patience: float) -> None:
        """`patience`: seconds to wait for an answer where the asker sets no timeout of its own."""
        self._prefix = prefix
        self._patience = patience
        self._asked = 0
        self._cut_off = False
        self._pending: dict[str, tuple[asyncio.Future[dict[str, Any]], ProgressFnT | None]] = {}

    async def ask(
        self, exchange: Exchange, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None
    ) -> dict[str, Any]:
        """Send a request to the client on `exchange` and wait for its result.

        Cancellation, a timeout and `cut_off` withdraw the question (`notifications/cancelled`).

        Raises:
            MCPError: The client's own error, REQUEST_TIMEOUT, or CONNECTION_CLOSED after `cut_off`.
            SessionError: 256 questions wait already.
        """
        if len(self._pending) >= MAX_PENDING:
            raise SessionError(f"{MAX_PENDING} requests to this client wait for an answer; wait for some of them first")
        if self._cut_off:
            raise _lost(method)
        options: CallOptions = opts or {}
        self._asked += 1
        question = f"{self._prefix}{self._asked}"
        on_progress = options.get("on_progress")
        body = dict(params) if params is not None else {}
        if on_progress is not None:
            body["_meta"] = {**(body.get("_meta") or {}), "progressToken": question}
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": question, "method": method}
        if body:
            message["params"] = body
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[question] = (answer, on_progress)
        patience = options.get("timeout", self._patience)
        try:
            exchange.send(message)
            async with asyncio.timeout(patience):
                return await answer
        except TimeoutError:
            self._withdraw(exchange, question, f"no answer within {patience} s", options)
            raise MCPError(code=REQUEST_TIMEOUT, message=f"Request {method!r} timed out") from None
        except _CutOff:
            self._withdraw(exchange, question, _LOST, options)
            raise _lost(method) from None
        except asyncio.CancelledError:
            self._withdraw(exchange, question, "the request it belonged to was cancelled", options)
            raise
        finally:
            del self._pending[question]

    def _withdraw(self, exchange: Exchange, question: str, reason: str, options: CallOptions) -> None:
        if options.get("cancel_on_abandon", True):
            exchange.send(
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/cancelled",
                    "params": {"requestId": question, "reason": reason},
                }
            )

    def answer(self, question: object, result: dict[str, Any] | None, error: ErrorData | None) -> bool:
        """Give an answer to whoever waits for it; False if nobody does (late, unknown, answered twice)."""
        pending = self._pending.get(question) if isinstance(question, str) else None
        if pending is None or pending[0].done():
            logger.debug("an answer to %.64r finds nobody waiting", question)
            return False
        if error is not None:
            pending[0].set_exception(MCPError(code=error.code, message=error.message, data=error.data))
        else:
            pending[0].set_result(result if result is not None else {})
        return True

    def cut_off(self) -> None:
        """This node has lost the session: no answer will come here. Who waits for one, or asks from now on, is told."""
        self._cut_off = True
        for answer, _ in self._pending.values():
            if not answer.done():
                answer.set_exception(_CutOff())

    async def note_progress(self, params: Mapping[str, Any]) -> None:
        """Tell whoever asked, and wants to hear of it, of the client's progress. Raises what its callback raises."""
        token, progress, total, message = (params.get(key) for key in ("progressToken", "progress", "total", "message"))
        pending = self._pending.get(token) if isinstance(token, str) else None
        callback = pending[1] if pending is not None else None
        if callback is None or not isinstance(progress, int | float) or isinstance(progress, bool):
            return
        await callback(
            float(progress),
            float(total) if isinstance(total, int | float) else None,
            message if isinstance(message, str) else None,
        )

    @property
    def waiting(self) -> int:
        return len(self._pending)


def _lost(method: str) -> MCPError:
    return MCPError(CONNECTION_CLOSED, f"Request {method!r} is withdrawn: {_LOST}", {"outcome": "unknown"})
