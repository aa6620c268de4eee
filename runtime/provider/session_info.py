"""What can be known of a session without waking it: `SessionInfo`, `SessionData`, `SessionPage`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...actors.session import SessionSnapshot
from ...actors.session.snapshot import Origin
from ...actors.session.state import unpack_state
from ...actors.session.state_update import state_tag
from ...stores import Record, RecordInfo

__all__ = ["SessionData", "SessionInfo", "SessionPage", "data_of", "info_of"]


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session without its state. Times are seconds since the Unix epoch, by the store's clock."""

    id: str
    tenant: str
    node: str
    """The node that had it in memory last: a hint for people."""
    created: float
    updated: float
    """When it was saved last."""
    expires: float


@dataclass(frozen=True, slots=True)
class SessionData(SessionInfo):
    """A session as it was last saved."""

    principal: str
    opened_by: Origin
    """"handshake" (2025-11-25 and earlier), or "handle"."""
    state: dict[str, Any]
    """A copy: to change the session use `update` or `mutate`."""
    tag: str
    """What this state is known by: `update(id, ..., tag=data.tag)` changes this state, and no other."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Some sessions, and where the next page begins; None on the last. It may have fewer than were asked for."""

    sessions: tuple[SessionInfo, ...]
    cursor: str | None


def info_of(record: RecordInfo) -> SessionInfo:
    """What its record says of a session."""
    return SessionInfo(record.address.id, record.tenant, record.owner, record.created, record.updated, record.expires)


def data_of(record: Record, snapshot: SessionSnapshot) -> SessionData:
    """What its record and the snapshot in it say of a session."""
    return SessionData(
        record.address.id,
        record.tenant,
        record.owner,
        record.created,
        record.updated,
        record.expires,
        snapshot.principal,
        snapshot.origin,
        unpack_state(snapshot.state),
        state_tag(snapshot.state),
    )
