"""A session's snapshot after messages that change its state and run no handler."""

from __future__ import annotations

from typing import Any

import pytest
from understudy.actors.session import SessionSnapshot, StateConflict, StateError, TenantContext
from understudy.actors.session.messages import Merge, OpenHandle
from understudy.actors.session.state import pack_state, unpack_state
from understudy.actors.session.state_changes import after_merge, after_opening, after_update
from understudy.actors.session.state_update import MOST_ONCE, StateUpdate

LIMIT = 1000
BEFORE = SessionSnapshot("handle", "acme", "ada", "2026-07-28", log_level="info", state=pack_state({"n": 1}, LIMIT))


class Bounded:
    """An allowance of so many bytes of state."""

    bounds_state = True

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked: list[tuple[int, int]] = []

    def max_state(self, now: int, most: int) -> int:
        self.asked.append((now, most))
        return self.most


def packed(**state: Any) -> bytes:
    return pack_state(state, 10 * LIMIT)


def merge(*, after: dict[str, Any], allowance: Any = None) -> Merge:
    return Merge(BEFORE.state, packed(**after), allowance)


def test_a_merge_changes_the_state_and_nothing_else() -> None:
    merged = after_merge(BEFORE, merge(after={"n": 2, "m": 3}), LIMIT)
    assert unpack_state(merged.state) == {"n": 2, "m": 3}
    assert (merged.log_level, merged.principal, merged.updates) == ("info", "ada", ())
    assert unpack_state(BEFORE.state) == {"n": 1}


def test_a_merge_is_held_to_the_runtimes_bound_and_to_the_tenants() -> None:
    large = {"text": "x" * 600}
    assert after_merge(BEFORE, merge(after=large, allowance=Bounded(LIMIT)), LIMIT).state
    tight = Bounded(500)
    for most, allowance in ((500, None), (LIMIT, tight)):
        with pytest.raises(StateError):
            after_merge(BEFORE, merge(after=large, allowance=allowance), most)
    assert tight.asked == [(len(BEFORE.state), LIMIT)]


def test_an_update_that_changes_nothing_gives_the_very_snapshot() -> None:
    assert after_update(BEFORE, StateUpdate(put=packed(n=1)), LIMIT) is BEFORE
    assert after_update(BEFORE, StateUpdate(put=packed(n=2)), LIMIT) is not BEFORE


def test_an_update_with_a_name_is_made_once_though_it_changes_nothing() -> None:
    named = StateUpdate(put=packed(n=1), once="x")
    first = after_update(BEFORE, named, LIMIT)
    assert first.updates == ("x",)
    other = after_update(first, StateUpdate(put=packed(n=7)), LIMIT)
    assert after_update(other, named, LIMIT) is other


def test_the_names_of_the_last_updates_are_known() -> None:
    snapshot = BEFORE
    for number in range(MOST_ONCE + 1):
        snapshot = after_update(snapshot, StateUpdate(add=packed(n=1), once=str(number)), LIMIT)
    assert snapshot.updates == tuple(str(number) for number in range(1, MOST_ONCE + 1))
    assert unpack_state(snapshot.state) == {"n": MOST_ONCE + 2}


def test_an_update_that_is_refused_leaves_its_name_free() -> None:
    with pytest.raises(StateConflict):
        after_update(BEFORE, StateUpdate(put=packed(n=2), expect=packed(n=5), once="x"), LIMIT)
    assert BEFORE.updates == ()


def test_a_handle_begins_with_its_state_and_protocol() -> None:
    opened = after_opening(BEFORE, OpenHandle(TenantContext("acme", "ada"), "2027-01-01", packed(new=True)))
    assert (opened.protocol_version, unpack_state(opened.state)) == ("2027-01-01", {"new": True})
    assert opened.origin == "handle"
