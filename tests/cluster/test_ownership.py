"""What a node holds, and for how long it may act on it."""

from __future__ import annotations

import pytest
from understudy.runtime.cluster.entry import Entry
from understudy.runtime.cluster.ownership import OWN_SHARE, Ownership
from understudy.runtime.cluster.peers import NodeNews
from understudy.stores import Address

A = Address("session", "a")
LEASE = 3.0


@pytest.fixture
def ownership() -> Ownership:
    ownership = Ownership("n.0", lease=LEASE)
    ownership.begin("n.1", 100.0)
    return ownership


def mine(epoch: int, revision: int) -> Entry:
    return Entry("n.1", epoch, revision)


# The lease


def test_nothing_may_run_before_the_first_lease() -> None:
    ownership = Ownership("n.0", lease=LEASE)
    ownership.renewed(100.0)
    assert not ownership.may_run(100.0)
    assert ownership.lapse(100.0) is None


def test_the_lease_is_counted_from_when_the_renewal_left_and_ends_before_the_others_think(ownership: Ownership) -> None:
    ownership.renewed(101.0)
    end = 101.0 + LEASE * OWN_SHARE
    assert ownership.may_run(end - 0.01)
    assert not ownership.may_run(end)
    ownership.renewed(100.5)
    assert ownership.may_run(end - 0.01)


def test_a_lapse_lets_go_of_everything_once(ownership: Ownership) -> None:
    ownership.taken(A, mine(2, 5))
    ownership.hand_off(A)
    assert ownership.lapse(101.0) is None
    assert ownership.lapse(103.0) == [A]
    assert ownership.lapse(104.0) is None
    assert not ownership.holds(A)
    assert not ownership.handing_off(A)
    ownership.renewed(104.0)
    assert not ownership.may_run(104.0)


def test_a_struck_lease_is_over_at_once(ownership: Ownership) -> None:
    ownership.taken(A, mine(2, 5))
    assert ownership.struck() == [A]
    assert ownership.struck() is None
    assert not ownership.may_run(100.1)


def test_what_was_given_to_an_earlier_incarnation_is_not_held_by_the_next(ownership: Ownership) -> None:
    ownership.struck()
    ownership.begin("n.2", 105.0)
    assert not ownership.adopts(A, mine(2, 9))
    assert not ownership.taken(A, mine(2, 9))
    assert ownership.is_dead("n.1", 105.0)
    assert not ownership.is_dead("n.2", 105.0)
    assert not ownership.must_strike("n.1")


# Holding


def test_a_new_session_is_held_before_it_is_entered(ownership: Ownership) -> None:
    assert ownership.opened(A) == Entry("n.1", 1, 0)
    assert ownership.release(A) is None
    ownership.struck()
    assert ownership.opened(A) is None


def test_what_is_published_too_late_must_be_undone_and_is_not_taken_up_again(ownership: Ownership) -> None:
    ownership.opened(A)
    ownership.release(A)
    assert not ownership.published(A, 7, "n.1")
    assert not ownership.adopts(A, mine(1, 7))
    assert ownership.adopts(A, mine(2, 8))


@pytest.mark.parametrize("let_go", ["release", "lost", "handed_off"])
def test_what_was_let_go_of_is_held_again_only_under_a_new_revision(ownership: Ownership, let_go: str) -> None:
    assert ownership.adopts(A, mine(2, 5))
    if let_go == "handed_off":
        ownership.handed_off(A, "m.1")
    else:
        getattr(ownership, let_go)(A)
    assert not ownership.adopts(A, mine(2, 5))
    assert not ownership.taken(A, mine(2, 5))
    assert ownership.taken(A, mine(3, 6))


def test_others_entries_are_not_adopted(ownership: Ownership) -> None:
    assert not ownership.adopts(A, Entry("m.1", 2, 5))
    assert not ownership.adopts(A, Entry("", 2, 5))


