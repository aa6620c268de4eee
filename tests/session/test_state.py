"""What `session.state` keeps, and what it refuses: the packing alone, without a session."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from understudy.actors.session import ReadOnlyTurn, StateError
from understudy.actors.session.state import EMPTY_STATE, ReadOnlyState, pack_state, unpack_state

LIMIT = 2**20

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
instants = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | texts
    | st.binary(max_size=20)
    | instants
)
keys = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts | st.binary(max_size=5) | instants
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
states = st.dictionaries(texts, values, max_size=5)


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal types all the way down."""
    if type(one) is not type(other) or one != other:
        return False
    if type(one) is dict:
        pairs = zip(one.items(), other.items(), strict=True)
        return all(same(a, b) and same(x, y) for (a, x), (b, y) in pairs)
    if type(one) is list:
        return all(same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is not float or math.copysign(1, one) == math.copysign(1, other)


@given(states)
def test_every_value_that_is_allowed_comes_back_equal_and_of_its_type(state):
    assert same(unpack_state(pack_state(state, LIMIT)), state)


def test_a_value_that_is_not_a_number_comes_back_so():
    assert math.isnan(unpack_state(pack_state({"x": math.nan}, LIMIT))["x"])


@given(st.integers() | st.text() | st.binary() | st.datetimes(timezones=zones) | st.datetimes() | values)
def test_what_is_accepted_can_be_read_back_and_the_rest_is_refused_by_name(value):
    refusal = refusal_of(value)
    assert refusal is None or "session.state['key']" in refusal


def test_what_comes_back_shares_nothing_with_what_went_in():
    inner = [1]
    packed = pack_state({"list": inner}, LIMIT)
    first, second = unpack_state(packed), unpack_state(packed)
    first["list"].append(2)
    assert second["list"] == [1]
    assert inner == [1]


class Colour(enum.Enum):
    RED = 1


class Weight(enum.IntEnum):
    HEAVY = 1


class Name(str):
    __slots__ = ()


class Moment(datetime):
    pass


def itself() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


REFUSED: list[tuple[Any, str]] = [
    ({1}, "session.state['key'] is a set"),
    ((1, 2), "session.state['key'] is a tuple"),
    (object(), "session.state['key'] is a object"),
    (Colour.RED, "session.state['key'] is a Colour"),
    (Weight.HEAVY, "session.state['key'] is a Weight"),
    (Name("Ada"), "session.state['key'] is a Name"),
    (OrderedDict(a=1), "session.state['key'] is a OrderedDict"),
    (bytearray(b"x"), "session.state['key'] is a bytearray"),
    (memoryview(b"x"), "session.state['key'] is a memoryview"),
    (msgpack.ExtType(5, b"x"), "session.state['key'] is a ExtType"),
    (msgpack.Timestamp(1), "session.state['key'] is a Timestamp"),
    (date(2026, 7, 28), "session.state['key'] is a date"),
    (timedelta(1), "session.state['key'] is a timedelta"),
    (1 + 2j, "session.state['key'] is a complex"),
    (Moment(2026, 7, 28, tzinfo=UTC), "session.state['key'] is a Moment"),
    (2**64, "session.state['key'] is an int of more than 64 bits"),
    (-(2**63) - 1, "session.state['key'] is an int of more than 64 bits"),
    (datetime(2026, 7, 28), "session.state['key'] is a datetime without a time zone"),
    (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "session.state['key'] is a datetime outside"),
    (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "session.state['key'] is a datetime outside"),
    ("\ud800", "session.state['key'] is a str with a lone surrogate"),
    ({"deep": [0, {"er": {1, 2}}]}, "session.state['key']['deep'][1]['er'] is a set"),
    ({(1, 2): 3}, "the key (1, 2) of session.state['key'] is a tuple"),
    ({Name("x"): 3}, "the key 'x' of session.state['key'] is a Name"),
    ({"\udfff": 1}, "the key '\\udfff' of session.state['key'] is a str with a lone surrogate"),
    (itself(), "nested too deep, or contains itself, at session.state['key'][0][0]"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_what_would_not_come_back_as_it_was_is_refused_with_its_path_and_type(value, message):
    with pytest.raises(StateError) as refused:
        pack_state({"fine": 1, "key": value}, LIMIT)
    assert message in str(refused.value)


def test_a_refusal_leaves_the_packer_clean_for_the_next():
    before = pack_state({"a": [1, 2]}, LIMIT)
    with pytest.raises(StateError):
        pack_state({"a": [1, {2}]}, LIMIT)
    assert pack_state({"a": [1, 2]}, LIMIT) == before


@pytest.mark.parametrize("key", [1, None, b"x", (1,), True, Name("x")])
def test_a_key_at_the_top_must_be_a_str(key):
    with pytest.raises(
        StateError, match=f"of type {type(key).__name__}; its keys must be str|is a {type(key).__name__}"
    ):
        pack_state({key: 1}, LIMIT)


def test_a_state_over_its_bound_is_refused_with_its_sizes_and_its_largest_key():
    state = {"small": 1, "large": "x" * 1000}
    size = len(pack_state(state, LIMIT))
    assert pack_state(state, size)
    with pytest.raises(StateError) as refused:
        pack_state(state, size - 1)
    message = str(refused.value)
    assert f"takes {size} bytes, over the limit of {size - 1}" in message
    assert "largest key, 'large'" in message


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}], ids=["lists", "dicts"])
def test_what_is_nested_too_deep_is_refused_and_all_that_is_accepted_can_be_read_back(wrap):
    value: Any = []
    levels = 1
    while (refusal := refusal_of(value)) is None and levels < 5000:
        value = wrap(value)
        levels += 1
    assert levels > 500
    assert refusal is not None
    assert "nested too deep, or contains itself" in refusal


