"""`Ledger`: what is used of a limit; no minute sees more."""

from __future__ import annotations

import copy
import itertools
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from understudy.actors.packing import pack
from understudy.runtime.limits.ledger import MAX_HOLDERS, TICK, UNHEARD, WINDOW, Holding, Ledger, tick_of
from understudy.runtime.limits.local_rate import LocalRate

NOW = 1_780_000_000.0


def alive(holder: str) -> bool | None:
    return True


counts = st.integers(1, 2**40)
ledgers = st.builds(
    Ledger,
    st.dictionaries(st.integers(0, 2**40), counts, max_size=20),
    st.dictionaries(
        st.text(max_size=20), st.builds(Holding, st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**40))
    ),
)


@given(ledgers)
def test_what_is_packed_comes_back(ledger: Ledger) -> None:
    assert Ledger.unpack(ledger.pack()) == ledger


def test_a_ledger_of_this_version_is_read_for_ever() -> None:
    golden = bytes.fromhex("9301 81ce d431 2f80 03 81 a6 6e6f6465 2e31 93 05 ce d431 2f80 07".replace(" ", ""))
    read = Ledger.unpack(golden)
    assert read == Ledger({3559993216: 3}, {"node.1": Holding(5, 3559993216, 7)})
    assert read.pack() == golden


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        pack([2, {}, {}]),
        pack([1, [], {}]),
        pack([1, {1: -1}, {}]),
        pack([1, {1: True}, {}]),
        pack([1, {"1": 1}, {}]),
        pack([1, {1: 2**63}, {}]),
        pack([1, {}, {"a": [1, 2]}]),
        pack([1, {}, {1: [1, 2, 3]}]),
        pack([1, {}, {"a": [-1, 2, 3]}]),
        pack("text"),
    ],
)
def test_what_is_no_ledger_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Ledger.unpack(packed)


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 20), st.integers(1, 30)), max_size=100), st.integers(1, 40))
def test_no_minute_sees_more_than_the_limit_whoever_draws_and_tells_when(
    script: list[tuple[int, float, int]], limit: int
) -> None:
    """Two nodes draw, spend some time later, and tell only with their next draw; half of them spend all at once."""
    packed: bytes | None = None
    now = NOW
    held = [0, 0]
    untold: list[dict[int, int]] = [{}, {}]
    serials = [0, 0]
    spent: deque[tuple[float, int]] = deque()
    for who, pause, wanted in script:
        now += pause
        name = f"node-{who}"
        spend = min(held[who], wanted)
        if spend:
            held[who] -= spend
            spent.append((now, spend))
            untold[who][tick_of(now)] = untold[who].get(tick_of(now), 0) + spend
        ledger = Ledger.unpack(packed)
        ledger.leave(name)
        ledger.settle(now, alive, spends=True)
        for tick, count in untold[who].items():
            ledger.spend(tick, count)
        untold[who] = {}
        drawn = max(0, min(wanted, ledger.free(limit) - held[who]))
        held[who] += drawn
        serials[who] += 1
        ledger.hold(name, held[who], now, serials[who])
        packed = ledger.pack()
        assert len(ledger.spent) <= WINDOW / TICK + 2
        while spent and spent[0][0] <= now - WINDOW:
            spent.popleft()
        assert sum(count for _, count in spent) <= limit


def test_a_token_is_back_a_minute_after_it_was_spent_and_not_before() -> None:
    ledger = Ledger()
    ledger.spend(tick_of(NOW), 10)
    wait = ledger.returns_in(NOW, 10)
    assert wait == pytest.approx(WINDOW + TICK)
    ledger.settle(NOW + WINDOW, alive, spends=True)
    assert ledger.free(10) == 0
    ledger.settle(NOW + wait, alive, spends=True)
    assert ledger.free(10) == 10
    assert ledger.pack() is None


def test_a_debt_is_waited_for_until_enough_of_it_is_back() -> None:
    ledger = Ledger()
    ledger.spend(tick_of(NOW), 5)
    ledger.spend(tick_of(NOW + 10), 20)
    assert ledger.free(10) == -15
    assert ledger.returns_in(NOW + 10, 10) == pytest.approx(WINDOW + TICK)
    assert ledger.returns_in(NOW + 10, 21) == pytest.approx(WINDOW + TICK - 10)
    assert ledger.returns_in(NOW + 10, 26) == 0.0
    ledger.hold("node", 10, NOW, 1)
    assert ledger.returns_in(NOW + 10, 10) is None


def test_what_a_fast_clock_has_dated_in_the_future_counts_as_spent_now() -> None:
    ledger = Ledger()
    ledger.spend(tick_of(NOW + 3600), 10)
    ledger.settle(NOW, alive, spends=True)
    assert ledger.returns_in(NOW, 10) == pytest.approx(WINDOW + TICK)


@pytest.mark.parametrize("spends", [True, False])
def test_what_a_dead_node_held_comes_back_and_what_it_may_have_spent_a_minute_later(spends: bool) -> None:
    ledger = Ledger()
    ledger.hold("dead", 4, NOW, 1)
    ledger.hold("living", 3, NOW, 1)
    ledger.settle(NOW, lambda holder: holder == "living", spends=spends)
    assert ledger.free(10) == (3 if spends else 7)
    ledger.settle(NOW + WINDOW + 2 * TICK, alive, spends=spends)
    assert ledger.free(10) == 7


def test_a_holder_that_nobody_ever_heard_of_is_believed_in_for_a_while() -> None:
    ledger = Ledger()
    ledger.hold("unheard", 4, NOW, 1)
    ledger.settle(NOW + UNHEARD - 1, lambda holder: None, spends=False)
    assert ledger.free(10) == 6
    ledger.settle(NOW + UNHEARD + 1, lambda holder: None, spends=False)
    assert ledger.free(10) == 10


def test_a_ledger_is_bounded_in_holders_and_in_spent_tokens() -> None:
    ledger = Ledger()
    for number in range(MAX_HOLDERS + 10):
        ledger.hold(f"node-{number}", 1, NOW + number, 1)
    ledger.settle(NOW + MAX_HOLDERS + 10, alive, spends=True)
    assert len(ledger.held) == MAX_HOLDERS
    assert "node-9" not in ledger.held
    assert ledger.used == MAX_HOLDERS + 10
    ledger.spend(1, 2**61)
    ledger.spend(1, 2**62)
    assert Ledger.unpack(ledger.pack()).spent[1] == 2**62


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 3)), max_size=60), st.integers(1, 20))
def test_a_sessions_own_rate_is_never_exceeded_and_frees_what_it_says(
    script: list[tuple[float, int]], limit: int
) -> None:
    rate = LocalRate()
    now = 50.0
    spent: deque[float] = deque()
    for pause, calls in script:
        now += pause
        for _ in itertools.repeat(None, calls):
            wait = rate.take(limit, now)
            while spent and spent[0] <= now - WINDOW:
                spent.popleft()
            if wait is None:
                spent.append(now)
                assert len(spent) <= limit
            else:
                assert len(spent) + 1 >= limit or wait <= TICK + 1e-6
                assert rate.wait(limit, now) == wait
                assert copy.deepcopy(rate).wait(limit, now + wait + 1e-6) is None


def test_a_call_that_did_not_run_gives_its_token_back() -> None:
    rate = LocalRate()
    assert rate.take(1, 0.0) is None
    rate.untake()
    assert rate.take(1, 0.0) is None
    assert rate.take(1, 0.0) == pytest.approx(WINDOW + TICK)
    assert rate.take(0, 200.0) == WINDOW
    assert rate.resting(200.0)
