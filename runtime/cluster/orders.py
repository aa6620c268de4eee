"""`Orders`: operators' questions and their answers, sealed, so that nobody else can ask or read them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from ...actors.packing import pack, unpack
from ..link.seals import ID_BYTES, Seal, Seals

__all__ = ["BadOrder", "Orders", "is_sealed"]

_MAGIC: Final = b"uo\x01"
_VERSION: Final = 129
"""Of what is sealed; none of the link's, so that neither can be taken for the other."""
_OPERATOR: Final = "an operator"
"""No incarnation: those have no blanks."""
FRESH: Final = 120.0
"""Seconds by which the clock of whoever asks may differ from the node's, its way included."""
MOST_REMEMBERED: Final = 8192
"""Questions of the last minutes that are known at once; above it nobody is answered."""


class BadOrder(Exception):
    """What was said is not sealed as it must be, or not now. Its text may be told to whoever said it."""


def is_sealed(message: bytes) -> bool:
    """Whether it claims to be."""
    return message.startswith(_MAGIC)


class Orders:
    """Either end of the questions to one node."""

    def __init__(self, seals: Seals, node: str, *, wall: Callable[[], float] = time.time) -> None:
        """`wall`: Unix time."""
        self._to_node = Seal(seals, _OPERATOR, f"node {node}")
        self._from_node = Seal(seals, f"node {node}", _OPERATOR)
        self._wall = wall
        self._answered: OrderedDict[bytes, float] = OrderedDict()

    # Who asks

    def question(self, fields: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """The question as it is sent, and what its answer is known by.

        Raises:
            ValueError: There is no key.
        """
        sealed = self._to_node.seal(_VERSION, pack({**fields, "at": self._wall()}))
        return _MAGIC + sealed, _mark(sealed)

    def read_answer(self, message: bytes, mark: bytes) -> dict[str, Any]:
        """
        Raises:
            BadOrder: It is not the node's answer to that question.
        """
        opened = self._from_node.open(_VERSION, message[len(_MAGIC) :])
        answer = None if opened is None else _map(opened)
        if answer is None or answer.pop("to", None) != mark:
            raise BadOrder("the answer is not sealed by the node that was asked")
        return answer

    # The node

    def read(self, message: bytes) -> tuple[dict[str, Any], bytes]:
        """The question that was sent, and what its answer is to be known by. Each is read once.

        Raises:
            BadOrder: Nobody who has the keys asks this, or not now, or not for the first time.
        """
        sealed = message[len(_MAGIC) :]
        opened = self._to_node.open(_VERSION, sealed)
        question = None if opened is None else _map(opened)
        if question is None:
            raise BadOrder(
                "the question is not sealed with a key of this cluster; if its keys are given, name them with "
                "--request-state-keys"
            )
        now, at = self._wall(), question.pop("at", None)
        if not isinstance(at, float) or abs(now - at) > FRESH:
            raise BadOrder(
                f"the question is from another time: clocks of operators and nodes may differ by {FRESH:g} s at most"
            )
        while self._answered and next(iter(self._answered.values())) < now - 2 * FRESH:
            self._answered.popitem(last=False)
        mark = _mark(sealed)
        if mark in self._answered:
            raise BadOrder("the question has been asked before")
        if len(self._answered) >= MOST_REMEMBERED:
            raise BadOrder("too many questions in a few minutes; ask again later")
        self._answered[mark] = now
        return question, mark

    def answer(self, answer: Mapping[str, Any], mark: bytes) -> bytes:
        """The answer as it is sent."""
        # With the key of the question: who has the cluster change its keys does not have the new one yet.
        return _MAGIC + self._from_node.seal(_VERSION, pack({**answer, "to": mark}), key=mark[:ID_BYTES])


def _mark(sealed: bytes) -> bytes:
    # Key and nonce: no two questions have the same.
    return sealed[:16]


def _map(packed: bytes) -> dict[str, Any] | None:
    try:
        value: Any = unpack(packed)
    except ValueError:
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None
