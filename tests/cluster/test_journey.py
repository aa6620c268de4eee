"""A request's way, step by step."""

from __future__ import annotations

from itertools import product

import pytest
from understudy.runtime.cluster.entry import Entry
from understudy.runtime.cluster.journey import AT_ONCE, PATIENCE, Journey
from understudy.runtime.cluster.ownership import Ownership
from understudy.runtime.cluster.peers import NodeNews
from understudy.runtime.cluster.steps import (
    Answered,
    Denial,
    Event,
    Forward,
    Found,
    Load,
    Loaded,
    LookUp,
    NoRoomHere,
    NotRunHere,
    NotRunThere,
    PathBroken,
    Pause,
    Refuse,
    Run,
    Step,
    Taken,
    TakenAway,
    Unreachable,
    Write,
)
from understudy.stores import Address

A = Address("session", "a")
NOW = 100.0
LEASE = 3.0
HERE = Entry("n.1", 4, 10)
ASLEEP = Entry("", 3, 10)
THERE = Entry("m.1", 4, 10)
GONE = Entry("gone.1", 4, 10)
STRUCK = Entry("struck.1", 4, 10)
OLD_ME = Entry("n.0", 4, 10)
STRANGER = Entry("stranger.1", 4, 10)


@pytest.fixture
def ownership() -> Ownership:
    ownership = Ownership("n.0", lease=LEASE)
    ownership.begin("n.1", NOW)
    for node in ("m.1", "k.1", "gone.1", "struck.1"):
        ownership.heard(NodeNews(node, LEASE, capacity=5), NOW)
    ownership.peers.left("gone.1")
    ownership.peers.strike("struck.1")
    return ownership


def journey(ownership: Ownership, *, remote: bool = False) -> Journey:
    return Journey(ownership, A, NOW, remote=remote)


def after(ownership: Ownership, *events: Event, remote: bool = False) -> Step | None:
    """The step after these."""
    way = journey(ownership, remote=remote)
    step: Step | None = way.begin(NOW)
    for event in events:
        step = way.advance(event, NOW)
    return step


def take(present: Entry, striking: str = "") -> Write:
    return Write(Entry("n.1", present.epoch + 1, present.revision), striking)


# The table: what the directory says, and what follows


@pytest.mark.parametrize(
    ("found", "local", "remote"),
    [
        (None, Load(), Load()),
        (HERE, Run(), Run()),
        (ASLEEP, take(ASLEEP), take(ASLEEP)),
        (OLD_ME, take(OLD_ME), take(OLD_ME)),
        (THERE, Forward("m.1"), Refuse(Denial.ELSEWHERE, THERE)),
        (STRANGER, Forward("stranger.1"), Refuse(Denial.ELSEWHERE, STRANGER)),
        (GONE, take(GONE, "gone.1"), take(GONE, "gone.1")),
        (STRUCK, take(STRUCK), take(STRUCK)),
    ],
)
def test_what_is_found_says_where_to_go(ownership: Ownership, found: Entry | None, local: Step, remote: Step) -> None:
    assert after(ownership, Found(found)) == local
    assert after(ownership, Found(found), remote=True) == remote


@pytest.mark.parametrize(
    ("owner", "local", "remote"),
    [
        (None, Refuse(Denial.UNKNOWN), Refuse(Denial.UNKNOWN)),
        ("", take(Entry("", 3, 0)), take(Entry("", 3, 0))),
        ("n.1", take(Entry("", 3, 0)), take(Entry("", 3, 0))),
        ("m.1", Forward("m.1"), Refuse(Denial.ELSEWHERE, Entry("m.1", 3, 0))),
        ("gone.1", take(Entry("", 3, 0), "gone.1"), take(Entry("", 3, 0), "gone.1")),
    ],
)
def test_where_the_directory_knows_nothing_the_record_says(
    ownership: Ownership, owner: str | None, local: Step, remote: Step
) -> None:
    assert after(ownership, Found(None), Loaded(owner, 3)) == local
    assert after(ownership, Found(None), Loaded(owner, 3), remote=True) == remote


