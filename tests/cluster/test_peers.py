"""What a node believes of the others."""

from __future__ import annotations

from itertools import product

import pytest
from understudy.runtime.cluster.peers import BELIEVED, MAX_PEERS, NodeNews, Peers

LEASE = 3.0
"""Seconds that the others believe in a node."""


def news(incarnation: str, serial: int = 1, **more: int | bool) -> NodeNews:
    return NodeNews(incarnation, LEASE / BELIEVED, serial=serial, capacity=int(more.pop("capacity", 10)), **more)  # type: ignore[arg-type]


def test_a_peer_is_believed_for_its_lease_from_when_it_was_heard() -> None:
    peers = Peers()
    peers.heard(news("a.1"), 10.0)
    assert peers.believes("a.1", 12.99)
    assert not peers.is_dead("a.1", 12.99)
    assert not peers.believes("a.1", 13.0)
    assert peers.is_dead("a.1", 13.0)


def test_each_renewal_counts_anew() -> None:
    peers = Peers()
    peers.heard(news("a.1"), 10.0)
    assert peers.heard(news("a.1"), 12.0) is None
    assert peers.believes("a.1", 14.9)


def test_a_later_incarnation_replaces_an_earlier_one_for_good() -> None:
    peers = Peers()
    peers.heard(news("a.1", 1), 10.0)
    assert peers.heard(news("a.2", 2), 10.5) == "a.1"
    assert peers.is_dead("a.1", 10.5)
    assert peers.is_over("a.1")
    assert not peers.is_over("a.2")


def test_a_late_word_of_an_earlier_incarnation_is_not_heard() -> None:
    peers = Peers()
    peers.heard(news("a.2", 2), 10.0)
    assert peers.heard(news("a.1", 1), 11.0) is None
    assert peers.believes("a.2", 12.0)
    assert not peers.believes("a.1", 11.0)


def test_an_incarnation_never_heard_of_may_live_even_at_a_known_node() -> None:
    peers = Peers()
    peers.heard(news("a.1"), 10.0)
    assert not peers.is_dead("a.2", 10.0)
    assert not peers.is_dead("b.1", 10.0)
    assert not peers.is_over("a.2")


@pytest.mark.parametrize(("known", "struck", "again"), list(product((True, False), repeat=3)))
def test_who_is_missed_is_dead_and_who_is_struck_is_over(known: bool, struck: bool, again: bool) -> None:
    peers = Peers()
    if known:
        peers.heard(news("a.1"), 10.0)
    assert peers.left("a.1")
    assert not peers.left("a.1")
    if struck:
        peers.strike("a.1")
    assert peers.is_dead("a.1", 10.0)
    assert peers.is_over("a.1") == struck
    if again:
        peers.heard(news("a.1"), 10.1)
        assert not peers.is_dead("a.1", 10.1)
        assert not peers.is_over("a.1")


@pytest.mark.parametrize("known", [True, False])
def test_who_says_goodbye_is_over_and_is_not_told_to_have_died(known: bool) -> None:
    peers = Peers()
    if known:
        peers.heard(news("a.1"), 10.0)
    peers.heard(news("a.1", leaving=True), 10.1)
    assert peers.is_dead("a.1", 10.1)
    assert peers.is_over("a.1")
    assert not list(peers.alive(10.1))
    assert peers.newly_dead(99.0) == []
    peers.forgive(99.0)
    assert peers.is_dead("a.1", 10.1)
    assert peers.heard(news("a.2", serial=1), 10.2) == "a.1"
    assert peers.believes("a.2", 10.2)


def test_forgiving_believes_in_the_silent_but_not_in_the_struck() -> None:
    peers = Peers()
    peers.heard(news("a.1"), 0.0)
    peers.heard(news("b.1"), 0.0)
    peers.strike("b.1")
    assert peers.newly_dead(5.0) == ["a.1"]
    peers.forgive(8.0)
    assert peers.believes("a.1", 7.9)
    assert peers.is_dead("a.1", 8.0)
    assert peers.is_dead("b.1", 5.0)


def test_each_death_is_told_once() -> None:
    peers = Peers()
    peers.heard(news("a.1"), 0.0)
    assert peers.newly_dead(2.9) == []
    assert peers.newly_dead(3.0) == ["a.1"]
    assert peers.newly_dead(9.0) == []


def test_the_roomiest_takes_none_that_is_full_draining_dead_or_excluded() -> None:
    peers = Peers()
    peers.heard(news("full.1", sessions=10), 0.0)
    peers.heard(news("leaving.1", draining=True), 0.0)
    peers.heard(news("small.1", sessions=6), 0.0)
    peers.heard(news("big.1", sessions=5), 0.0)
    peers.heard(news("dead.1"), 0.0)
    peers.left("dead.1")
    big = peers.roomiest(1.0)
    assert big is not None
    assert big.incarnation == "big.1"
    peers.assign(big)
    peers.assign(big)
    small = peers.roomiest(1.0)
    assert small is not None
    assert small.incarnation == "small.1"
    assert peers.roomiest(1.0, besides=frozenset({"big.1", "small.1"})) is None


def test_the_tables_are_bounded() -> None:
    peers = Peers()
    for number in range(MAX_PEERS + 10):
        peers.heard(news(f"n{number}.1"), float(number))
        peers.left(f"m{number}.1")
    assert len(peers) == MAX_PEERS
    assert peers.get("n0") is None
    assert not peers.is_dead("m0.1", 0.0)
    assert peers.is_dead(f"m{MAX_PEERS + 9}.1", 0.0)


def test_the_long_dead_are_forgotten() -> None:
    peers = Peers()
    peers.heard(news("a.1"), 0.0)
    assert peers.forget_dead(602.9, after=600.0) == []
    assert peers.forget_dead(603.0, after=600.0) == ["a.1"]
    assert len(peers) == 0
