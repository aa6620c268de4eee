"""`WholeEvents`: however a stream is cut, what goes out can be gone on with."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from understudy.runtime.cluster.whole_events import HOLD, WholeEvents


class Dispatched(NamedTuple):
    """What a client's parser of server-sent events hands on."""

    type: str
    data: str
    last_id: str


def as_a_client_reads(stream: bytes) -> list[Dispatched]:
    """WHATWG HTML, Server-sent events, 9.2.6; an event that is not whole at the end is discarded."""
    events: list[Dispatched] = []
    last_id, type, data = "", "", list[str]()
    for line in stream.decode().split("\n")[:-1]:
        if not line:
            if data:
                events.append(Dispatched(type or "message", "\n".join(data), last_id))
            type, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            last_id = value
        elif name == "event":
            type = value
        elif name == "data":
            data.append(value)
    return events


def message(number: int, data: str, *, id: bool = True) -> bytes:
    return (f"id: s.1-{number}\n" if id else "").encode() + f"event: message\ndata: {data}\n\n".encode()


PRIMING = b"id: s.1-0\nretry: 500\ndata: \n\n"
COMMENT = b": keep-alive\n\n"

blocks = st.lists(
    st.one_of(
        st.just("comment"),
        st.just("priming"),
        st.sampled_from(["x", "id: s.9-9", "\\n\\nid: 7", "event: message", "y" * 300]),
        # By its name: Hypothesis writes out what it has found.
        st.just("large"),
    ),
    min_size=1,
    max_size=6,
)


def written(kinds: list[str]) -> list[bytes]:
    named = {"comment": COMMENT, "priming": PRIMING}
    data = {"large": "z" * (HOLD + 10)}
    return [named.get(kind) or message(number, data.get(kind, kind)) for number, kind in enumerate(kinds, 1)]


@given(blocks, st.data())
def test_a_stream_that_breaks_off_anywhere_can_be_gone_on_with(kinds: list[str], data: st.DataObject) -> None:
    events = written(kinds)
    stream = b"".join(events)
    broken = stream[: data.draw(st.integers(0, len(stream)), "breaks off at")]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(broken)), max_size=8), "cut at"))
    passing = WholeEvents()
    out = b""
    for begin, end in zip([0, *cuts], [*cuts, len(broken)], strict=True):
        if begin < end:
            out += passing.pass_on(broken[begin:end])
    assert broken.startswith(out)
    whole = [event for number, event in enumerate(events) if len(b"".join(events[: number + 1])) <= len(out)]
    ids = [event[4:].partition(b"\n")[0] for event in whole if event.startswith(b"id: ")]
    assert passing.last_id == (ids[-1] if ids else None)
    assert passing.partial == (not out.endswith(b"\n\n") and out != b"")
    # What a client makes of the rest: nothing is lost, doubled or taken for a message that is none.
    passing.break_off()
    before = as_a_client_reads(out)
    void = passing.void() if passing.partial else b""
    mended = out + void + b"".join(events[len(whole) :])
    after = [event for event in as_a_client_reads(mended) if event.type == "message"]
    assert after == as_a_client_reads(stream)
    voided = as_a_client_reads(out + void)
    assert [event.last_id for event in voided if event.type != "message"] in (
        [],
        [before[-1].last_id if before else ""],
    )


@given(blocks, st.integers(1, 40))
def test_what_is_not_broken_off_comes_out_as_it_went_in(kinds: list[str], size: int) -> None:
    stream = b"".join(written(kinds))
    passing = WholeEvents()
    parts = [passing.pass_on(stream[start : start + size * 100]) for start in range(0, len(stream), size * 100)]
    assert b"".join(parts) + passing.rest() == stream


def test_what_is_kept_back_is_bounded() -> None:
    passing = WholeEvents()
    large = message(1, "x" * (4 * HOLD))
    out = 0
    for start in range(0, len(large) - 1, HOLD // 2):
        out += len(passing.pass_on(large[start : min(start + HOLD // 2, len(large) - 1)]))
        assert start + HOLD // 2 - out <= HOLD
    assert passing.partial
    assert passing.last_id is None
    assert out + len(passing.pass_on(b"\n")) == len(large)
    assert (passing.partial, passing.last_id) == (False, b"s.1-1")


@pytest.mark.parametrize("chunk", [b": keep-alive\n\n", message(7, "x", id=False)])
def test_an_event_without_an_id_leaves_the_last_one(chunk: bytes) -> None:
    passing = WholeEvents()
    passing.pass_on(PRIMING)
    assert passing.pass_on(chunk) is chunk
    assert passing.last_id == b"s.1-0"
