"""What a client's `Accept` and `Content-Type` say."""

from __future__ import annotations

import pytest
from understudy.runtime.wire.media import MediaTypes

BOTH_JSON_FIRST = b"application/json, text/event-stream"


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        (BOTH_JSON_FIRST, (True, True, False)),
        (b"text/event-stream, application/json", (True, True, True)),
        (b"Text/Event-Stream,Application/JSON", (True, True, True)),
        (b"application/json;q=0.5, text/event-stream", (True, True, True)),
        (b"text/event-stream;q=0.5, application/json", (True, True, False)),
        (b"text/event-stream, */*", (True, True, True)),
        (b"*/*, text/event-stream", (True, True, False)),
        (b"*/*;q=0.1, application/json", (True, True, False)),
        (b"*/*", (True, True, False)),
        (b"application/*, text/*", (True, True, False)),
        (b"application/json;q=0, text/event-stream", (False, True, False)),
        (b"application/json, text/event-stream;q=0.0", (True, False, False)),
        (b"application/json;q=nonsense, text/event-stream;q=1", (True, True, False)),
        (b"application/json", (True, False, False)),
        (b"text/event-stream", (False, True, False)),
        (b"text/html", (False, False, False)),
        (b",;,", (False, False, False)),
        (b"", (False, False, False)),
        (None, (False, False, False)),
    ],
)
def test_an_accept_header_says_what_may_be_sent_and_what_is_liked_better(
    accept: bytes | None, accepted: tuple[bool, bool, bool]
) -> None:
    media = MediaTypes()
    assert media.accepts(accept) == accepted
    assert media.accepts(accept) == accepted, "remembered"


@pytest.mark.parametrize(
    ("content_type", "json"),
    [
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b"text/json", False),
        (b"application/jsonp", False),
        (None, False),
    ],
)
def test_a_content_type_is_json_or_not(content_type: bytes | None, json: bool) -> None:
    assert MediaTypes().is_json(content_type) is json
