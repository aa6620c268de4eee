"""One HTTP request to an ASGI app, driven by hand, and what has come of it so far."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from support.patience import PATIENCE
from understudy.actors.task_owner import TaskOwner

"""Seconds that a test waits for what should happen at once. A busy machine needs some of them."""

Body = bytes | Iterable[bytes] | AsyncIterable[bytes]


class BrokenResponse(AssertionError):
    """The app did not answer with exactly one complete response."""


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    id: str | None
    data: str
    retry: int | None = None

    @property
    def message(self) -> dict[str, Any]:
        return json.loads(self.data)


class HTTPCall:
    """One request and what has come of it so far.

    `reads=False` is a client that takes the head of the response and nothing else.
    """

    def __init__(self, scope: dict[str, Any], body: Body, *, reads: bool = True) -> None:
        self.scope = scope
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False
        self.error: BaseException | None = None
        self._whole = isinstance(body, bytes)
        self._parts: Iterator[bytes] | AsyncIterator[bytes] = (
            iter((body,)) if isinstance(body, bytes) else aiter(body) if isinstance(body, AsyncIterable) else iter(body)
        )
        self._sent_all = False
        self._reads = reads
        self._gone = asyncio.Event()
        self._news = asyncio.Event()
        self._parsed = 0
        self.returned = False

    async def run(self, app: Callable[..., Any]) -> None:
        """Call the app; what it raises is kept in `error`."""
        try:
            await app(self.scope, self._receive, self._send)
        except Exception as error:
            self.error = error
        except asyncio.CancelledError as error:
            self.error = error
            task = asyncio.current_task()
            assert task is not None
            if task.cancelling():
                raise
        finally:
            self.returned = True
            self._news.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._sent_all and not self._gone.is_set():
            parts = self._parts
            part = await anext(parts, None) if isinstance(parts, AsyncIterator) else next(parts, None)
            self._sent_all = part is None or self._whole
            return {"type": "http.request", "body": part or b"", "more_body": not self._sent_all}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if self.complete:
            raise BrokenResponse(f"{message['type']} after the end of the response")
        if message["type"] == "http.response.start":
            if self.status:
                raise BrokenResponse("a second start of the response")
            self.status = message["status"]
            self.headers = list(message["headers"])
            for name, value in self.headers:
                assert isinstance(name, bytes)
                assert isinstance(value, bytes)
                assert name == name.lower()
                assert b"\n" not in value
        elif message["type"] == "http.response.body":
            if not self.status:
                raise BrokenResponse("a body before the start of the response")
            if not self._reads:
                await asyncio.Event().wait()
            self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)
        else:
            raise BrokenResponse(f"a message of type {message['type']}")
        self._news.set()

    def disconnect(self) -> None:
        """The client is gone."""
        self._gone.set()

    # What has come

    def header(self, name: str) -> str | None:
        found = [value.decode("latin-1") for key, value in self.headers if key == name.lower().encode()]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None

    @property
    def kind(self) -> str:
        return self.header("content-type") or ""

    @property
    def json(self) -> Any:
        assert self.kind == "application/json", (self.status, self.headers, self.body[:500])
        return json.loads(self.body, parse_constant=_no_json)

    @property
    def events(self) -> list[Event]:
        """All complete events so far, comments left out."""
        assert self.kind == "text/event-stream", (self.status, self.headers, self.body[:500])
        whole, _, _ = self.body.rpartition(b"\n\n")
        blocks = [_event(block) for block in whole.decode().split("\n\n") if block]
        return [event for event in blocks if event is not None]

    @property
    def comments(self) -> int:
        return sum(block.startswith(":") for block in self.body.decode().split("\n\n"))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The JSON-RPC messages so far, however they were sent."""
        if self.kind == "application/json":
            return [self.json]
        return [event.message for event in self.events if event.data]

    @property
    def reply(self) -> dict[str, Any]:
        """The one JSON-RPC response."""
        replies = [message for message in self.messages if "method" not in message]
        assert len(replies) == 1, (self.status, self.body[:500])
        return replies[0]

    @property
    def result(self) -> dict[str, Any]:
        assert "result" in self.reply, self.reply
        return self.reply["result"]

    @property
    def failure(self) -> dict[str, Any]:
        assert "error" in self.reply, self.reply
        return self.reply["error"]

    @property
    def value(self) -> Any:
        """What a tool returned."""
        assert not self.result.get("isError"), self.result
        return self.result["structuredContent"]["result"]

    # Waiting

    async def until(self, happened: Callable[[], Any]) -> Any:
        """What `happened` returns, once it is true."""
        async with asyncio.timeout(PATIENCE):
            while not (found := happened()):
                if self.returned:
                    self._raise()
                    raise AssertionError(f"never came; the response: {self.status} {self.body[-500:]!r}")
                self._news.clear()
                await self._news.wait()
        return found

    async def started(self) -> HTTPCall:
        """Once the head of the response is there."""
        await self.until(lambda: self.status)
        return self

    async def event(self, number: int) -> Event:
        """The event with this index, once it is there."""
        await self.until(lambda: self.status and len(self.events) > number)
        return self.events[number]

    async def message(self, method: str) -> dict[str, Any]:
        """The first message with this method, once it is there."""
        return await self.until(
            lambda: self.status and next((m for m in self.messages if m.get("method") == method), None)
        )

    async def done(self) -> HTTPCall:
        """Once the app has returned. Raises what it raised."""
        async with asyncio.timeout(PATIENCE):
            while not self.returned:
                self._news.clear()
                await self._news.wait()
        self._raise()
        return self

    async def answered(self) -> HTTPCall:
        """Once the response is complete."""
        await self.done()
        assert self.complete, f"the app returned without a complete response: {self.status} {self.body[-500:]!r}"
        return self

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


class Connections:
    """The requests in flight to one app. Leaving the block cancels those that are not over."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app
        self._owner = TaskOwner()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, call: HTTPCall) -> None:
        task = self._owner.spawn(call.run(self.app))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def __aenter__(self) -> Self:
        await self._owner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._owner.__aexit__(None, None, None)


def scope(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(errors="surrogateescape"),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }


def _event(block: str) -> Event | None:
    fields: dict[str, list[str]] = {}
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    if not fields.keys() & {"id", "data", "event"}:
        return None
    assert all(len(values) == 1 for values in fields.values()), f"not one event: {block!r}"
    retry = fields.get("retry")
    return Event(fields.get("id", [None])[0], fields.get("data", [""])[0], int(retry[0]) if retry else None)


def _no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")
