"""`BusNumbers`: whatever is lost on the bus shows, and what is only late does not."""

from __future__ import annotations

import random

import pytest
from understudy.runtime.cluster.bus_numbers import ABSENT, MAX_ORIGINS, BusNumbers


def test_what_comes_in_order_is_no_gap() -> None:
    numbers = BusNumbers({"b": 7})
    assert not any(numbers.heard("b", number) for number in range(8, 1000))
    assert not any(numbers.heard("c", number) for number in range(1, 1000))
    assert numbers.look({"b": 999, "c": 999}) == []
    assert numbers.look({"b": 999, "c": 999}) == []


def test_a_skipped_number_is_a_gap_once() -> None:
    numbers = BusNumbers()
    assert not numbers.heard("b", 1)
    assert numbers.heard("b", 3)
    assert not numbers.heard("b", 4)


def test_one_that_was_overtaken_is_no_further_gap() -> None:
    numbers = BusNumbers()
    numbers.heard("b", 2)
    assert not numbers.heard("b", 1)
    assert not numbers.heard("b", 3)


def test_who_is_heard_for_the_first_time_in_the_middle_was_missed_before() -> None:
    numbers = BusNumbers()
    assert numbers.heard("b", 2)
    assert not numbers.heard("c", 1)


def test_what_was_published_before_this_node_listened_is_not_missed() -> None:
    numbers = BusNumbers({"b": 700})
    assert numbers.look({"b": 700}) == []
    assert numbers.look({"b": 700}) == []
    assert not numbers.heard("b", 701)


def test_what_was_lost_last_shows_a_look_later_and_once() -> None:
    numbers = BusNumbers()
    numbers.heard("b", 1)
    assert numbers.look({"b": 3}) == [], "it may be on its way"
    assert numbers.look({"b": 3}) == ["b"]
    assert numbers.look({"b": 3}) == []
    assert not numbers.heard("b", 4)


def test_what_was_on_its_way_and_came_is_no_gap() -> None:
    numbers = BusNumbers()
    numbers.look({"b": 2})
    numbers.heard("b", 1)
    numbers.heard("b", 2)
    assert numbers.look({"b": 2}) == []


def test_a_backlog_that_is_being_worked_off_is_no_gap_until_it_stops() -> None:
    numbers = BusNumbers()
    for number in range(1, 6):
        assert not numbers.heard("b", number)
        assert numbers.look({"b": 10}) == []
    assert numbers.look({"b": 10}) == ["b"]


def test_who_dies_may_have_said_something_more() -> None:
    numbers = BusNumbers({"b": 4})
    for _ in range(ABSENT - 1):
        assert numbers.look({}) == []
    assert numbers.look({}) == ["b"]
    assert numbers.look({}) == []
    assert len(numbers) == 0


def test_who_was_taken_for_dead_and_lives_is_checked_from_the_beginning() -> None:
    numbers = BusNumbers({"b": 4})
    for _ in range(ABSENT):
        numbers.look({})
    assert numbers.heard("b", 6)


def test_who_says_goodbye_leaves_no_doubt() -> None:
    numbers = BusNumbers({"b": 4})
    assert not numbers.goodbye("b", 5)
    for _ in range(ABSENT + 1):
        assert numbers.look({}) == []


def test_a_goodbye_shows_what_was_lost_before_it() -> None:
    assert BusNumbers({"b": 4}).goodbye("b", 6)


def test_there_is_a_bound_and_beyond_it_a_gap() -> None:
    numbers = BusNumbers()
    for origin in range(MAX_ORIGINS):
        assert not numbers.heard(str(origin), 1)
    assert numbers.heard("one more", 1)
    assert len(numbers) == MAX_ORIGINS


@pytest.mark.parametrize("seed", range(200))
def test_whatever_is_lost_of_a_random_run_is_noticed_at_the_latest_two_looks_after_it(seed: int) -> None:
    chance = random.Random(seed)
    numbers, last, lost, told = BusNumbers(), 0, False, False
    for _ in range(chance.randrange(1, 60)):
        if chance.random() < 0.2:
            told = bool(numbers.look({"b": last})) or told
            continue
        last += 1
        if chance.random() < 0.1:
            lost = True
        else:
            told = numbers.heard("b", last) or told
    for _ in range(3):
        told = bool(numbers.look({"b": last})) or told
    assert told is lost
