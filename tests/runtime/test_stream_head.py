"""The head of a logged stream: read by every later version, and never guessed at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from understudy.actors.packing import pack
from understudy.runtime.streams.stream_head import HEAD_VERSION, DamagedHead, StreamHead

GOLDEN = {
    1: bytes.fromhex(
        "86a17601a6777269746572a56e2d312e33a269640aa66d6574686f64aa746f6f6c732f63616c6ca87265766973696f6eaa323032352d31"
        "312d3235a46c696665a0"
    ),
}


@given(
    st.text(max_size=40),
    st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=40),
    st.text(max_size=128),
    st.text(max_size=32),
    st.text(max_size=20),
)
def test_what_is_packed_comes_back(writer: str, id: int | str | None, method: str, revision: str, life: str) -> None:
    head = StreamHead(writer, id, method, revision, life)
    assert StreamHead.unpack(head.pack()) == head


@pytest.mark.parametrize("version", GOLDEN)
def test_every_version_ever_written_is_read(version: int) -> None:
    assert StreamHead.unpack(GOLDEN[version]) == StreamHead("n-1.3", 10, "tools/call", "2025-11-25")
    assert set(GOLDEN) == set(range(1, HEAD_VERSION + 1))


def test_this_version_is_written_as_it_was() -> None:
    assert StreamHead("n-1.3", 10, "tools/call", "2025-11-25").pack() == GOLDEN[HEAD_VERSION]


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        GOLDEN[1][:-1],
        GOLDEN[1] + b"\x00",
        pack([1, 2]),
        pack({"v": HEAD_VERSION + 1, "writer": "w", "id": 1, "method": "", "revision": "", "life": ""}),
        pack({"v": True, "writer": "w", "id": 1, "method": "", "revision": "", "life": ""}),
        pack({"v": 1, "writer": 7, "id": 1, "method": "", "revision": "", "life": ""}),
        pack({"v": 1, "writer": "w", "id": [], "method": "", "revision": "", "life": ""}),
        pack({"v": 1, "writer": "w"}),
    ],
)
def test_what_is_no_head_is_refused(packed: bytes) -> None:
    with pytest.raises(DamagedHead):
        StreamHead.unpack(packed)


def test_what_a_later_version_adds_is_passed_over() -> None:
    raw = {"v": 1, "writer": "w", "id": 1, "method": "m", "revision": "r", "life": "", "more": [1]}
    assert StreamHead.unpack(pack(raw)) == StreamHead("w", 1, "m", "r")
