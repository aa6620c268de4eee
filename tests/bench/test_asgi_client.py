"""The in-process client: what it sends an app, and what it makes of the answer."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from understudy.bench.asgi import Caller, Refused
from understudy.bench.clients import HandshakeClient, PreparedCall, checked


def answering(*chunks: bytes, content_type: bytes = b"application/json", status: int = 200) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type)]})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


async def test_the_app_sees_a_whole_request() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope, message=await receive())
        await answering(b"{}")(scope, receive, send)

    await Caller(app, {"accept": "application/json"}, path="/there").send(b"[1]")
    assert (seen["method"], seen["path"]) == ("POST", "/there")
    assert dict(seen["headers"]) == {
        b"host": b"localhost:8000",
        b"accept": b"application/json",
        b"content-length": b"3",
    }
    assert seen["message"] == {"type": "http.request", "body": b"[1]", "more_body": False}


async def test_an_app_that_writes_in_its_scope_leaves_the_next_request_alone() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "mark" not in scope
        scope["mark"] = True
        await answering(b"{}")(scope, receive, send)

    caller = Caller(app, {})
    await caller.send()
    assert (await caller.send()).status == 200


async def test_the_client_disconnects_when_the_response_is_over_and_not_before() -> None:
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

        async def watch() -> None:
            order.append((await receive())["type"])

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await anyio.wait_all_tasks_blocked()
            order.append("answer")
            await answering(b"{}")(scope, receive, send)

    await Caller(app, {}).send()
    assert order == ["answer", "http.disconnect"]


async def test_a_json_reply_in_pieces_is_one_reply() -> None:
    answer = await Caller(answering(b'{"result"', b": 1}"), {}).send()
    assert answer.reply() == {"result": 1}


async def test_the_reply_of_a_stream_is_its_last_event() -> None:
    stream = (
        b"id: 1\r\ndata: \r\n\r\n",
        b': ping\r\n\r\nevent: message\r\ndata: {"method": "x"}\r\n\r\n',
        b'data:{"id":1}\n\n',
    )
    answer = await Caller(answering(*stream, content_type=b"text/event-stream"), {}).send()
    assert answer.reply() == {"id": 1}


async def test_an_answer_without_a_reply_is_refused_with_its_text() -> None:
    answer = await Caller(answering(b"Bad Gateway", content_type=b"text/plain", status=502), {}).send()
    with pytest.raises(Refused, match=r"502.*Bad Gateway"):
        answer.reply()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b'{"result":{}}'),
        (200, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}'),
        (200, b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}'),
    ],
)
async def test_a_failed_call_is_never_counted(status: int, body: bytes) -> None:
    answer = await Caller(answering(body, status=status), {}).send()
    with pytest.raises(Refused, match=str(status)):
        checked(answer)


async def test_a_server_that_opens_no_session_is_refused() -> None:
    with pytest.raises(Refused, match="initialize"):
        await HandshakeClient.open(answering(b'{"result": {}}'))


def test_calls_in_flight_have_different_ids() -> None:
    call = PreparedCall("add", {"a": 1})
    assert call.body().startswith(b'{"jsonrpc":"2.0","id":1,')
    assert call.body().startswith(b'{"jsonrpc":"2.0","id":2,')
