"""What becomes of a session's snapshot by messages that change its state and run no handler."""

from __future__ import annotations

from dataclasses import replace

from .messages import Merge, OpenHandle
from .snapshot import SessionSnapshot
from .state import merge_states
from .state_update import MOST_ONCE, StateUpdate

__all__ = ["after_merge", "after_opening", "after_update"]


def after_merge(before: SessionSnapshot, merge: Merge, max_state: int) -> SessionSnapshot:
    """With what an interleaved turn has changed.

    Raises:
        StateError: More than `max_state` bytes, or than the tenant's limits allow.
    """
    most, allowance = max_state, merge.allowance
    if allowance is not None and allowance.bounds_state:
        most = allowance.max_state(len(before.state), most)
    merged = merge_states(before.state, merge.before, merge.after, most, by_tenant=most < max_state)
    return replace(before, state=merged)


def after_update(before: SessionSnapshot, update: StateUpdate, max_state: int) -> SessionSnapshot:
    """`before` itself where nothing changes: also if an update of the same name has been made. Raises as
    `StateUpdate.applied`."""
    once = update.once
    if once is not None and once in before.updates:
        return before
    state = update.applied(before.state, max_state)
    if once is not None:
        return replace(before, state=state, updates=(*before.updates, once)[-MOST_ONCE:])
    return before if state is before.state else replace(before, state=state)


def after_opening(before: SessionSnapshot, opening: OpenHandle) -> SessionSnapshot:
    """As it begins, behind a handle."""
    return replace(before, protocol_version=opening.protocol_version, state=opening.state)
