"""`ShortCut`: hands whole messages from the bytes that a connection has brought straight to who waits for them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from nats.aio.subscription import Subscription

__all__ = ["ShortCut", "Take"]

logger = logging.getLogger(__name__)

Take = Callable[[bytes, bytes], bool]
"""Subject and payload; False if the message is to go the usual way, and those behind it too."""

_MSG: Final = b"MSG "
_END: Final = b"\r\n"


class ShortCut:
    """Reads the one line of NATS' protocol that nearly all of a node's traffic is made of; the rest is nats-py's."""

    __slots__ = ("_stats", "_takers", "taken")

    def __init__(self, stats: dict[str, int]) -> None:
        """`stats`: the client's, which count what passes here as well."""
        self.taken = 0
        """Messages that have passed here."""
        self._stats = stats
        self._takers: dict[bytes, tuple[Any, Take]] = {}
        """By the subscription's number, as it is written."""

    def open(self, subscription: Subscription, take: Take) -> None:
        """`subscription` is read here from now on. `take` must not wait."""
        self._takers[_number(subscription)] = (subscription, take)

    def close(self, subscription: Subscription) -> None:
        """`subscription` is not read here any more."""
        self._takers.pop(_number(subscription), None)

    def read(self, data: bytes) -> bytes:
        """`data`, which begins where a line does, without the messages at its beginning that were taken."""
        at, size = 0, len(data)
        while data.startswith(_MSG, at):
            end = data.find(_END, at)
            words = data[at + 4 : end].split()
            # With a reply subject, or without one.
            if end < 0 or not 3 <= len(words) <= 4 or not words[-1].isdigit():
                break
            taker = self._takers.get(words[1])
            start = end + 2
            stop = start + int(words[-1])
            if taker is None or size < stop + 2:
                break
            subscription, take = taker
            # Counted before: whoever takes it may look.
            self.taken += 1
            try:
                if not take(words[0], data[start:stop]):
                    self.taken -= 1
                    break
            except Exception:
                # The reader must not die of it; the message is lost, as NATS may lose any.
                logger.exception("a message from NATS could not be handled")
            subscription._received += 1
            self._stats["in_msgs"] += 1
            self._stats["in_bytes"] += stop - start
            at = stop + 2
        return data[at:] if at else data


def _number(subscription: Subscription) -> bytes:
    number: Any = subscription
    return b"%d" % number._id
