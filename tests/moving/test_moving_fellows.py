"""Which nodes of a cluster that moves to another store may run side by side, and what the others are told."""

from __future__ import annotations

import pytest
from understudy.runtime.cluster.errors import StoreNotShared
from understudy.runtime.cluster.fellowship import Fellowship
from understudy.runtime.cluster.node_news import pack_news, unpack_news
from understudy.runtime.cluster.peers import NodeNews
from understudy.runtime.commands.config import ConfigError, ServeOptions
from understudy.stores.moving import Transition

KINDS: dict[str, tuple[str, Transition]] = {
    "A": ("A", Transition()),
    "A, next B": ("A", Transition(next="B")),
    "B, from A": ("B", Transition(former="A", left=True)),
    "B, from A, empty": ("B", Transition(former="A")),
    "B": ("B", Transition()),
    "A, next C": ("A", Transition(next="C")),
    "B, next C": ("B", Transition(next="C")),
    "B, from C": ("B", Transition(former="C")),
    "C": ("C", Transition()),
}

TOGETHER = {
    ("A", "A, next B"): "",
    ("A", "A, next C"): "",
    ("A, next B", "B, from A"): "",
    ("A, next B", "B, from A, empty"): "",
    ("B, from A", "B, from A, empty"): "",
    ("B, from A, empty", "B"): "",
    ("B, from C", "B"): "",
    ("B", "B, next C"): "",
    ("A", "B, from A"): "before the first with --former-store",
    ("A", "B, from A, empty"): "before the first with --former-store",
    ("A, next B", "B"): "before the first with the new store alone",
    ("B, from A", "B"): "understudy store move",
    ("B, from A", "B, next C"): "one move after the other",
    ("A, next B", "A, next C"): "name one --next-store",
    ("B, from A", "B, from C"): "name one --former-store",
    ("A", "B"): "another store",
    ("A", "C"): "another store",
}


def news(kind: str) -> NodeNews:
    store, transition = KINDS[kind]
    return NodeNews(
        "n.0",
        3.0,
        store=store,
        next_store=transition.next,
        former_store=transition.former,
        left=transition.left,
    )


def said(one: str, other: str) -> str:
    """What keeps `one` out of a cluster with `other`; empty if nothing does."""
    store, transition = KINDS[one]
    heard = unpack_news(pack_news(news(other)))
    assert heard is not None
    try:
        Fellowship("shop", store, (), transition).check(heard)
    except StoreNotShared as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("one", "other"), TOGETHER)
def test_nodes_of_neighbouring_steps_run_side_by_side_and_no_others(one: str, other: str) -> None:
    expected = TOGETHER[one, other]
    for told in (said(one, other), said(other, one)):
        assert bool(told) == bool(expected), told
        assert expected in told


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_of_one_kind_run_side_by_side(kind: str) -> None:
    assert said(kind, kind) == ""


def test_who_was_made_before_there_were_moves_is_taken_for_one_with_one_store() -> None:
    store, transition = KINDS["B, from A"]
    assert "--former-store" in said("A", "B, from A")
    with pytest.raises(StoreNotShared, match="store move"):
        Fellowship("shop", store, (), transition).check(NodeNews("n.0", 3.0, store="B"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"next_store": "sqlite:///b.db", "former_store": "sqlite:///c.db"}, "exclude each other"),
        ({"store": "sqlite:///a.db", "next_store": "sqlite:///a.db"}, "name two stores"),
        ({"store": "sqlite:///a.db", "next_store": "memory://"}, "for stores that last"),
        ({"store": "memory://", "former_store": "sqlite:///a.db"}, "for stores that last"),
        (
            {"cluster": "shop", "nats": "nats://example.com", "next_store": "sqlite:///a.db"},
            "--next-store sqlite: is a file of one machine",
        ),
    ],
)
def test_stores_that_cannot_be_moved_between_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ServeOptions(**options)  # pyright: ignore[reportArgumentType]
