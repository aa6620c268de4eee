"""`Surface`: what one sort of credential sees of a server."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final, cast

from .errors import HostingError
from .requirement import Requirement

__all__ = ["SURFACE", "Surface", "checked_names"]

LONGEST_NAME: Final = 1024
"""Letters of a tool's name that a pattern is tried on: names come from clients too."""
MOST_NAMES: Final = 10_000


class Surface:
    """Known by its identity: equal ones are one object, so that what is built for it is built once."""

    __slots__ = ("__weakref__", "_pattern", "names", "plan", "scopes")

    def __init__(self, plan: str | None, scopes: frozenset[str], names: frozenset[str] | None) -> None:
        """`names` of tools, in which `*` stands for anything; None: all."""
        self.plan = plan
        self.scopes = scopes
        self.names = names
        patterns = [name for name in names or () if "*" in name]
        self._pattern = re.compile("|".join(map(_expression, patterns)), re.DOTALL) if patterns else None

    def names_tool(self, name: object) -> bool:
        """Whether a tool of this name may be seen, as far as its name goes."""
        if self.names is None or name in self.names:
            return True
        return (
            self._pattern is not None
            and isinstance(name, str)
            and len(name) <= LONGEST_NAME
            and self._pattern.fullmatch(name) is not None
        )

    def meets(self, requirement: Requirement | None) -> bool:
        """Whether what has this requirement may be seen."""
        return requirement is None or requirement.met_by(self.plan, self.scopes)


SURFACE: ContextVar[Surface | None] = ContextVar("understudy_surface", default=None)
"""What the call that is running may see. None outside of calls, and where everybody sees everything."""


def checked_names(names: object) -> frozenset[str]:
    """What a `tools_for` function has returned.

    Raises:
        HostingError: It is no collection of names. None is not taken for all of them: a function that forgets to
            return must not open everything.
    """
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise HostingError(
            f'tools_for returned {type(names).__name__!r}; it must return a collection of tool names, {{"*"}} for all'
        )
    listed = list(cast("Iterable[Any]", names))
    if len(listed) > MOST_NAMES:
        raise HostingError(f"tools_for returned {len(listed)} names; {MOST_NAMES} at most, and `*` stands for anything")
    for name in listed:
        if not isinstance(name, str):
            raise HostingError(f"tools_for returned a {type(name).__name__!r} among its names; they must be text")
    return frozenset(listed)


def _expression(pattern: str) -> str:
    return ".*".join(map(re.escape, re.sub(r"\*+", "*", pattern).split("*")))
