"""`NatsClient`: nats-py's client, with what its reconnection lacks.

nats-py 2.16 gives up for good when a server says a word that it does not know, waits for ever for a connection
that takes no bytes, and lets calls that were under way when the connection broke run into their timeouts. Each override
says which of these it mends.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# nats-py does not say what its futures and tasks hold.

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from itertools import count
from typing import Any

from nats import errors
from nats.aio.client import Client, Server
from nats.aio.msg import Msg
from nats.protocol.parser import AWAITING_CONTROL_LINE

from .short_cut import ShortCut

__all__ = ["NatsClient", "RequestForbiddenError", "RequestInterruptedError"]

FIRST_WAIT = 0.1
LONGEST_WAIT = 2.0

_FORBIDDEN = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"')


class RequestInterruptedError(errors.ConnectionReconnectingError):
    """The connection broke after the request had left: whether it arrived is not known."""


class RequestForbiddenError(errors.Error):
    """The server does not let this user ask for that, or hear the answer: nothing was done."""


class NatsClient(Client):
    """A connection that is made anew, for ever, whenever it breaks.

    * While it is cut off, a publish or request raises `ConnectionReconnectingError` at once: nothing is kept to be
      sent later, when nobody waits for it any more.
    * A request that is under way when the connection breaks raises `RequestInterruptedError` at once, and one that the
      server does not permit `RequestForbiddenError`.
    * A server that stops answering is given up after `ping_interval * (max_outstanding_pings + 1)` seconds.

    Args:
        needs_tls: Refuse a server without TLS before anything secret is sent.
    """

    def __init__(self, *, needs_tls: bool = False) -> None:
        super().__init__()
        self._needs_tls = needs_tls
        self._attempts = 0
        self._tokens = count()
        self._asked: dict[str, str] = {}
        """The subject of each request that is under way, by its token."""
        self.short_cut = ShortCut(self.stats)
        """For subscriptions whose messages are handed over where they are read. That saves a small message two turns of
        the event loop: nats-py's reader and its queue are tasks of their own. What comes behind others, in parts or
        with headers goes the usual way.
        """

    @property
    def server_info(self) -> dict[str, Any]:
        """What the server said of itself when it was last connected to."""
        return self._server_info

    @property
    def public_nkey(self) -> str | None:
        """The public key that goes with `signature_cb`."""
        return self._public_nkey

    @public_nkey.setter
    def public_nkey(self, key: str) -> None:
        self._public_nkey = key

    def next_server(self, servers: list[Server], info: dict[str, Any]) -> tuple[Server, float]:
        """nats-py's `reconnect_to_server_handler`: all servers in turn, with a wait that doubles from round to round.

        The jitter keeps the nodes of a cluster from coming back all in the same moment.
        """
        # An attempt that failed half way leaves its socket and its tasks, which would read the next connection too.
        self._let_go()
        round_, place = divmod(self._attempts, len(servers))
        self._attempts += 1
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(round_, 10))
        return servers[place], 0.0 if self._attempts == 1 else wait * random.uniform(0.5, 1.0)

    def abort(self) -> None:
        """Drop the connection without a word; unless the client is closed, it is made anew."""
        transport: Any = self._transport
        writer = None if transport is None else getattr(transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def shut(self, timeout: float) -> None:
        """Send what was published, then close for good. Takes at most `timeout` seconds, answer or not."""
        try:
            async with asyncio.timeout(timeout / 2):
                if self.is_connected:
                    await self.flush()
        except (OSError, errors.Error, TimeoutError):
            pass
        finally:
            # What is still unsent has had its time; a socket that takes no bytes would keep `close` waiting.
            self._forget_unsent()
            self.abort()
            async with asyncio.timeout(timeout / 2):
                await super().close()
            self._fail_requests()

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """See `Client.publish`. Not while cut off: what nats-py would keep and send later, nobody would expect."""
        if not self.is_connected:
            raise errors.ConnectionClosedError if self.is_closed else errors.ConnectionReconnectingError
        await super().publish(subject, payload, reply, headers)

    def publish_at_once(self, messages: Sequence[tuple[str, bytes, str]]) -> bool:
        """Publish all of `messages` (subject, payload, reply subject) in one write, without the turn of the event loop
        that lets others add to it. False, and nothing done, if the socket is not free for that.
        """
        writer: Any = None if self._transport is None else getattr(self._transport, "_io_writer", None)
        if writer is None or self._pending or not self.is_connected:
            return False
        socket = writer.transport
        if socket.is_closing() or socket.get_write_buffer_size():
            return False
        written: list[bytes] = []
        size = 0
        for subject, payload, reply in messages:
            if len(payload) > self._max_payload:
                return False
            size += len(payload)
            written.append(b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(payload), payload))
        socket.write(written[0] if len(written) == 1 else b"".join(written))
        self.stats["out_msgs"] += len(written)
        self.stats["out_bytes"] += size
        return True

    async def _request_new_style(
        self, subject: str, payload: bytes, timeout: float = 1, headers: dict[str, Any] | None = None
    ) -> Msg:
        # nats-py's own leaves an entry behind when the publish fails, and waits for that outside of the timeout.
        if not self._resp_sub_prefix:
            if not self.is_connected:
                raise errors.ConnectionClosedError if self.is_closed else errors.ConnectionReconnectingError
            await self._init_request_sub()
        token = f"{next(self._tokens):x}"
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._resp_map[token] = answer
        self._asked[token] = subject
        try:
            async with asyncio.timeout(timeout):
                await self.publish(subject, payload, f"{bytes(self._resp_sub_prefix or b'').decode()}{token}", headers)
                return await answer
        except TimeoutError as error:
            raise errors.TimeoutError from error
        finally:
            self._resp_map.pop(token, None)
            self._asked.pop(token, None)

    def _fail_requests(self) -> None:
        for answer in list(self._resp_map.values()):
            if not answer.done():
                answer.set_exception(RequestInterruptedError())
                answer.exception()  # Whoever was cancelled in the meantime will not ask.

    def _forbid_requests(self, complaint: str) -> None:
        # The server says so on the connection and not to the request, which would run into its timeout. nats-py has
        # made what it said lower case.
        found = _FORBIDDEN.search(complaint)
        if found is None:
            return
        kind, subject = found.groups()
        inbox = bytes(self._resp_sub_prefix or b"").decode().lower()
        if kind == "publish":
            tokens = [token for token, asked in self._asked.items() if asked.lower() == subject]
            if len({self._asked[token] for token in tokens}) > 1:
                return
        elif inbox and subject.startswith(inbox):
            tokens = list(self._asked)
        else:
            return
        for token in tokens:
            answer = self._resp_map.get(token)
            if answer is not None and not answer.done():
                answer.set_exception(RequestForbiddenError(complaint))
                answer.exception()

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        # nats-py's own swallows the cancellation of its caller.
        flushed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self.is_connected or self._flush_queue is None:
            flushed.set_result(None)
            return flushed
        await self._flush_queue.put(flushed)
        if force_flush:
            if not self.is_connected:
                raise errors.ConnectionReconnectingError
            await flushed
        return flushed

    async def _process_err(self, err_msg: str) -> None:
        # nats-py closes for good on nearly everything that a server may say, such as that the password has changed.
        if "permissions violation" in err_msg:
            self._forbid_requests(err_msg)
            await self._error_cb(errors.Error(f"nats: {err_msg.strip(chr(39))}"))
            return
        error = errors.Error(f"nats: {err_msg.strip(chr(39))}")
        await self._error_cb(error)
        await self._process_op_err(error)

    async def _process_op_err(self, e: Exception) -> None:
        if self.is_closed or self.is_reconnecting:
            return
        # A transport that is closed rather than aborted waits for its peer to take what was written, perhaps for ever.
        self.abort()
        self._forget_unsent()
        self._attempts = 0
        await super()._process_op_err(e)
        self._fail_requests()

    async def _attempt_reconnect(self) -> None:
        # An exception that nats-py does not expect here ends its task, and with it all reconnecting.
        while not self.is_closed:
            try:
                await super()._attempt_reconnect()
            except Exception as error:
                await self._error_cb(error)
                await asyncio.sleep(LONGEST_WAIT)
                continue
            return

    async def _process_connect_init(self) -> None:
        await super()._process_connect_init()
        if self.is_connecting:
            # The server hung up in place of its PONG; nats-py takes that for a connection.
            self._let_go()
            raise errors.UnexpectedEOF

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and self._needs_tls:
            if info.get("tls_available"):
                info["tls_required"] = True
            if not info.get("tls_required"):
                raise errors.SecureConnWantedError
        await super()._process_info(info, initial_connection)

    async def _process_pong(self) -> None:
        # A flush that has timed out leaves a future that nats-py would set, and die of it.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _ping_interval(self) -> None:
        # nats-py's own stands in the queue of those who write, and so never notices a connection that takes nothing.
        while True:
            await asyncio.sleep(self.options["ping_interval"])
            if not self.is_connected or self._transport is None:
                continue
            self._pings_outstanding += 1
            if self._pings_outstanding > self.options["max_outstanding_pings"]:
                await self._process_op_err(errors.StaleConnectionError())
                return
            self._pongs.append(asyncio.get_running_loop().create_future())
            self._transport.write(b"PING\r\n")

    async def _read_loop(self) -> None:
        # nats-py's own ends at an error that it does not know, and nobody reads any more.
        self._read_at_once()
        await super()._read_loop()
        task = asyncio.current_task()
        if self.is_connected and not (task is not None and task.cancelling()):
            await self._process_op_err(errors.UnexpectedEOF())

    def _read_at_once(self) -> None:
        transport: Any = self._transport
        reader = getattr(transport, "_io_reader", None)
        if reader is None or not hasattr(reader, "_buffer"):
            return
        parser, short_cut, feed = self._ps, self.short_cut, reader.feed_data

        def feed_data(data: bytes) -> None:
            nothing_before = not reader._buffer and not parser.buf and parser.state == AWAITING_CONTROL_LINE
            if nothing_before and self._transport is transport and self.is_connected:
                data = short_cut.read(data)
                if not data:
                    return
            feed(data)

        reader.feed_data = feed_data

    def _let_go(self) -> None:
        self.abort()
        self._forget_unsent()
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def _forget_unsent(self) -> None:
        self._pending.clear()
        self._pending_data_size = 0
        # Those who wait for the socket to take what they have written would wait for the next connection.
        while self._flush_queue is not None and not self._flush_queue.empty():
            flushed = self._flush_queue.get_nowait()
            if not flushed.done():
                flushed.set_exception(RequestInterruptedError())
                flushed.exception()