def refusal_of(value: Any) -> str | None:
    try:
        packed = pack_state({"key": value}, LIMIT)
    except StateError as error:
        return str(error)
    unpack_state(packed)
    return None


def test_the_path_in_a_message_is_short_however_long_the_key():
    with pytest.raises(StateError) as refused:
        pack_state({"k" * 100_000: {1}}, LIMIT)
    assert len(str(refused.value)) < 1000
    assert "is a set" in str(refused.value)


def test_the_empty_state_is_what_a_new_session_has():
    assert unpack_state(EMPTY_STATE) == {}
    assert pack_state({}, 1) == EMPTY_STATE


WRITES: dict[str, Any] = {
    "item": lambda state: state.__setitem__("a", 2),
    "new item": lambda state: state.__setitem__("b", 2),
    "del": lambda state: state.__delitem__("a"),
    "update": lambda state: state.update(a=2),
    "|=": lambda state: state.__ior__({"a": 2}),
    "pop": lambda state: state.pop("a"),
    "popitem": lambda state: state.popitem(),
    "clear": lambda state: state.clear(),
    "setdefault": lambda state: state.setdefault("b", 2),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_each_way_to_write_at_the_top_of_a_read_only_state_names_who_wrote(write):
    state = ReadOnlyState.of(pack_state({"a": 1}, LIMIT), "tool 'count'")
    with pytest.raises(ReadOnlyTurn, match=r"tool 'count' changed session\.state, but it may only read"):
        write(state)
    assert state == {"a": 1}


def test_a_read_only_state_is_a_mapping_to_read():
    state = ReadOnlyState.of(pack_state({"a": 1, "b": [2]}, LIMIT), "tool 'count'")
    assert state["a"] == 1
    assert state.get("c", 3) == 3
    assert list(state) == ["a", "b"]
    assert "b" in state
    assert len(state) == 2
    assert state.setdefault("a", 5) == 1
    assert state | {"c": 3} == {"a": 1, "b": [2], "c": 3}
    assert dict(state.items()) == {"a": 1, "b": [2]}
