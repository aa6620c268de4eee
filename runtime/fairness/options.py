"""`Fairness`: how the tenants of a node share it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

from ...actors.session import TenantContext
from ..errors import ConfigurationError

__all__ = ["Fairness", "fairness_of"]


@dataclass(frozen=True, slots=True)
class Fairness:
    """How the tenants of a node share it: who gets the event loop next, and how many may wait for it."""

    weight: Callable[[TenantContext], float] | None = None
    """How much of the node a tenant gets beside others that want it, by its plan say: of two tenants, one of weight 2
    gets twice as much as one of weight 1. Asked for requests that have to wait; must not block. From 0.01 to 100; what
    is beyond, or not a number, counts as the nearest of these, or as 1. None: all weigh 1."""
    waiting_per_tenant: int = 1024
    """Requests of one tenant that may wait to be let in; above it, 429."""
    waiting: int = 8192
    """Those of all tenants; above it, 503 for the newest of the tenant that has most waiting."""
    blocking_threads: int = 8
    """Worker threads that blocking code of one tenant may have: tools, prompts, resources that are plain functions."""
    blocking_threads_in_all: int = 64
    """Those of all tenants, of which one may have no more than are still free."""

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigurationError: A bound is not a whole number of at least 1.
        """
        for field in fields(self):
            if field.name == "weight":
                continue
            bound = getattr(self, field.name)
            if type(bound) is not int or bound < 1:
                raise ConfigurationError(f"{field.name} is {bound!r}; it must be a whole number of at least 1")

    def weight_of(self, tenant: TenantContext) -> float:
        """The weight of a tenant, whatever `weight` says or raises."""
        if self.weight is None:
            return 1.0
        try:
            weight = float(self.weight(tenant))
        except Exception:
            return 1.0
        return 1.0 if math.isnan(weight) else min(max(weight, 0.01), 100.0)


def fairness_of(option: Fairness | Literal["equal", "off"]) -> Fairness | None:
    """What the option of `Runtime` means; None: off.

    Raises:
        ConfigurationError: Neither of the two words, nor a `Fairness`.
    """
    if isinstance(option, Fairness):
        return option
    if option not in ("equal", "off"):
        raise ConfigurationError(f'fairness is {option!r}; it must be "equal", "off" or a Fairness')
    return Fairness() if option == "equal" else None
