"""`Replay`: what comes from the event log goes out in portions, and a node holds no more of it than it has room for."""

from __future__ import annotations

import pytest
from understudy.actors.session.reading import PORTION
from understudy.runtime.edge.replay import Replays
from understudy.runtime.wire.refusals import Refused


def events(count: int, size: int) -> list[tuple[int, bytes]]:
    return [(number, b"x" * size) for number in range(1, count + 1)]


def test_all_of_it_comes_once_and_in_order_a_portion_at_a_time() -> None:
    replays, owed = Replays(), events(100, 10_000)
    numbers: list[int] = []
    with replays.of("s.1", owed) as replay:
        assert owed == [], "whoever still has the list holds nothing"
        held = replays.bytes
        while portion := replay.portion():
            assert sum(len(event) for _, event in portion[:-1]) < PORTION
            assert replays.bytes < held
            held = replays.bytes
            numbers += [number for number, _ in portion]
        assert held == 0
    assert numbers == list(range(1, 101))
    assert replays.bytes == 0


def test_where_there_is_no_room_the_client_comes_back_in_a_moment() -> None:
    replays = Replays(most=1000)
    with replays.of("s.1", events(2, 300), beside=300) as replay:
        with pytest.raises(Refused) as refused, replays.of("s.2", events(1, 200)):
            pass
        assert refused.value.refusal.status == 503
        assert refused.value.refusal.retry_after
        replay.portion()
        with replays.of("s.2", events(1, 200)):
            assert replays.bytes == 500
    assert replays.bytes == 0


def test_one_that_is_larger_than_all_the_room_has_it_when_it_is_alone() -> None:
    replays = Replays(most=1000)
    with replays.of("s.1", events(1, 5000)), pytest.raises(Refused), replays.of("s.2", events(1, 1)):
        pass
    assert replays.bytes == 0


def test_a_reader_that_leaves_gives_its_room_back() -> None:
    replays = Replays()
    with replays.of("s.1", events(100, 10_000), beside=7) as replay:
        replay.portion()
        assert replays.bytes > 7
    assert replays.bytes == 0
