"""`StateUpdate`: a change of a session's state as data, for code that runs in no call of the session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite
from typing import Any, Final, cast

from ..packing import strict_packer, unpack
from .errors import StateConflict, StateError
from .state import EMPTY_STATE, pack_state, unpack_state

__all__ = ["MOST_ONCE", "StateUpdate", "state_tag"]

MOST_ONCE: Final = 64
"""Updates of a session that are known not to be made twice: the last ones."""
LONGEST_ONCE: Final = 128
_NAMED: Final = 5
"""Keys that an error names."""


def _refuse(value: Any) -> Any:
    raise TypeError(f"a {type(value).__name__} cannot be sent")


_pack = strict_packer(_refuse)


def state_tag(state: bytes) -> str:
    """What a packed state is known by: equal tags, equal states."""
    return blake2b(state, digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StateUpdate:
    """Made by `of`, which checks it; all in one step, or nothing where something is not as it was expected to be."""

    put: bytes = EMPTY_STATE
    """Keys and their new values, as a packed state."""
    remove: tuple[str, ...] = ()
    add: bytes = EMPTY_STATE
    """Numbers to be added to those under their keys, as a packed state; a key that is not there counts as 0."""
    expect: bytes = EMPTY_STATE
    """Keys and the values that they must have."""
    absent: tuple[str, ...] = ()
    """Keys that must not be there."""
    tag: str | None = None
    """The `state_tag` that the state must have."""
    replace: bool = False
    """Drop every key that is not put."""
    once: str | None = None
    """A name for this update: of two with the same, the later changes nothing."""

    @classmethod
    def of(
        cls,
        put: Mapping[str, Any] | None,
        *,
        remove: Iterable[str],
        add: Mapping[str, int | float] | None,
        expect: Mapping[str, Any] | None,
        absent: Iterable[str],
        tag: str | None,
        replace: bool,
        once: str | None,
        limit: int,
    ) -> StateUpdate:
        """
        Raises:
            StateError: What no state can hold, or more than `limit` bytes of it; two things said of one key; or `once`
                is no text of 1 to 128 characters.
        """
        added = _mapping("add", add)
        for key, number in added.items():
            if type(number) not in (int, float):
                raise StateError(
                    f"add[{key!r}] is of type {type(number).__name__}; only an int or a float can be added"
                )
            if isinstance(number, float) and not isfinite(number):
                raise StateError(f"add[{key!r}] is {number}: nothing could ever be counted from there again")
        removed, missing = _keys("remove", remove), _keys("absent", absent)
        changed = _mapping("update", put)
        if twice := [key for key in changed if key in added or key in removed] + [
            key for key in added if key in removed
        ]:
            raise StateError(f"the update says two things of {_named(twice)}; say one of each key")
        if once is not None and not (isinstance(once, str) and 0 < len(once) <= LONGEST_ONCE):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise StateError(f"once is {once!r:.80}; it must be a text of 1 to {LONGEST_ONCE} characters")
        if tag is not None and not isinstance(tag, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise StateError(f"tag is {tag!r:.80}; it must be the tag of a state that was read")
        return cls(
            put=pack_state(changed, limit),
            remove=removed,
            add=pack_state(added, limit),
            expect=pack_state(_mapping("expect", expect), limit),
            absent=missing,
            tag=tag,
            replace=replace,
            once=once,
        )

    def applied(self, state: bytes, limit: int) -> bytes:
        """The packed state that becomes of `state`; `state` itself where nothing changes.

        Raises:
            StateConflict: Something is not as it was expected to be.
            StateError: More than `limit` bytes, or what is to be added to is no number.
        """
        if self.tag is not None and self.tag != state_tag(state):
            raise StateConflict("the state is another than the one that was read", ())
        now = unpack_state(state)
        expected = unpack_state(self.expect)
        # Compared as they are saved: 1 and True are equal, and not the same.
        differ = [key for key, value in expected.items() if key not in now or _pack(now[key]) != _pack(value)]
        differ += [key for key in self.absent if key in now]
        if differ:
            raise StateConflict(f"{_named(differ)} in the state is not as expected", tuple(differ))
        for key, number in unpack_state(self.add).items():
            present: Any = now.get(key, 0)
            if type(present) not in (int, float):
                raise StateError(
                    f"{_named([key])} in the state is a {type(present).__name__}: nothing can be added to it"
                )
            now[key] = present + number
        changes = unpack_state(self.put)
        if self.replace:
            kept = unpack_state(self.add)
            now = {key: value for key, value in now.items() if key in kept or key in changes}
        now |= changes
        for key in self.remove:
            now.pop(key, None)
        packed = pack_state(now, limit)
        return state if packed == state else packed

    def pack(self) -> bytes:
        """As it is sent from node to node."""
        return _pack(
            {
                "put": self.put,
                "remove": list(self.remove),
                "add": self.add,
                "expect": self.expect,
                "absent": list(self.absent),
                "tag": self.tag,
                "replace": self.replace,
                "once": self.once,
            }
        )

    @classmethod
    def unpack(cls, packed: bytes) -> StateUpdate:
        """The inverse of `pack`.

        Raises:
            ValueError: It is none, or one of a later version, which may mean more than this one would do.
        """
        raw: Any = unpack(packed)
        fields = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
        if fields.keys() != _KINDS.keys() or not all(isinstance(fields[name], kind) for name, kind in _KINDS.items()):
            raise ValueError("it is no update of a session's state that this version knows")
        remove, absent = tuple[str, ...](fields.pop("remove")), tuple[str, ...](fields.pop("absent"))
        states = [unpack(fields[name]) for name in ("put", "add", "expect")]
        if not all(type(key) is str for key in remove + absent) or not all(type(state) is dict for state in states):
            raise ValueError("an update of a session's state is damaged: a field has the wrong type")
        return cls(remove=remove, absent=absent, **fields)


_KINDS: Final[dict[str, Any]] = {
    "put": bytes,
    "remove": list,
    "add": bytes,
    "expect": bytes,
    "absent": list,
    "tag": str | None,
    "replace": bool,
    "once": str | None,
}


def _mapping(name: str, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise StateError(f"{name} is of type {type(value).__name__}; it must be a mapping of keys to values")
    return dict(cast("Mapping[str, Any]", value))


def _keys(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise StateError(f"{name} is {value!r:.80}; it must be several keys, such as ({value!r:.40},)")
    keys = tuple(cast("Iterable[Any]", value))
    for key in keys:
        if type(key) is not str:
            raise StateError(f"{name} has the key {key!r:.60} of type {type(key).__name__}; keys must be str")
    return cast("tuple[str, ...]", keys)


def _named(keys: list[str]) -> str:
    shown = ", ".join(f"{key!r:.60}" for key in keys[:_NAMED])
    return f"{shown} and {len(keys) - _NAMED} more" if len(keys) > _NAMED else shown