@pytest.mark.parametrize(
    ("held", "moving", "leased", "remote"), list(product((True, False), (True, False), (True, False), (True, False)))
)
def test_the_first_step_follows_from_what_the_node_holds(
    ownership: Ownership, held: bool, moving: bool, leased: bool, remote: bool
) -> None:
    if held:
        ownership.taken(A, HERE)
    if held and moving:
        ownership.hand_off(A)
    now = NOW if leased else NOW + LEASE
    step = Journey(ownership, A, now, remote=remote).begin(now)
    if held and moving:
        assert isinstance(step, Pause)
    elif held and leased:
        assert step == Run()
    elif remote and not leased:
        assert step == Refuse(Denial.ELSEWHERE)
    elif held:
        assert isinstance(step, Pause)
    else:
        assert step == LookUp()


@pytest.mark.parametrize("found", [ASLEEP, GONE, STRUCK, OLD_ME])
def test_nothing_is_taken_without_a_lease(ownership: Ownership, found: Entry) -> None:
    for remote in (False, True):
        way = journey(ownership, remote=remote)
        way.begin(NOW)
        step = way.advance(Found(found), NOW + LEASE)
        assert step == Refuse(Denial.ELSEWHERE) if remote else isinstance(step, Pause)


# Taking


def test_what_is_taken_runs_here(ownership: Ownership) -> None:
    assert after(ownership, Found(ASLEEP), Taken(11)) == Run()
    assert ownership.holds(A)


def test_who_comes_second_looks_again(ownership: Ownership) -> None:
    assert after(ownership, Found(ASLEEP), TakenAway()) == LookUp()
    assert not ownership.holds(A)


def test_a_take_that_lands_after_the_lease_holds_nothing(ownership: Ownership) -> None:
    way = journey(ownership)
    way.begin(NOW)
    way.advance(Found(ASLEEP), NOW)
    ownership.struck()
    ownership.begin("n.2", NOW + 5)
    assert way.advance(Taken(11), NOW + 5) == LookUp()
    assert not ownership.holds(A)


def test_a_lease_is_struck_once(ownership: Ownership) -> None:
    assert after(ownership, Found(GONE)) == take(GONE, "gone.1")
    assert after(ownership, Found(GONE), Taken(11)) == Run()
    assert Journey(ownership, Address("session", "b"), NOW).begin(NOW) == LookUp()
    assert not ownership.must_strike("gone.1")


# Forwarding


@pytest.mark.parametrize(
    ("maybe_ran", "repeatable", "dead"), list(product((True, False), (True, False), (True, False)))
)
def test_a_broken_path_repeats_only_what_may_be(
    ownership: Ownership, maybe_ran: bool, repeatable: bool, dead: bool
) -> None:
    """never-run-twice"""
    step = after(ownership, Found(THERE), PathBroken(maybe_ran, repeatable, dead))
    if maybe_ran and not repeatable:
        assert step == Refuse(Denial.IN_DOUBT)
    elif dead:
        assert step == take(THERE, "m.1")
    else:
        assert isinstance(step, Pause)


def test_who_was_out_of_touch_takes_nothing_because_nobody_answers(ownership: Ownership) -> None:
    ownership.reconnected(NOW)
    assert isinstance(after(ownership, Found(THERE), PathBroken(False, dead=True)), Pause)
    assert ownership.peers.believes("m.1", NOW)


@pytest.mark.parametrize("last", [Unreachable(), NotRunHere()])
def test_a_call_that_may_have_run_is_never_said_not_to_have(ownership: Ownership, last: Event) -> None:
    way = journey(ownership)
    way.begin(NOW)
    way.advance(Found(THERE), NOW)
    way.advance(PathBroken(True, repeatable=True, dead=False), NOW)
    assert way.advance(last, NOW + PATIENCE) in (Refuse(Denial.IN_DOUBT), LookUp())
    assert way.advance(Unreachable(), NOW + PATIENCE) == Refuse(Denial.IN_DOUBT)
    assert way.maybe_ran


def test_a_correction_is_followed_and_learnt(ownership: Ownership) -> None:
    assert after(ownership, Found(THERE), NotRunThere(Entry("k.1", 5, 11))) == Forward("k.1")
    assert ownership.hint(A) == Entry("k.1", 5, 11)


