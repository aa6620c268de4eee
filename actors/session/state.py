"""`session.state` and how it is saved: one msgpack map, small types only, bounded."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, cast

from ..packing import strict_packer, unpack
from .errors import ReadOnlyTurn, StateError

__all__ = ["EMPTY_STATE", "ReadOnlyState", "merge_states", "pack_state", "unpack_state"]

_KEPT: Final = "None, bool, int (64 bits), float, str, bytes, aware datetime, and list and dict of these"
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
_MAX_DEPTH: Final = 200
"""How far down an explanation looks; the packer itself bears more."""
_MAX_PATH: Final = 200
_BINARY: Final = re.compile(rb"[\xc4-\xc9\xd4-\xd8]").search
"""Finds the bytes that begin a binary or an extension value (and others like them, in texts and numbers)."""


def _refuse(value: Any) -> NoReturn:
    raise TypeError(type(value).__name__)


# strict_types: a subclass (an Enum, an OrderedDict) or a tuple would come back as something else than was put in.
_pack = strict_packer(_refuse)

EMPTY_STATE: bytes = _pack({})


def pack_state(state: dict[str, Any], limit: int, *, by_tenant: bool = False) -> bytes:
    """`state` as msgpack; what is read back equals what was put in, type by type. `by_tenant`: the limit is one of the
    tenant's, which nobody who hosts the server can raise for all.

    Raises:
        StateError: A value, key or depth that cannot be kept, named with its path and type; or more than `limit` bytes.
    """
    try:
        # Within a list that is cut off again: the packer bears one level more than can be unpacked.
        packed = _pack([state])[1:]
    except (TypeError, ValueError, OverflowError) as error:
        raise StateError(_explain(state, "session.state", 0) or f"session.state cannot be saved: {error}") from None
    if _BINARY(packed) and not _comes_back(state):
        raise StateError(_explain(state, "session.state", 0) or "session.state cannot be saved")
    if len(packed) > limit:
        key, size = max(((key, len(_pack(value))) for key, value in state.items()), key=lambda item: item[1])
        whose, or_else = (" that its tenant is held to", "") if by_tenant else ("", ", or raise max_state")
        raise StateError(
            f"session.state takes {len(packed)} bytes, over the limit of {limit}{whose} (its largest key, "
            f"{_spell(key)}, takes {size}); keep large data elsewhere and its name here{or_else}"
        )
    for key in state:
        if type(key) is not str:
            raise StateError(
                f"session.state has the key {_spell(key)} of type {type(key).__name__}; its keys must be str"
            )
    return packed


def unpack_state(packed: bytes) -> dict[str, Any]:
    """The inverse of `pack_state`: a fresh dict, nothing shared with an earlier one."""
    return cast("dict[str, Any]", unpack(packed))


def merge_states(now: bytes, before: bytes, after: bytes, limit: int, *, by_tenant: bool = False) -> bytes:
    """`now` with the top-level keys, and only those, that differ between `before` and `after`. `by_tenant`: see
    `pack_state`.

    Raises:
        StateError: More than `limit` bytes.
    """
    merged, old, new = unpack_state(now), unpack_state(before), unpack_state(after)
    for key, value in new.items():
        # Compared as they are saved: 1 and True are equal, and not the same.
        if key not in old or _pack(old[key]) != _pack(value):
            merged[key] = value
    for key in old.keys() - new.keys():
        merged.pop(key, None)
    return pack_state(merged, limit, by_tenant=by_tenant)


def _comes_back(state: dict[str, Any]) -> bool:
    """Whether all that msgpack took comes back as it was: it also takes a bytearray, and times it cannot read."""
    values: list[Any] = [state]
    for value in values:  # which grows meanwhile
        kind = cast("type[Any]", type(value))
        if kind is dict:
            values.extend(value)
            values.extend(value.values())
        elif kind is list:
            values.extend(value)
        elif kind not in _PLAIN and (kind is not datetime or _is_outside(value)):
            return False
    return True


def _is_outside(moment: datetime) -> bool:
    """Whether `moment` is none that UTC can tell."""
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return True
    return False


def _explain(value: Any, path: str, depth: int) -> str | None:
    """The first thing at or below `value` that cannot be kept, in words."""
    where = path if len(path) <= _MAX_PATH else f"{path[:_MAX_PATH]}..."
    if depth > _MAX_DEPTH:
        return f"session.state is nested too deep, or contains itself, at {where}"
    kind = cast("type[Any]", type(value))
    if kind is dict:
        for key, item in cast("dict[Any, Any]", value).items():
            spelled = _spell(key)
            if (fault := _explain(key, f"the key {spelled} of {where}", depth + 1)) is not None:
                return fault
            if (fault := _explain(item, f"{where}[{spelled}]", depth + 1)) is not None:
                return fault
        return None
    if kind is list:
        for index, item in enumerate(cast("list[Any]", value)):
            if (fault := _explain(item, f"{where}[{index}]", depth + 1)) is not None:
                return fault
        return None
    if kind is datetime:
        moment = cast("datetime", value)
        if moment.tzinfo is None:
            return f"{where} is a datetime without a time zone; give it one"
        if _is_outside(moment):
            return f"{where} is a datetime outside of the years 1 to 9999 in UTC"
    elif kind is int and not -(2**63) <= value < 2**64:
        return f"{where} is an int of more than 64 bits; keep it as str"
    elif kind not in _PLAIN:
        return f"{where} is a {kind.__name__}, which cannot be saved; what can: {_KEPT}"
    try:
        _pack(value)
    except UnicodeEncodeError:
        return f"{where} is a str with a lone surrogate, which is no Unicode text"
    except (TypeError, ValueError, OverflowError):
        return f"{where} is a {kind.__name__}, which cannot be saved; what can: {_KEPT}"
    return None


def _spell(key: Any) -> str:
    spelled = repr(key)
    return spelled if len(spelled) <= 60 else f"{spelled[:60]}..."


class ReadOnlyState(dict[str, Any]):
    """The state as last saved, for a turn that may only read. A change at the top raises at once.

    One deeper down raises when the turn ends: it is compared with what was saved.
    """

    __slots__ = ("refused", "what")

    what: str
    """Who is reading, for the error: `tool 'count'`."""
    refused: bool
    """A change was tried."""

    @classmethod
    def of(cls, packed: bytes, what: str) -> ReadOnlyState:
        state = cls(unpack_state(packed))
        state.what = what
        state.refused = False
        return state

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        self.refused = True
        raise ReadOnlyTurn(self.what)

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = update = _refuse  # pyright: ignore[reportAssignmentType]

    def setdefault(self, key: str, default: Any = None, /) -> Any:
        """The value under `key`; raises only where it would have to be added."""
        if key in self:
            return self[key]
        return self._refuse()
