"""`Response`: one answer, though a second node goes on with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from understudy.actors.session.wire import SERVER_BUSY, Refusal
from understudy.runtime.cluster.response import Interrupted, Response
from understudy.runtime.cluster.whole_events import HOLD
from understudy.runtime.wire.http import JSON_TYPE, SSE_HEADERS, answer

WHOLE = b'event: message\ndata: {"whole":1}\n\n'
HALF = b'event: message\ndata: {"ha'
LAST = b'{"jsonrpc":"2.0","id":7,"result":{}}'


OTHER = "event: broken-off"
"""Not a message: clients pass over it."""


class Wire:
    """What the client gets."""

    def __init__(self) -> None:
        self.starts = 0
        self.body = b""
        self.over = False

    async def send(self, message: Any) -> None:
        assert not self.over
        if message["type"] == "http.response.start":
            self.starts += 1
        else:
            self.body += message["body"]
            self.over = not message.get("more_body", False)

    @property
    def events(self) -> list[str]:
        """The data of each event that is complete, as a client reads it."""
        blocks = [block.split("\n") for block in self.body.decode().split("\n\n")[:-1]]
        typed = [lines for lines in blocks if [line for line in lines if line.startswith("event: ")][-1:] != [OTHER]]
        data = [[line[6:] for line in lines if line.startswith("data: ")] for lines in typed]
        return ["\n".join(lines) for lines in data if lines]


async def begun(wire: Wire, body: bytes) -> Response:
    response = Response(wire.send)
    await response.send({"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)})
    await response.send({"type": "http.response.body", "body": body, "more_body": True})
    return response


async def more(response: Response, body: bytes) -> None:
    await response.send({"type": "http.response.body", "body": body, "more_body": True})


GONE_OUT = b"x" * (HOLD + 1)
"""More than is kept back of one event."""


@pytest.mark.parametrize("sent", [WHOLE, HALF, HALF + GONE_OUT], ids=["whole", "small half", "large half"])
@pytest.mark.parametrize("how", ["as JSON", "as a stream", "as a refusal"])
async def test_what_follows_an_event_that_broke_off_can_be_read(sent: bytes, how: str) -> None:
    """no-silent-loss: glued to half an event, the answer would be lost with it. And half an event is no message."""
    wire = Wire()
    response = await begun(wire, sent)
    if how == "as a refusal":
        await response.refuse(Refusal(SERVER_BUSY, "Gone", status=503), 7)
        assert json.loads(wire.events[-1])["error"]["message"] == "Gone"
    else:
        response.next_attempt()
        if how == "as JSON":
            await answer(response.send, 200, LAST, headers=(JSON_TYPE,))
        else:
            await response.send({"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)})
            await response.send({"type": "http.response.body", "body": b"data: " + LAST + b"\n\n", "more_body": False})
        assert wire.events[-1] == LAST.decode()
    assert (wire.starts, wire.over, len(wire.events)) == (1, True, 2 if sent == WHOLE else 1)


async def test_no_comment_is_written_into_the_middle_of_an_event() -> None:
    wire = Wire()
    response = await begun(wire, HALF)
    response.share()
    await response.comment()
    assert wire.body == b": keep-alive\n\n"
    await more(response, b'lf":1}\n\n')
    assert wire.events == ['{"half":1}']
    await more(response, HALF + GONE_OUT)
    await response.comment()
    await more(response, b'"}\n\n')
    assert len(wire.events) == 2
    await response.comment()
    assert wire.body.count(b": keep-alive\n\n") == 2


async def test_a_stream_ends_with_all_that_was_sent() -> None:
    wire = Wire()
    response = await begun(wire, WHOLE)
    await response.send({"type": "http.response.body", "body": HALF, "more_body": False})
    assert (wire.body, wire.over, response.ended) == (WHOLE + HALF, True, True)


# Going on with a stream


STREAM = {"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)}
ONE, TWO = b"id: a-1\nevent: message\ndata: 1\n\n", b"id: a-2\nevent: message\ndata: 2\n\n"


class Attached:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


async def test_a_stream_that_is_resumed_goes_on_after_its_last_whole_event() -> None:
    wire, attached = Wire(), Attached()
    response = await begun(wire, ONE + TWO[:-1])
    assert response.last_id == b"a-1"
    response.next_attempt()
    response.resume(attached)
    await response.send(STREAM)
    assert attached.times == 1
    await more(response, TWO)
    await response.finish()
    assert (wire.starts, wire.over, wire.events) == (1, True, ["1", "2"])
    assert response.last_id == b"a-2"


@pytest.mark.parametrize("status", [400, 404, 503])
async def test_a_refusal_to_go_on_is_not_for_the_client(status: int) -> None:
    wire, attached = Wire(), Attached()
    response = await begun(wire, ONE)
    response.next_attempt()
    response.resume(attached)
    await answer(response.send, status, LAST, headers=(JSON_TYPE,))
    assert (response.refused, attached.times, wire.body, wire.over) == (status, 0, ONE, False)
    response.next_attempt()
    assert not response.refused
    response.resume(attached)
    await response.send(STREAM)
    await more(response, TWO)
    assert (attached.times, wire.events) == (1, ["1", "2"])


async def test_a_stream_with_half_a_large_event_on_the_wire_is_not_gone_on_with() -> None:
    """The rest cannot be had, and the client gets it whole when it resumes by itself."""
    wire, attached = Wire(), Attached()
    response = await begun(wire, ONE + TWO[:-2] + GONE_OUT)
    response.next_attempt()
    response.resume(attached)
    with pytest.raises(Interrupted):
        await response.send(STREAM)
    assert (attached.times, wire.over) == (0, False)


async def test_half_a_large_event_does_not_keep_the_last_message_from_being_read() -> None:
    wire, attached = Wire(), Attached()
    response = await begun(wire, ONE + TWO[:-2] + GONE_OUT)
    response.next_attempt()
    response.resume(attached)
    await answer(response.send, 400, LAST, headers=(JSON_TYPE,))
    await response.refuse(Refusal(SERVER_BUSY, "Gone", status=503), 7)
    assert json.loads(wire.events[-1])["error"]["message"] == "Gone"
    assert (wire.over, len(wire.events)) == (True, 2)


async def test_a_request_that_is_sent_again_has_no_event_to_resume_from_yet() -> None:
    """The id is of a stream that the node before has given up."""
    wire = Wire()
    response = await begun(wire, b"id: a-0\ndata: \n\n")
    response.next_attempt()
    response.again()
    assert response.last_id is None
    await response.send(STREAM)
    await more(response, b"id: b-0\ndata: \n\n")
    assert response.last_id == b"b-0"


async def test_a_stream_that_is_asked_for_before_anything_has_come_is_the_answer() -> None:
    wire, attached = Wire(), list[bool]()
    response = Response(wire.send)
    for status in (400, 503):
        response.next_attempt()
        response.resume(lambda: attached.append(True), whole=True)
        await answer(response.send, status, b"{}", headers=(JSON_TYPE,))
        assert (response.refused, wire.starts, wire.body) == (status, 0, b"")
    response.next_attempt()
    response.resume(lambda: attached.append(True), whole=True)
    await response.send({"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)})
    await more(response, WHOLE)
    assert (wire.starts, response.stream, response.refused, attached) == (1, True, 0, [True])
    assert wire.events == ['{"whole":1}']


async def test_a_refused_search_leaves_an_answer_to_be_given() -> None:
    wire = Wire()
    response = Response(wire.send)
    response.resume(lambda: None, whole=True)
    await answer(response.send, 400, b"{}", headers=(JSON_TYPE,))
    await response.refuse(Refusal(SERVER_BUSY, "unknown", status=503), 7)
    assert (wire.starts, wire.over) == (1, True)
    assert b"unknown" in wire.body


async def test_what_is_out_of_an_event_is_void_where_its_stream_comes_from_the_beginning() -> None:
    wire = Wire()
    response = await begun(wire, HALF + GONE_OUT)
    response.next_attempt()
    response.resume(lambda: None, whole=True)
    await response.send({"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)})
    await more(response, WHOLE)
    assert wire.events == ['{"whole":1}']
