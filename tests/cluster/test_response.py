"""`Response`: one answer, though a second node goes on with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from understudy.actors.session.wire import SERVER_BUSY, Refusal
from understudy.runtime.cluster.response import Response
from understudy.runtime.http import JSON_TYPE, SSE_HEADERS, answer

WHOLE = b'event: message\ndata: {"whole":1}\n\n'
HALF = b'event: message\ndata: {"ha'
LAST = b'{"jsonrpc":"2.0","id":7,"result":{}}'


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
        data = [[line[6:] for line in lines if line.startswith("data: ")] for lines in blocks]
        return ["\n".join(lines) for lines in data if lines]


async def begun(wire: Wire, body: bytes) -> Response:
    response = Response(wire.send)
    await response.send({"type": "http.response.start", "status": 200, "headers": list(SSE_HEADERS)})
    await response.send({"type": "http.response.body", "body": body, "more_body": True})
    return response


@pytest.mark.parametrize("sent", [WHOLE, HALF])
@pytest.mark.parametrize("how", ["as JSON", "as a stream", "as a refusal"])
async def test_what_follows_an_event_that_broke_off_can_be_read(sent: bytes, how: str) -> None:
    """no-silent-loss: glued to half an event, the answer would be lost with it."""
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
    assert (wire.starts, wire.over, len(wire.events)) == (1, True, 2)


async def test_no_comment_is_written_into_the_middle_of_an_event() -> None:
    wire = Wire()
    response = await begun(wire, HALF)
    response.share()
    await response.comment()
    await response.send({"type": "http.response.body", "body": b'lf":1}\n\n', "more_body": True})
    assert wire.events == ['{"half":1}']
    await response.comment()
    assert wire.body.endswith(b": keep-alive\n\n")
