"""`Serving`: the calls of peers that run here, and what bounds them. Owns their tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ...actors.at_once import begin_at_once
from ..fairness.shares import Shares
from .counters import LinkCounters
from .inbound import InboundCall

__all__ = ["Serving"]

logger = logging.getLogger(__name__)

MAX_ASSEMBLING: Final = 256 * 1024 * 1024
"""Bytes of request bodies that are not complete, of all peers; a call beyond them is refused as busy."""


class Serving:
    """Runs the handler on each call, in a task of its own. Its owner calls `close`."""

    def __init__(
        self,
        handler: Callable[[InboundCall], Awaitable[None]],
        counters: LinkCounters,
        *,
        max_calls: int,
        fair: bool,
    ) -> None:
        self._handler = handler
        self._counters = counters
        self._shares = Shares(max_calls, fair=fair)
        self._waiting: dict[InboundCall, asyncio.Task[None]] = {}
        """Calls whose handlers did not come to their ends at once."""
        self._closing = False
        self.assembling = 0
        """Bytes of request bodies that are not complete."""

    def __len__(self) -> int:
        return self._shares.taken

    def refusal(self, tenant: str) -> str | None:
        """Why no call of `tenant` that a peer forwards can be taken now; None if it can."""
        if self._closing:
            return "closing"
        return "busy" if self._shares.full(tenant) is not None else None

    def assemble(self, size: int) -> bool:
        """Count `size` more (or less) bytes of unfinished request bodies; if there is no room for them, False."""
        if size > 0 and self.assembling + size > MAX_ASSEMBLING:
            return False
        self.assembling += size
        return True

    def serve(self, call: InboundCall) -> None:
        """Run the handler on `call`: as far as it comes without waiting, before this returns."""
        self._counters.served += 1
        self._shares.take(call.head.tenant.tenant)
        task = begin_at_once(self._run(call))
        if not task.done():
            self._waiting[call] = task

    async def finish(self) -> None:
        """Until the calls that run now have ended, whatever comes meanwhile."""
        waiting = list(self._waiting.values())
        if waiting:
            await asyncio.wait(waiting)

    async def close(self) -> None:
        """Take no call any more, and cancel those that run. Returns when they have ended."""
        self._closing = True
        waiting = list(self._waiting.values())
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting)
        for call in list(self._waiting):
            # Cancelled before it began, where the loop makes tasks of its own.
            self._give_up(call, "closing")
            self._over(call)

    async def _run(self, call: InboundCall) -> None:
        try:
            await self._handler(call)
            if not call.over:
                logger.error("the handler of a call from %s ended without a complete response", call.peer)
                self._give_up(call, "incomplete")
        except asyncio.CancelledError:
            self._give_up(call, "closing" if self._closing else "cancelled")
            raise
        except Exception:
            logger.exception("the handler of a call from %s failed", call.peer)
            self._give_up(call, "error")
        finally:
            self._over(call)

    def _over(self, call: InboundCall) -> None:
        self._shares.give_back(call.head.tenant.tenant)
        self._waiting.pop(call, None)

    def _give_up(self, call: InboundCall, reason: str) -> None:
        if not call.over:
            self._counters.given_up += 1
            call.give_up(reason)
