"""`Supervision`: which addresses may not be activated for now, because they failed too often."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from ..stores import Address
from .errors import ActorUnavailable

__all__ = ["RestartPolicy", "Supervision"]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often an actor may fail before its address is refused for a while. Times are in seconds.

    `max_restarts` faults (an actor dropped because its own `rollback` or `saved` raised) within `window` are
    followed by a new activation; one more refuses the address until the oldest has left the window. The n-th
    activation failure in a row refuses it for `backoff` times 2^(n-1), at most `max_backoff`, less up to half
    by jitter.
    """

    max_restarts: int = 5
    window: float = 60.0
    backoff: float = 0.1
    max_backoff: float = 30.0
    max_remembered: int = 10_000
    """Addresses with failures that are remembered; beyond it the one that failed longest ago is forgiven."""


@dataclass(slots=True)
class _History:
    failures: int = 0
    refused_until: float = -math.inf
    why: str = ""
    faults: list[float] = field(default_factory=list[float])


class Supervision:
    """The failures of this node's addresses, in a bounded table. An address that never failed is not in it."""

    def __init__(self, policy: RestartPolicy, now: Callable[[], float], random: Random) -> None:
        self._policy = policy
        self._now = now
        self._random = random
        self._histories: OrderedDict[Address, _History] = OrderedDict()

    def check(self, address: Address) -> None:
        """Raise if `address` may not be activated now.

        Raises:
            ActorUnavailable: It failed too often; `retry_after` says when it may be tried.
        """
        history = self._histories.get(address)
        if history is None:
            return
        now = self._now()
        if now < history.refused_until:
            raise ActorUnavailable(
                f"actor {address} could not be activated {history.failures} times in a row, last because of "
                f"{history.why}; it is tried again later",
                address,
                retry_after=history.refused_until - now,
            )
        self._forget_old_faults(history, now)
        if len(history.faults) > self._policy.max_restarts:
            raise ActorUnavailable(
                f"actor {address} failed {len(history.faults)} times within {self._policy.window:g} s; "
                "it is started again when the first failure is that long ago",
                address,
                retry_after=history.faults[0] + self._policy.window - now,
            )

    def activation_failed(self, address: Address, why: BaseException) -> None:
        """`address` could not be activated: refuse it for a while that doubles each time."""
        history = self._remember(address)
        delay = min(self._policy.max_backoff, self._policy.backoff * 2 ** min(history.failures, 32))
        history.failures += 1
        history.why = f"{type(why).__name__}: {why}"[:200]
        history.refused_until = self._now() + delay * (1 - self._random.random() / 2)

    def activated(self, address: Address) -> None:
        """`address` is live: its activation failures are forgiven, its faults are not."""
        history = self._histories.get(address)
        if history is None:
            return
        history.failures = 0
        history.refused_until = -math.inf
        self._forget_old_faults(history, self._now())
        if not history.faults:
            del self._histories[address]

    def faulted(self, address: Address) -> None:
        """The live actor at `address` was dropped by a fault of its own."""
        history = self._remember(address)
        history.faults.append(self._now())
        # One more than the limit is enough to refuse; a refused address adds none.
        del history.faults[: -(self._policy.max_restarts + 1)]

    def forget(self, address: Address) -> None:
        """`address` has ended."""
        self._histories.pop(address, None)

    def __len__(self) -> int:
        return len(self._histories)

    def _remember(self, address: Address) -> _History:
        history = self._histories.get(address)
        if history is None:
            if len(self._histories) >= self._policy.max_remembered:
                self._histories.popitem(last=False)
            history = self._histories[address] = _History()
        else:
            self._histories.move_to_end(address)
        return history

    def _forget_old_faults(self, history: _History, now: float) -> None:
        horizon = now - self._policy.window
        while history.faults and history.faults[0] <= horizon:
            del history.faults[0]
