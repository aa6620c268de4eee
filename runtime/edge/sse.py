"""Server-sent events: writing one stream to one connection."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ...actors import Elsewhere
from ...actors.session.exchange import Exchange
from ...actors.task_owner import TaskOwner
from ..telemetry.tenant_tally import TALLY
from ..wire.http import SSE_HEADERS, Receive, Send, disconnected
from ..wire.inbound import Inbound
from .replay import Replay
from .stream_timer import StreamTimer

__all__ = ["KEEP_ALIVE", "RETRY_MS", "keep_alive_of", "priming_event", "write_stream"]

logger = logging.getLogger(__name__)

KEEP_ALIVE: Final = 15.0
"""Seconds of silence after which a comment is sent, so that nobody on the way takes the connection for dead."""
POLL_MS: Final = 500
"""How soon a client may come back to a request's stream that was closed early, in milliseconds."""
RETRY_MS: Final = 3000
"""How long a client should wait before it opens a lost standalone stream again: a node that restarts needs a second,
and clients give up after two tries."""

READER_PATIENCE: Final = 60.0
"""Seconds that one write may take. A client that reads nothing for so long is taken for gone."""

_COMMENT: Final = b": keep-alive\n\n"


async def write_stream(
    exchange: Exchange,
    receive: Receive,
    send: Send,
    *,
    after: int = 0,
    numbered: bool,
    keep_alive: float | None,
    prelude: bytes = b"",
    replay: Replay | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
    before_outcome: Callable[[], Awaitable[None]] | None = None,
) -> bool:
    """Send the messages of `exchange` after number `after` until it ends, is taken over, or the client leaves.

    `numbered`: with event ids, so that the client may resume. `keep_alive`: seconds of silence before a comment; None:
    whoever holds the client's connection sees to that. `prelude`: what goes before the first message; `replay`: the
    events between the two.
    `before_outcome` is awaited before the outcome is sent.
    The prelude of a request's stream, and its head with it, wait until the log has the stream, so that its id can be
    come back to anywhere.
    True if the client left, or took nothing for `READER_PATIENCE` seconds. The exchange is detached in any case;
    cancellation detaches it too.

    Raises:
        Elsewhere: The stream is to go on at another node. The response is left open for that.
    """
    generation = exchange.attach(after)
    tally = TALLY.get()
    if tally is not None:
        tally.streams += 1
    start: dict[str, object] = {"type": "http.response.start", "status": 200, "headers": [*SSE_HEADERS, *headers]}
    gone = False

    async def watch() -> None:
        nonlocal gone
        await disconnected(receive)
        gone = True
        exchange.cut_from(generation)

    try:
        if prelude and exchange.request_id is not None:
            await exchange.begun(generation)
        async with StreamTimer(
            send, patience=READER_PATIENCE, silence=keep_alive, on_silence=lambda: exchange.break_silence(generation)
        ) as timer:
            await timer.send(start)
            if prelude:
                await timer.send(_body(prelude))
            async with TaskOwner() as tasks:
                watcher = tasks.spawn(watch())
                try:
                    while replay is not None and generation == exchange.generation and (earlier := replay.portion()):
                        await timer.send(_body(_events(earlier, f"{replay.stream}-")))
                    while (batch := await exchange.next(generation)) is not None:
                        if before_outcome is not None and exchange.finished:
                            await before_outcome()
                            before_outcome = None
                        # The name of a standalone stream may change on the way.
                        prefix = f"{exchange.id}-" if numbered else None
                        await timer.send(_body(_events(batch, prefix) if batch else _COMMENT))
                finally:
                    watcher.cancel()
            if not gone:
                if exchange.elsewhere is not None and generation == exchange.generation:
                    raise Elsewhere(exchange.elsewhere)
                await timer.send({"type": "http.response.body", "body": b"", "more_body": False})
                exchange.delivered = (
                    exchange.finished and generation == exchange.generation and exchange.read == exchange.last
                )
    except TimeoutError:
        # The response stays unfinished, upon which the server closes the connection.
        logger.info("a client took nothing for %g s: its connection is given up", READER_PATIENCE)
        gone = True
    finally:
        exchange.detach(generation)
        if tally is not None:
            tally.streams -= 1
    return gone


def keep_alive_of(inbound: Inbound) -> float | None:
    """How much silence this node may let pass on the connection of `inbound`, in seconds."""
    return None if inbound.remote else KEEP_ALIVE


def priming_event(exchange: Exchange, after: int, *, retry: int = POLL_MS) -> bytes:
    """A first event that only carries an id, so that a client that loses the connection early can resume. `retry`:
    milliseconds after which it should.
    """
    return f"id: {exchange.id}-{after}\nretry: {retry}\ndata: \n\n".encode()


def _events(batch: list[tuple[int, bytes]], prefix: str | None) -> bytes:
    if prefix is None:
        return b"".join([b"event: message\ndata: %b\n\n" % payload for _, payload in batch])
    name = prefix.encode()
    return b"".join([b"id: %b%d\nevent: message\ndata: %b\n\n" % (name, *event) for event in batch])


def _body(body: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": True}
