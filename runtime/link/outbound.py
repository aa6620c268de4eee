"""`OutboundCall`: the driver of one forwarded call at the end that forwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from .channel import CallerChannel
from .errors import NotRun
from .frames import Cancel, Start
from .head import CallHead
from .wakeup import Wakeup

if TYPE_CHECKING:
    from .path import Path

__all__ = ["OutboundCall", "Send"]

NEGLIGIBLE: Final = 0.001
"""Seconds of a budget that are not worth a new head."""

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class OutboundCall:
    """Belongs to the task that called `Link.forward`; frames reach it through `channel` and `wakeup`."""

    __slots__ = ("_path", "awaiting", "channel", "wakeup")

    def __init__(self, path: Path, channel: CallerChannel) -> None:
        self._path = path
        self.channel = channel
        self.wakeup = Wakeup()
        self.awaiting = True
        """Whether nothing of the response has come, so that a silent peer is asked whether it lives."""

    async def run(self, head: CallHead, send: Send, began: float) -> None:
        """Send the request and play the response into `send`. `began`: when the call's budget began to count.

        Raises:
            LinkError: As `Link.forward` does.
        """
        path, channel = self._path, self.channel
        now = path.now()
        if not path.is_fresh(now):
            await self._knock()
            now = path.now()
        while not channel.request_sent:
            if not path.session.has_room:
                await self._wait_for_room()
                now = path.now()
                continue
            if head.budget is not None and not channel.begun and now - began > NEGLIGIBLE:
                head = self._spend(head, head.budget, now - began)
            frame = channel.next_request(head, path.part_size)
            if frame is None:
                await self._wait()
            else:
                path.send(frame, last=not frame.more)
        await self._play(send)

    async def _knock(self) -> None:
        """Until the peer is heard: a peer that hangs must not swallow the call."""
        path = self._path
        path.knocking[self.wakeup] = None
        try:
            while not path.is_fresh(now := path.now()):
                path.knock(now)
                await self._wait()
        finally:
            path.knocking.pop(self.wakeup, None)

    async def _play(self, send: Send) -> None:
        channel = self.channel
        inbox = channel.inbox
        while True:
            while not inbox:
                await self._wait()
            frame = inbox.popleft()
            if isinstance(frame, Start):
                await send({"type": "http.response.start", "status": frame.status, "headers": frame.headers})
                if frame.more and not frame.part:
                    continue
            await send({"type": "http.response.body", "body": frame.part, "more_body": frame.more})
            if not frame.more:
                return
            grant = channel.consumed(len(frame.part))
            if grant is not None and not channel.ended:
                self._path.send(grant)

    def leave(self) -> None:
        """The caller is done with this call, however it ended. If the peer does not know yet, it is told."""
        path, channel = self._path, self.channel
        if channel.ended:
            return
        channel.ended = True
        path.forget(self)
        if channel.begun and not path.session.drop(channel.id):
            path.send(Cancel(channel.id))
        path.offer_room()

    def _spend(self, head: CallHead, budget: float, waited: float) -> CallHead:
        if waited >= budget:
            raise NotRun(self._path.peer, "deadline", {})
        return head._replace(budget=budget - waited)

    async def _wait(self) -> None:
        """Until something has changed.

        Raises:
            LinkError: What has changed is that the call has failed.
        """
        channel = self.channel
        if channel.error is None:
            await self.wakeup
        if channel.error is not None and not channel.inbox:
            raise channel.error

    async def _wait_for_room(self) -> None:
        waiting = self._path.room_wanted
        waiting[self.wakeup] = None
        try:
            await self._wait()
        finally:
            waiting.pop(self.wakeup, None)