def test_corrections_that_go_round_in_circles_end_at_the_directory(ownership: Ownership) -> None:
    way = journey(ownership)
    way.begin(NOW)
    step: Step | None = way.advance(Found(THERE), NOW)
    hops = 0
    while isinstance(step, Forward):
        hops += 1
        step = way.advance(NotRunThere(Entry("k.1" if step.to == "m.1" else "m.1", 4 + hops, 10 + hops)), NOW)
    assert step == LookUp()
    assert hops == 1 + AT_ONCE


def test_who_has_no_room_has_let_go(ownership: Ownership) -> None:
    assert after(ownership, Found(THERE), NotRunThere(THERE, full=True), Found(THERE)) == take(THERE)


def test_who_had_no_room_may_hold_it_again_by_a_later_entry(ownership: Ownership) -> None:
    later = Entry("m.1", 5, 11)
    assert after(ownership, Found(THERE), NotRunThere(THERE, full=True), Found(later)) == Forward("m.1")
    assert after(ownership, Found(THERE), NotRunThere(None, full=True), Found(THERE)) == Forward("m.1")


def test_a_hint_saves_the_look_up(ownership: Ownership) -> None:
    ownership.learn(A, THERE)
    assert journey(ownership).begin(NOW) == Forward("m.1")
    assert journey(ownership, remote=True).begin(NOW) == LookUp()


# No room


def test_a_draining_node_gives_away_what_sleeps(ownership: Ownership) -> None:
    ownership.draining = True
    step = after(ownership, Found(ASLEEP))
    assert isinstance(step, Write)
    assert step.entry.incarnation in ("m.1", "k.1")
    assert after(ownership, Found(ASLEEP), Taken(11)) == Forward(step.entry.incarnation) or ownership.hint(A)


def test_a_full_node_gives_away_what_it_holds_and_holds_it_no_more(ownership: Ownership) -> None:
    ownership.taken(A, HERE)
    ownership.claimed(A, 4)
    step = after(ownership, NoRoomHere())
    assert isinstance(step, Write)
    assert (step.entry.epoch, step.entry.revision, step.striking) == (5, 10, "")
    assert not ownership.holds(A)


def test_a_full_node_tells_who_forwarded_and_holds_it_no_more(ownership: Ownership) -> None:
    ownership.taken(A, HERE)
    assert after(ownership, NoRoomHere(), remote=True) == Refuse(Denial.BUSY, HERE)
    assert not ownership.holds(A)


def test_where_no_node_has_room_the_client_is_told(ownership: Ownership) -> None:
    ownership.taken(A, HERE)
    for node in ("m.1", "k.1"):
        ownership.heard(NodeNews(node, LEASE, capacity=5, sessions=5), NOW)
    assert after(ownership, NoRoomHere()) == Refuse(Denial.BUSY)


def test_of_two_calls_that_find_no_room_the_second_looks_where_it_went(ownership: Ownership) -> None:
    ownership.taken(A, HERE)
    first, second = journey(ownership), journey(ownership)
    first.begin(NOW)
    second.begin(NOW)
    assert isinstance(first.advance(NoRoomHere(), NOW), Write)
    assert second.advance(NoRoomHere(), NOW) == LookUp()


# Ends


def test_an_answer_is_the_end(ownership: Ownership) -> None:
    ownership.taken(A, HERE)
    assert after(ownership, Answered()) is None


@pytest.mark.parametrize("event", [Unreachable(), NotRunHere()])
def test_patience_ends(ownership: Ownership, event: Event) -> None:
    """no-silent-loss"""
    way = journey(ownership)
    now = NOW
    step: Step | None = way.begin(now)
    steps = 0
    while not isinstance(step, Refuse):
        steps += 1
        if isinstance(step, Pause):
            now += step.seconds
            step = way.resume(now)
        else:
            now += 0.001
            step = way.advance(event, now)
    assert step == Refuse(Denial.UNAVAILABLE)
    assert PATIENCE <= now - NOW < PATIENCE + 1
    assert steps < 120
