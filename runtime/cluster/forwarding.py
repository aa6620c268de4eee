"""`Forwarding`: sends a request to another node, and tells what came of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol

from ...actors.session.servers import Servers
from ...stores import Address
from ..link import CallFailed, CallHead, LinkClosed, NotRun, PeerGone, Unsendable
from ..link.head import MAX_HOPS
from ..telemetry.trace import TRACE
from ..wire.http import Send
from ..wire.inbound import Inbound
from ..wire.refusals import Refused
from .client_watch import ClientWatch
from .counts import Counts
from .denials import FAILED, TOO_LARGE, UNSENDABLE
from .entry import Entry, is_incarnation
from .keep_alive import KeepAlive
from .repeatable import Sort, sort_of
from .response import Interrupted, Response
from .steps import Answered, Event, NotRunThere, PathBroken

__all__ = ["ELSEWHERE", "Forwarding", "ForwardingLink"]

logger = logging.getLogger("understudy.cluster")

ELSEWHERE: Final = "elsewhere"
"""Why a node gives a request back that it has not run."""
_INTERRUPTED: Final = frozenset(("closing", "cancelled"))
"""Why a link ends calls that its node might as well have answered."""
_INCOMPLETE: Final = "incomplete"
"""Why a link ends a call whose handler stopped in the middle without a fault: nobody took what it wrote."""


class ForwardingLink(Protocol):
    """What is needed of `Link`."""

    async def forward(self, peer: str, head: CallHead, body: bytes, send: Send) -> None: ...


class Forwarding:
    """The edge's end of the link."""

    def __init__(self, *, servers: Servers, keep_alive: KeepAlive, client_watch: ClientWatch, counts: Counts) -> None:
        self._servers = servers
        self._keep_alive = keep_alive
        self._client_watch = client_watch
        self._counts = counts
        self.link: ForwardingLink

    async def forward(
        self,
        inbound: Inbound,
        address: Address | None,
        to: str,
        response: Response,
        *,
        purpose: str = "",
        hops: int = 1,
        again: bool = False,
    ) -> Event:
        """Have `to` answer `inbound` into `response`; an `Answered`, a `NotRunThere` or a `PathBroken`.

        `again`: an earlier try may have run.

        `Answered` too if the client has left. A stream that has begun and goes on stays watched by the keep-alive: it
        is for the caller to end that.

        Raises:
            Refused: The request cannot be sent, or would only fail again.
            Interrupted: The answer broke off where nothing can be sent to mend it.
        """
        counts = self._counts
        counts.forwards += 1
        logger.debug("%s is forwarded to node %s", address or "a request", to)
        head = _head(inbound, address, purpose, hops, again)
        send = self._keep_alive.watch(response)
        goes_on = False
        try:
            await self._client_watch.during(inbound.receive, self.link.forward(to, head, inbound.body, send))
        except NotRun as refused:
            if refused.reason == "too_large":
                raise Refused(TOO_LARGE) from refused
            response.next_attempt()
            goes_on = response.stream
            return NotRunThere(_hint(refused.data), full=refused.reason == "full")
        except Unsendable as error:
            logger.warning("a call cannot be forwarded: %s", error)
            raise Refused(UNSENDABLE) from error
        except LinkClosed:
            response.next_attempt()
            goes_on = response.stream
            return PathBroken(maybe_ran=False, dead=False)
        except PeerGone as gone:
            counts.paths_broken += 1
            response.next_attempt()
            sort = await sort_of(inbound, self._servers) if gone.maybe_ran else Sort(True)
            goes_on = response.stream
            return PathBroken(gone.maybe_ran, sort.repeatable)
        except CallFailed as failed:
            response.next_attempt()
            if failed.reason == ELSEWHERE:
                goes_on = response.stream
                return NotRunThere()
            if failed.reason == _INCOMPLETE and response.last_id is not None:
                # To go on at once would be to wait for the same reader again.
                raise Interrupted("a client takes too little of its stream") from failed
            logger.warning("node %s could not answer a call: %s", to, failed)
            sort = await sort_of(inbound, self._servers)
            if sort.repeatable and failed.reason not in _INTERRUPTED:
                # It would only fail again.
                raise Refused(FAILED, sort.request_id) from failed
            goes_on = response.stream
            return PathBroken(True, sort.repeatable, dead=False)
        finally:
            if not goes_on:
                self._keep_alive.leave(response)
        return Answered()


def _hint(data: Mapping[str, Any]) -> Entry | None:
    match data:
        case {"owner": str(owner), "epoch": int(epoch), "revision": int(revision)} if is_incarnation(owner):
            return Entry(owner, epoch, revision)
        case _:
            return None


def _head(inbound: Inbound, address: Address | None, purpose: str, hops: int, again: bool) -> CallHead:
    scope = inbound.scope
    tenant = inbound.tenant
    return CallHead(
        method=scope["method"],
        path=scope["path"],
        query=scope.get("query_string", b""),
        headers=list(scope["headers"]),
        scheme=scope.get("scheme", "http"),
        client=scope.get("client"),
        server=scope.get("server"),
        http_version=scope.get("http_version", "1.1"),
        root_path=scope.get("root_path", ""),
        tenant=tenant,
        address=address,
        purpose=purpose or inbound.purpose,
        hops=min(hops, MAX_HOPS - 1),
        budget=None,
        trace=TRACE.get(),
        again=again,
    )