@pytest.mark.parametrize(("got", "confirms"), [(2, False), (1, True), (3, True)])
def test_an_unexpected_epoch_is_confirmed_before_the_first_turn(ownership: Ownership, got: int, confirms: bool) -> None:
    ownership.taken(A, mine(2, 5))
    assert ownership.claimed(A, got) == (Entry("n.1", got, 5) if confirms else None)
    assert ownership.claimed(A, got + 1) is None
    assert ownership.claimed(A, got + 3) == Entry("n.1", got + 3, 5)


def test_a_claim_of_what_is_not_held_writes_nothing(ownership: Ownership) -> None:
    assert ownership.claimed(A, 2) is None


def test_an_entry_at_rest_tells_the_epoch_that_was_claimed(ownership: Ownership) -> None:
    ownership.taken(A, mine(2, 5))
    ownership.claimed(A, 2)
    ownership.claimed(A, 3)
    assert ownership.release(A) == Entry("", 3, 5)
    ownership.taken(A, mine(4, 6))
    assert ownership.release(A) == Entry("", 3, 6)


@pytest.mark.parametrize(("to", "epoch"), [("m.1", 3), ("", 2)])
def test_a_hand_off_foretells_the_new_owners_epoch(ownership: Ownership, to: str, epoch: int) -> None:
    ownership.taken(A, mine(2, 5))
    ownership.claimed(A, 2)
    assert ownership.hand_off(A)
    assert not ownership.hand_off(A)
    assert ownership.handing_off(A)
    assert ownership.handed_off(A, to) == Entry(to, epoch, 5)
    assert not ownership.handing_off(A)
    assert ownership.handed_off(A, to) is None
    assert not ownership.hand_off(A)


# Hints


def test_older_hints_are_not_learnt(ownership: Ownership) -> None:
    ownership.learn(A, Entry("m.1", 5, 50))
    ownership.learn(A, Entry("k.1", 4, 60))
    assert ownership.hint(A) == Entry("m.1", 5, 50)
    ownership.learn(A, Entry("k.1", 6, 60))
    assert ownership.hint(A) == Entry("k.1", 6, 60)
    ownership.unlearn(A)
    assert ownership.hint(A) is None


def test_hints_are_bounded_and_the_least_used_goes() -> None:
    ownership = Ownership("n.1", lease=LEASE, max_hints=2)
    for name in ("a", "b"):
        ownership.learn(Address("session", name), Entry("m.1", 1, 1))
    ownership.hint(A)
    ownership.learn(Address("session", "c"), Entry("m.1", 1, 1))
    assert ownership.hint(A) is not None
    assert ownership.hint(Address("session", "b")) is None


# The others


def test_news_of_oneself_is_no_news(ownership: Ownership) -> None:
    assert ownership.heard(NodeNews("n.0", LEASE), 100.0) is None
    assert len(ownership.peers) == 0


def test_a_node_that_was_out_of_touch_does_not_trust_silence(ownership: Ownership) -> None:
    ownership.heard(NodeNews("m.1", LEASE), 100.0)
    assert ownership.trusts_silence(100.0)
    ownership.renewed(101.0)
    assert ownership.trusts_silence(101.0)
    ownership.renewed(103.5)
    assert not ownership.trusts_silence(106.4)
    assert not ownership.is_dead("m.1", 106.4)
    assert ownership.trusts_silence(106.6)
    assert ownership.is_dead("m.1", 106.6)


def test_only_what_can_no_longer_renew_need_not_be_struck(ownership: Ownership) -> None:
    ownership.heard(NodeNews("m.1", LEASE, serial=1), 100.0)
    assert ownership.must_strike("m.1")
    assert ownership.must_strike("k.1")
    assert not ownership.must_strike("")
    assert not ownership.must_strike("n.1")
    ownership.heard(NodeNews("m.2", LEASE, serial=2), 100.0)
    assert not ownership.must_strike("m.1")
    ownership.peers.strike("m.2")
    assert not ownership.must_strike("m.2")
