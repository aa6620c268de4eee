"""`Components`: a server's tools, resources, templates or prompts, of which each call sees those of its surface.

It takes the place of the dict in the SDK's manager. So what is hidden from a call is, for all that the SDK does in it,
not there: it is unknown in the very words for what never was, whatever the SDK's words are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from typing import Any, Final, TypeVar

from .requirement import requirement_of
from .surface import SURFACE, Surface

__all__ = ["Components", "Filtering"]

T = TypeVar("T")

MAX_VIEWS: Final = 256
"""Distinct surfaces whose view is kept; beyond it the least recently used are made anew when they come."""

_current: Final = SURFACE.get
_get: Final[Callable[..., Any]] = dict[str, Any].get
_NOTHING: Final[dict[str, Any]] = {}


class Filtering:
    """Whether anything of one server is hidden from anybody. Once it is, it stays so."""

    __slots__ = ("active",)

    def __init__(self, active: bool = False) -> None:
        self.active = active


class Components(dict[str, T]):
    """Nothing is looked at for a server that declares no requirements before it is hosted, and asks for no filter.

    What is added later may be given a requirement a moment after it was added: from then on each look-up is filtered.
    """

    __slots__ = ("_last", "_view", "_views", "filtering", "tools")

    def __init__(self, components: dict[str, T], filtering: Filtering, *, tools: bool = False) -> None:
        """`tools`: the names of a surface are about them."""
        super().__init__(components)
        self.filtering = filtering
        self.tools = tools
        self._views: OrderedDict[Surface, dict[str, T]] | None = None
        self._last: Surface | None = None
        self._view: dict[str, T] = _NOTHING
        if any(requirement_of(component) is not None for component in components.values()):
            filtering.active = True

    def filter(self) -> None:
        """From now on each call sees what its surface allows. Idempotent."""
        if type(self) is Components:
            self.__class__ = _Filtered

    def everything(self) -> ValuesView[T]:
        """All of them, whoever asks."""
        return dict[str, T].values(self)

    def has(self, key: object) -> bool:
        """Whether it is there for anybody."""
        return dict[str, T].__contains__(self, key)

    def seen(self, surface: Surface | None) -> dict[str, T]:
        """Those that `surface` has; None: all. Not to be changed."""
        if surface is None:
            return dict(dict[str, T].items(self))
        views = self._views
        if views is None:
            # Made on first use: a session that has a server of its own has four of these.
            views = self._views = OrderedDict()
        view = views.get(surface)
        if view is None:
            view = views[surface] = {
                name: component
                for name, component in dict[str, T].items(self)
                if (not self.tools or surface.names_tool(name)) and surface.meets(requirement_of(component))
            }
            if len(views) > MAX_VIEWS:
                views.popitem(last=False)
        else:
            views.move_to_end(surface)
        return view

    def _drop_views(self) -> None:
        self._views = None
        self._last, self._view = None, _NOTHING

    def _changed(self) -> None:
        self._drop_views()
        # A requirement may be declared above the decorator that adds: it is looked for when it is asked for.
        self.filtering.active = True
        self.filter()

    # What changes it

    def __setitem__(self, key: str, value: T) -> None:
        super().__setitem__(key, value)
        self._changed()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._drop_views()

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def update(self, *args: Any, **kwargs: T) -> None:
        super().update(*args, **kwargs)
        self._changed()

    def setdefault(self, key: str, default: Any = None) -> Any:
        if not self.has(key):
            self[key] = default
        return dict[str, T].__getitem__(self, key)

    def pop(self, key: str, *default: Any) -> Any:
        if not self.has(key) and default:
            return default[0]
        found = dict[str, T].__getitem__(self, key)
        del self[key]
        return found

    def clear(self) -> None:
        super().clear()
        self._drop_views()


class _Filtered(Components[T]):
    __slots__ = ()

    def _now(self) -> dict[str, T]:
        surface = _current()
        if surface is None:
            return self
        if surface is not self._last:
            self._view = self.seen(surface)
            self._last = surface
        return self._view

    def get(self, key: str, default: Any = None) -> Any:
        return _get(self._now(), key, default)

    def __getitem__(self, key: str) -> T:
        view = self._now()
        return dict[str, T].__getitem__(view, key)

    def __contains__(self, key: object) -> bool:
        return dict[str, T].__contains__(self._now(), key)

    def __iter__(self) -> Iterator[str]:
        return dict[str, T].__iter__(self._now())

    def __len__(self) -> int:
        return dict[str, T].__len__(self._now())

    def keys(self) -> KeysView[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return dict[str, T].keys(self._now())

    def values(self) -> ValuesView[T]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return dict[str, T].values(self._now())

    def items(self) -> ItemsView[str, T]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return dict[str, T].items(self._now())
