"""An HTTP client of so few lines that it is never what a benchmark of several nodes measures: about 40 us a call.

It knows what these servers answer and no more: a body with its length, or one in chunks.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Self

from .asgi import Refused, reply_of
from .clients import HANDSHAKE_VERSION, HEADERS, INITIALIZE, INITIALIZED, PreparedCall

__all__ = ["Answer", "HttpConnection", "RemoteSession", "get", "open_session"]

ANSWER_DEADLINE = 120.0
"""Seconds after which an answer is given up: no measurement waits a tenth of it for one that is to come."""
_NO_CHUNKS = b"0\r\n\r\n"
_CHUNKED_END = b"\r\n" + _NO_CHUNKS


class Answer(NamedTuple):
    """One response."""

    status: int
    head: bytes
    """Status line and headers."""
    body: bytes
    """As it came: chunks are not taken apart."""

    def header(self, name: bytes) -> str | None:
        """The first header called `name` (lower case), or None."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.lower() == name:
                return value.strip().decode("latin-1")
        return None

    def reply(self) -> dict[str, Any]:
        """The JSON-RPC reply, whether it came as a body or as the last event of a stream.

        Raises:
            Refused: There is none.
        """
        return reply_of(self.status, self.header(b"content-type"), self.body)


class HttpConnection(asyncio.Protocol):
    """One connection that is kept open; one request at a time. Made anew if the server has closed it unused."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._head: bytes | None = None
        self._length: int | None = None
        self._answer: asyncio.Future[Answer] | None = None

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        """Connect. Raises `OSError` where nobody listens."""
        connection = cls(host, port)
        await connection._connect()
        return connection

    async def _connect(self) -> None:
        self._came, self._head = bytearray(), None
        await asyncio.get_running_loop().create_connection(lambda: self, self._host, self._port)

    async def send(self, request: bytes) -> Answer:
        """One request and its answer.

        Raises:
            Refused: The connection ended first, or no answer came in time.
            OSError: It had been closed before, and nobody listens any more.
        """
        if self._transport is None or self._transport.is_closing():
            await self._connect()
            assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        timer = asyncio.get_running_loop().call_later(ANSWER_DEADLINE, self._give_up)
        try:
            return await self._answer
        finally:
            timer.cancel()
            self._answer = None

    def close(self) -> None:
        """Close it. Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    # `asyncio.Protocol`

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        came = self._came
        came += data
        if self._head is None:
            end = came.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(came[:end])
            del came[: end + 4]
            lower = self._head.lower()
            at = lower.find(b"\r\ncontent-length:")
            self._length = int(lower[at + 17 :].partition(b"\r\n")[0]) if at >= 0 else None
            if at < 0 and b"\r\ntransfer-encoding:" not in lower:
                self._length = 0
        # A long stream comes in many pieces: none but the newest is looked at again.
        if self._length is not None:
            if len(came) < self._length:
                return
        elif not came.endswith(_CHUNKED_END) and not (len(came) == len(_NO_CHUNKS) and came.endswith(_NO_CHUNKS)):
            return
        head, self._head, self._came = self._head, None, bytearray()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(int(head[9:12]), head, bytes(came)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the server closed the connection of a request")

    def _give_up(self) -> None:
        self._fail(f"no answer within {ANSWER_DEADLINE:.0f} s")
        self.close()

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Refused(why))


async def get(host: str, port: int, path: str) -> int:
    """The status of a GET; 0 where nobody answers."""
    try:
        connection = await HttpConnection.open(host, port)
    except OSError:
        return 0
    try:
        async with asyncio.timeout(2.0):
            return (await connection.send(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())).status
    except (Refused, TimeoutError):
        return 0
    finally:
        connection.close()


class RemoteSession:
    """A session of the handshake era, whose calls may go over any connection."""

    __slots__ = ("_head", "session_id")

    def __init__(self, session_id: str | None, headers: dict[str, str] | None = None) -> None:
        """`session_id`: None where the server keeps no sessions. `headers`: further ones, a credential say."""
        self.session_id = session_id or ""
        named = {"mcp-protocol-version": HANDSHAKE_VERSION} | (
            {} if session_id is None else {"mcp-session-id": session_id}
        )
        self._head = _head({**named, **(headers or {})})

    def request(self, body: bytes) -> bytes:
        """A POST of `body` as it goes over the wire."""
        return b"%bcontent-length: %d\r\n\r\n%b" % (self._head, len(body), body)

    async def call(self, connection: HttpConnection, call: PreparedCall) -> Answer:
        """One call of a tool, which must succeed.

        Raises:
            Refused: It did not.
        """
        answer = await connection.send(self.request(call.body()))
        body = answer.body
        if answer.status != 200 or b'"result"' not in body or b'"isError":true' in body or b'"isError": true' in body:
            raise Refused(f"a measured call failed with status {answer.status}: {body[:300]!r}")
        return answer


async def open_session(connection: HttpConnection, headers: dict[str, str] | None = None) -> RemoteSession:
    """`initialize`, then `notifications/initialized`, at the node that the connection leads to.

    `headers`: further ones of each request, a credential say.

    Raises:
        Refused: It did not open a session.
    """
    answer = await connection.send(
        b"%bcontent-length: %d\r\n\r\n%b" % (_head(headers or {}), len(INITIALIZE), INITIALIZE)
    )
    session_id = answer.header(b"mcp-session-id")
    if answer.status != 200 or session_id is None or "result" not in answer.reply():
        raise Refused(f"initialize: status {answer.status}, {answer.body[:300]!r}")
    session = RemoteSession(session_id, headers)
    accepted = await connection.send(session.request(INITIALIZED))
    if accepted.status != 202:
        raise Refused(f"notifications/initialized: status {accepted.status}, {accepted.body[:300]!r}")
    return session


def _head(headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**HEADERS, **headers}.items())
    return f"POST /mcp HTTP/1.1\r\nhost: localhost\r\n{lines}".encode()
