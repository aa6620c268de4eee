"""`requires`: what a tool, resource, template or prompt asks of whoever is to see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar

from .errors import HostingError
from .scope import SCOPES_ARE, is_scope

__all__ = ["Requirement", "any_declared", "requirement_of", "requires"]

T = TypeVar("T")

_ATTRIBUTE: Final = "__understudy_requires__"
_LAYERS: Final = 64
"""Wrappers that are looked through for the function below."""

_declared = False


class Requirement(NamedTuple):
    """All of `scopes`, and, where `plans` are named, one of them."""

    scopes: frozenset[str]
    plans: frozenset[str] | None

    def met_by(self, plan: str | None, scopes: frozenset[str]) -> bool:
        """Whether a credential of this plan and these scopes is enough."""
        return self.scopes <= scopes and (self.plans is None or plan in self.plans)

    def __and__(self, other: Requirement) -> Requirement:
        plans = self.plans if other.plans is None else other.plans if self.plans is None else self.plans & other.plans
        return Requirement(self.scopes | other.scopes, plans)


def requires(*, scopes: Iterable[str] = (), plan: str | Iterable[str] | None = None) -> Callable[[T], T]:
    """Whoever lacks a scope, or has another plan, is served as if this did not exist: it is not listed, and unknown.

        @server.tool()
        @requires(scopes={"billing"}, plan={"pro", "enterprise"})
        async def refund(order: str) -> str: ...

    Works above and below the server's own decorator, on the function of a tool, resource, resource template or prompt,
    and on a ready-made one (`server.add_resource(requires(plan="pro")(TextResource(...)))`). Several add up.

    Args:
        scopes: All of them are needed.
        plan: One of these is needed.

    Raises:
        HostingError: Nothing is asked for, or what can never be met; or a scope is none.
    """
    wanted = frozenset((scopes,) if isinstance(scopes, str) else scopes)
    plans = None if plan is None else frozenset((plan,) if isinstance(plan, str) else plan)
    for scope in wanted:
        if not is_scope(scope):
            raise HostingError(f"{scope!r} is no scope: {SCOPES_ARE}")
    if plans is not None and not all(isinstance(name, str) and name for name in plans):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise HostingError(f"plan has {sorted(map(repr, plans))}; a plan is named by a text that is not empty")
    if not wanted and not plans:
        raise HostingError("requires() asks for nothing: name scopes, a plan, or both")
    requirement = Requirement(wanted, plans)

    def declare(thing: T) -> T:
        global _declared
        known = _declared_on(thing)
        both = requirement if known is None else known & requirement
        if both.plans is not None and not both.plans:
            raise HostingError(f"{thing!r} requires plans that no tenant can have both of; name them in one requires()")
        try:
            # Beside the fields of a pydantic model, which refuses to be given others.
            object.__setattr__(thing, _ATTRIBUTE, both)
        except (AttributeError, TypeError) as error:
            raise HostingError(
                f"{type(thing).__name__} cannot carry a requirement; put requires() on the function below it"
            ) from error
        _declared = True
        return thing

    return declare


def requirement_of(component: object) -> Requirement | None:
    """What was declared on a component, or on the function in it, through whatever wraps that; None for nothing."""
    found = _declared_on(component)
    layer: Any = getattr(component, "fn", None)
    for _ in range(_LAYERS):
        if layer is None:
            break
        own = _declared_on(layer)
        if own is not None:
            found = own if found is None else found & own
        layer = getattr(layer, "__wrapped__", None)
    return found


def any_declared() -> bool:
    """Whether anything in this process has been declared to require anything."""
    return _declared


def _declared_on(thing: object) -> Requirement | None:
    found = getattr(thing, _ATTRIBUTE, None)
    return found if isinstance(found, Requirement) else None
