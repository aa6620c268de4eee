"""`Lanes`: who is served next."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from understudy.runtime.fairness.lanes import LaneFull, Lanes, LanesFull


def lanes(per_tenant: int = 1000, in_all: int = 10_000) -> Lanes[int]:
    return Lanes(per_tenant=per_tenant, in_all=in_all)


def served(queue: Lanes[int], count: int) -> list[str]:
    out: list[str] = []
    for _ in range(count):
        due = queue.pop()
        assert due is not None
        out.append(due[0])
    return out


def test_a_tenant_with_one_waits_for_no_more_than_one_of_each_other() -> None:
    queue = lanes()
    for number in range(500):
        queue.push("loud", number, 1.0)
    served(queue, 100)
    queue.push("quiet", 0, 1.0)
    assert "quiet" in served(queue, 2)


def test_one_tenant_is_served_in_the_order_of_its_coming() -> None:
    queue = lanes()
    for number in range(50):
        queue.push("a", number, 1.0)
    assert [due[1] for _ in range(50) if (due := queue.pop())] == list(range(50))
    assert queue.pop() is None


def test_shares_are_as_the_weights() -> None:
    queue = lanes()
    for number in range(300):
        queue.push("poor", number, 1.0)
        queue.push("rich", number, 1 / 3)
    counted = Counter(served(queue, 120))
    assert counted["rich"] == pytest.approx(90, abs=3)


def test_large_requests_count_for_more() -> None:
    queue = lanes()
    for number in range(200):
        queue.push("large", number, 10.0)
        queue.push("small", number, 1.0)
    counted = Counter(served(queue, 110))
    assert counted["small"] == pytest.approx(100, abs=3)


def test_what_was_not_used_is_not_saved_up() -> None:
    queue = lanes()
    for number in range(400):
        queue.push("busy", number, 1.0)
    served(queue, 200)
    for number in range(200):
        queue.push("late", number, 1.0)
    assert Counter(served(queue, 100))["busy"] == pytest.approx(50, abs=2)


def test_leaving_and_coming_back_wins_nothing() -> None:
    queue = lanes()
    for number in range(400):
        queue.push("steady", number, 1.0)
    got = 0
    for number in range(100):
        queue.push("flicker", number, 8.0)
        got += served(queue, 2).count("flicker")
        queue.discard("flicker", number)
    # Of 100 times two places, at a ninth of the steady one's rate.
    assert got < 30


def test_a_full_lane_takes_no_more_and_the_others_still_do() -> None:
    queue = lanes(per_tenant=3)
    for number in range(3):
        queue.push("a", number, 1.0)
    with pytest.raises(LaneFull):
        queue.push("a", 3, 1.0)
    queue.push("b", 0, 1.0)
    assert len(queue) == 4


def test_when_all_is_full_the_newest_of_the_longest_goes() -> None:
    queue = lanes(in_all=10)
    for number in range(8):
        queue.push("loud", number, 1.0)
    queue.push("calm", 0, 1.0)
    queue.push("calm", 1, 1.0)
    assert queue.push("new", 0, 1.0) == 7
    with pytest.raises(LanesFull):
        queue.push("loud", 8, 1.0)
    assert len(queue) == 10


def test_when_all_is_full_nobody_has_less_than_his_share() -> None:
    queue = lanes(in_all=9)
    for number in range(9):
        queue.push("loud", number, 1.0)
    for tenant in ("a", "b"):
        for number in range(3):
            assert queue.push(tenant, number, 1.0) is not None
    for tenant in ("a", "b", "loud"):
        with pytest.raises(LanesFull):
            queue.push(tenant, 3, 1.0)
    assert Counter(served(queue, 9)) == {"loud": 3, "a": 3, "b": 3}


def test_what_is_discarded_is_not_served_and_takes_no_room() -> None:
    queue = lanes(per_tenant=2)
    items = [10, 11]
    for item in items:
        queue.push("a", item, 1.0)
    assert queue.discard("a", 10)
    assert not queue.discard("a", 10)
    assert not queue.discard("nobody", 10)
    queue.push("a", 12, 1.0)
    assert [due[1] for _ in range(2) if (due := queue.pop())] == [11, 12]


def test_who_has_had_no_more_than_the_others_passes_by_and_then_waits_for_as_much() -> None:
    queue = lanes()
    for number in range(10):
        queue.push("loud", number, 1.0)
    assert queue.pass_by("quiet", 3.0)
    assert not queue.pass_by("quiet", 3.0)
    assert not queue.pass_by("loud", 1.0)
    served(queue, 3)
    assert not queue.pass_by("quiet", 3.0)
    served(queue, 1)
    assert queue.pass_by("quiet", 3.0)
    queue.push("quiet", 0, 1.0)
    assert served(queue, 4).count("quiet") == 1


def test_what_passing_by_leaves_is_bounded() -> None:
    queue = lanes(in_all=10)
    for number in range(3):
        queue.push("loud", number, 0.001)
    assert all(queue.pass_by(f"t{number}", 1000.0) for number in range(1000))
    assert queue.tenants <= 10
    for number in range(7):
        queue.push(f"late{number}", number, 1000.0)
    while queue.pop() is not None:
        assert queue.tenants <= 20
    assert queue.tenants == 0


def test_nothing_is_kept_of_those_who_have_gone() -> None:
    queue = lanes()
    for number in range(1000):
        queue.push(f"t{number}", number, 1.0)
        queue.discard(f"t{number}", number)
    assert queue.pop() is None
    assert queue.tenants == 0
    for number in range(1000):
        queue.push(f"t{number}", number, 1.0)
    served(queue, 1000)
    assert queue.tenants == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["push", "pop", "pass_by", "discard"]), st.floats(0.01, 100)),
        max_size=200,
    )
)
def test_all_that_is_let_wait_comes_out_once(steps: list[tuple[str, str, float]]) -> None:
    queue = lanes(per_tenant=5, in_all=8)
    waiting: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for number, (tenant, step, cost) in enumerate(steps):
        if step == "push":
            try:
                out = queue.push(tenant, number, cost)
            except LaneFull:
                assert len(waiting[tenant]) == 5
            except LanesFull:
                assert sum(map(len, waiting.values())) == 8
                assert max(map(len, waiting.values())) <= len(waiting[tenant]) + 1
            else:
                for each in waiting.values():
                    if out in each:
                        each.remove(out)
                waiting[tenant].append(number)
        elif step == "pop":
            due = queue.pop()
            if due is None:
                assert not any(waiting.values())
            else:
                assert waiting[due[0]].pop(0) == due[1]
        elif step == "pass_by":
            assert not (queue.pass_by(tenant, cost) and waiting[tenant])
        elif waiting[tenant]:
            assert queue.discard(tenant, waiting[tenant].pop())
        assert len(queue) == sum(map(len, waiting.values())) <= 8
