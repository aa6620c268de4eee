"""A change of a session's state as data: what it does, what it refuses, and how it travels."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from understudy.actors.session import StateConflict, StateError
from understudy.actors.session.state import pack_state, unpack_state
from understudy.actors.session.state_update import StateUpdate, state_tag

LIMIT = 2**20
STATE = {"count": 3, "name": "ada", "list": [1, {"two": 2}], "yes": True, "when": datetime(2026, 7, 28, tzinfo=UTC)}
PACKED = pack_state(STATE, LIMIT)


def update(put: Any = None, **more: Any) -> StateUpdate:
    options: dict[str, Any] = {
        "remove": (),
        "add": None,
        "expect": None,
        "absent": (),
        "tag": None,
        "replace": False,
        "once": None,
        "limit": LIMIT,
    }
    return StateUpdate.of(put, **(options | more))


def after(put: Any = None, **more: Any) -> dict[str, Any]:
    return unpack_state(update(put, **more).applied(PACKED, LIMIT))


def test_keys_are_put_and_removed_and_added_to_and_the_others_stay() -> None:
    changed = after({"name": "bob", "new": None}, remove=["list", "never there"], add={"count": 2, "visits": 1})
    assert changed == {"count": 5, "name": "bob", "yes": True, "when": STATE["when"], "new": None, "visits": 1}


def test_replace_leaves_what_is_put_or_added_to() -> None:
    assert after({"a": 1}, add={"count": 1}, replace=True) == {"count": 4, "a": 1}
    assert after(replace=True) == {}


@pytest.mark.parametrize(
    "expectation",
    [
        {"expect": {"count": 3, "list": [1, {"two": 2}]}},
        {"expect": {"when": STATE["when"]}},
        {"absent": ["gone"]},
        {"tag": state_tag(PACKED)},
    ],
)
def test_what_is_as_expected_is_changed(expectation: dict[str, Any]) -> None:
    assert after({"name": "bob"}, **expectation)["name"] == "bob"


@pytest.mark.parametrize(
    ("expectation", "keys"),
    [
        ({"expect": {"count": 4, "name": "ada"}}, ("count",)),
        ({"expect": {"yes": 1}}, ("yes",)),  # equal to True, and not the same
        ({"expect": {"gone": None}}, ("gone",)),
        ({"expect": {"list": [1]}, "absent": ["name", "gone"]}, ("list", "name")),
        ({"tag": "0" * 24}, ()),
    ],
)
def test_what_is_not_as_expected_is_a_conflict_that_names_the_keys(
    expectation: dict[str, Any], keys: tuple[str, ...]
) -> None:
    with pytest.raises(StateConflict) as conflict:
        after({"name": "bob"}, **expectation)
    assert conflict.value.keys == keys


def test_what_changes_nothing_is_the_very_state() -> None:
    for nothing in (update(), update({"count": 3}), update(remove=["gone"]), update(add={"count": 0})):
        assert nothing.applied(PACKED, LIMIT) is PACKED


class Color(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("put", "more", "says"),
    [
        ({"color": Color.RED}, {}, "is a Color, which cannot be saved"),
        ({"many": {1, 2}}, {}, "is a set"),
        ({7: 1}, {}, "keys must be str"),
        ([("a", 1)], {}, "it must be a mapping"),
        (None, {"remove": "name"}, "must be several keys"),
        (None, {"absent": [7]}, "keys must be str"),
        (None, {"add": {"count": "1"}}, "only an int or a float"),
        (None, {"add": {"count": True}}, "only an int or a float"),
        ({"count": 1}, {"add": {"count": 1}}, "two things of 'count'"),
        ({"count": 1}, {"remove": ["count"]}, "two things of 'count'"),
        (None, {"remove": ["count"], "add": {"count": 1}}, "two things of 'count'"),
        (None, {"once": ""}, "1 to 128 characters"),
        (None, {"once": "x" * 129}, "1 to 128 characters"),
        (None, {"once": 7}, "1 to 128 characters"),
        (None, {"tag": 7}, "must be the tag"),
        ({"large": "x" * 100}, {"limit": 100}, "over the limit of 100"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(put: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(StateError, match=says):
        update(put, **more)


def test_what_is_no_number_is_not_added_to() -> None:
    for key in ("name", "yes", "list"):
        with pytest.raises(StateError, match="nothing can be added to it"):
            after(add={key: 1})
    with pytest.raises(StateError, match="more than 64 bits"):
        after(add={"count": 2**64 - 1})
    for number in (math.inf, -math.inf, math.nan):
        with pytest.raises(StateError, match="ever be counted"):
            after(add={"count": number})


def test_a_state_that_becomes_too_large_is_refused() -> None:
    with pytest.raises(StateError, match="over the limit"):
        update({"more": "x" * 50}).applied(PACKED, len(PACKED) + 20)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
states = st.dictionaries(texts, st.integers(0, 9) | texts, max_size=4)


@given(states, st.lists(texts, max_size=3), states, st.none() | texts, st.booleans(), st.none() | st.just("once"))
def test_an_update_comes_back_equal(
    put: dict[str, Any], absent: list[str], expect: dict[str, Any], tag: str | None, replace: bool, once: str | None
) -> None:
    made = update(put, absent=absent, expect=expect, tag=tag, replace=replace, once=once)
    assert StateUpdate.unpack(made.pack()) == made


@given(st.binary(max_size=100))
def test_garbage_is_no_update(garbage: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgpack says it in many ways, or not at all
        StateUpdate.unpack(garbage)


@pytest.mark.parametrize(
    "changes",
    [{"later": 1}, {"put": 1}, {"put": b"\x01"}, {"put": b"\xc1"}, {"remove": [1]}, {"tag": 1}, {"replace": 1}],
)
def test_what_this_version_does_not_know_is_not_half_done(changes: dict[str, Any]) -> None:
    fields = msgpack.unpackb(update({"a": 1}).pack())
    with pytest.raises(ValueError):  # noqa: PT011 - msgpack says it in many ways, or not at all
        StateUpdate.unpack(msgpack.packb({**fields, **changes}))
