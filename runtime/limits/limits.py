"""`Limits`: how much a tenant may use, by its plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, cast

from ...actors.session import TenantContext
from ..errors import ConfigurationError

__all__ = ["NO_SESSION_LIMITS", "Limits", "LimitsByPlan", "LimitsOf", "SessionLimits", "limits_of"]


def _check(limits: object) -> None:
    for each in fields(limits):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        value: Any = getattr(limits, each.name)
        if isinstance(value, SessionLimits):
            continue
        if value is not None and (type(value) is not int or not 0 <= value < 2**53):
            raise ConfigurationError(
                f"{type(limits).__name__}.{each.name} is {value!r}; it must be a whole number of 0 or more, or None"
            )


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How much one session may use. None: no limit of its own."""

    calls_per_minute: int | None = None
    """Calls of tools that may change something: all but those with `readOnlyHint`."""
    read_only_calls_per_minute: int | None = None
    """Calls of tools with `readOnlyHint`."""
    calls_in_flight: int | None = None
    """Requests that run or wait for their turn, listening streams and `ping` left out."""
    streams: int | None = None
    """Open streams that last: the standalone one (GET), and those that are resumed."""
    state_bytes: int | None = None
    """Of `session.state`, packed; `max_state` of the runtime is a limit too."""
    result_bytes: int | None = None
    """Of one result, as JSON."""
    result_bytes_per_minute: int | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigurationError: A limit is no whole number, or negative.
        """
        _check(self)


NO_SESSION_LIMITS: Final = SessionLimits()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a tenant may use, at all nodes together. None: no limit."""

    calls_per_minute: int | None = None
    """Calls of tools that may change something: all but those with `readOnlyHint`."""
    read_only_calls_per_minute: int | None = None
    """Calls of tools with `readOnlyHint`."""
    calls_in_flight: int | None = None
    """Requests that run or wait for their turn, listening streams and `ping` left out."""
    sessions: int | None = None
    """Sessions that exist, awake or asleep."""
    streams: int | None = None
    """Open streams that last: standalone ones (GET), those that are resumed, and `subscriptions/listen`."""
    state_bytes: int | None = None
    """Of all its sessions' snapshots in the store."""
    result_bytes: int | None = None
    """Of one result, as JSON."""
    result_bytes_per_minute: int | None = None
    per_session: SessionLimits = NO_SESSION_LIMITS
    """Of each of its sessions."""

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigurationError: A limit is no whole number, or negative.
        """
        if not isinstance(self.per_session, SessionLimits):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"Limits.per_session is {type(self.per_session).__name__}; it must be SessionLimits"
            )
        _check(self)


LimitsByPlan = Mapping[str | None, Limits | None]
"""Limits by the plan of the tenant's context. `None` is for those without a plan, and for plans that are not named."""

LimitsOf = Callable[[TenantContext], Limits | None]
"""Says what a tenant may use; None: everything. Called for each request, so it must be quick, and must not wait."""


def limits_of(given: Limits | LimitsByPlan | LimitsOf) -> LimitsOf:
    """A function, whichever way the limits are given.

    Raises:
        ConfigurationError: They are not given in any of the three ways.
    """
    if isinstance(given, Limits):
        return lambda tenant: given
    if isinstance(given, Mapping):
        plans: dict[Any, Any] = dict(cast("Mapping[Any, Any]", given))
        for plan, limits in plans.items():
            if not isinstance(limits, Limits | None) or not isinstance(plan, str | None):  # pyright: ignore
                raise ConfigurationError(
                    f"limits of plan {plan!r} are {type(limits).__name__}; they must be Limits, or None for no limit"
                )
        if None not in plans:
            raise ConfigurationError(
                "limits are given by plan, and nothing is said of tenants of other plans, or of none: add the key None "
                "(and None as its value, if those have no limits)"
            )
        rest = plans[None]
        return lambda tenant: plans.get(tenant.plan, rest)
    if not callable(given):
        raise ConfigurationError(
            f"limits is {type(given).__name__}; it must be Limits, a mapping of plans to Limits, or a function of the "
            "TenantContext"
        )
    return given
