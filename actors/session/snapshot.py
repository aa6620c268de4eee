"""The snapshot of a session: versioned msgpack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from ..errors import SnapshotError, SnapshotTooNew
from ..packing import pack, unpack
from .state import EMPTY_STATE

__all__ = ["SNAPSHOT_VERSION", "Origin", "SessionSnapshot"]

SNAPSHOT_VERSION = 1

Origin = Literal["handshake", "handle"]


@dataclass(slots=True)
class SessionSnapshot:
    """All of a session that outlives its process.

    The wire form is a msgpack map with the key `v` and the field names below. A reader accepts its own version and
    older ones, ignores unknown keys, and refuses newer versions.
    """

    origin: Origin
    """Opened by an `initialize` handshake, or by `open_session` as a state handle."""
    tenant: str
    principal: str
    protocol_version: str
    client: bytes = b""
    """The client's `initialize` params as JSON; empty where there was no handshake."""
    log_level: str | None = None
    """As set by `logging/setLevel`; None: never set."""
    subscriptions: tuple[str, ...] = ()
    """Resource URIs, in order of subscription."""
    state: bytes = EMPTY_STATE
    """`session.state`, packed."""
    updates: tuple[str, ...] = ()
    """`StateUpdate.once` of the last updates that had one, oldest first."""

    def pack(self) -> bytes:
        """The wire form, at the version that this code writes."""
        # An earlier version, which knows no updates, reads on: only the session's next updates might be made twice.
        updates = {"updates": self.updates} if self.updates else {}
        return pack(
            {
                "v": SNAPSHOT_VERSION,
                "origin": self.origin,
                "tenant": self.tenant,
                "principal": self.principal,
                "protocol": self.protocol_version,
                "client": self.client,
                "log_level": self.log_level,
                "subscriptions": self.subscriptions,
                "state": self.state,
                **updates,
            }
        )

    @staticmethod
    def principal_of(packed: bytes) -> str | None:
        """Whose session it is, without reading more of it; None if that cannot be told, as `unpack` would say why."""
        try:
            raw: Any = unpack(packed)
        except Exception:
            return None
        principal: Any = cast("dict[str, Any]", raw).get("principal") if isinstance(raw, dict) else None
        return principal if isinstance(principal, str) else None

    @classmethod
    def unpack(cls, packed: bytes) -> SessionSnapshot:
        """The inverse of `pack`, for every version up to this code's.

        Raises:
            SnapshotError: Not msgpack, truncated, or not a snapshot.
            SnapshotTooNew: Of a newer version.
        """
        try:
            raw: Any = unpack(packed)
        except Exception as error:
            from ...stores.moving.marks import is_tombstone

            if is_tombstone(packed):
                raise SnapshotError(
                    "the session is on its way to another store, which this node does not know: start it with "
                    "--next-store, or with that store and --former-store"
                ) from None
            raise SnapshotError(f"a session snapshot of {len(packed)} bytes is not msgpack: {error!r}") from None
        if not isinstance(raw, dict):
            raise SnapshotError(f"a session snapshot must be a msgpack map, not {type(raw).__name__}")
        fields = cast("dict[str, Any]", raw)
        version = fields.get("v")
        if type(version) is not int or version < 1:
            raise SnapshotError(f"a session snapshot has the version {version!r}; it must be a positive number")
        if version > SNAPSHOT_VERSION:
            raise SnapshotTooNew(
                f"a session snapshot has version {version}, written by a newer understudy; this one reads up to "
                f"{SNAPSHOT_VERSION}. Upgrade this node"
            )
        try:
            snapshot = cls(
                origin=fields["origin"],
                tenant=fields["tenant"],
                principal=fields["principal"],
                protocol_version=fields["protocol"],
                client=fields["client"],
                log_level=fields["log_level"],
                subscriptions=tuple(fields["subscriptions"]),
                state=fields["state"],
                updates=tuple(fields.get("updates", ())),
            )
            state: Any = unpack(snapshot.state)
        except Exception as error:
            raise SnapshotError(f"a session snapshot of version {version} is damaged: {error!r}") from None
        subscriptions: Any = fields["subscriptions"]
        texts = (
            snapshot.tenant,
            snapshot.principal,
            snapshot.protocol_version,
            *snapshot.subscriptions,
            *snapshot.updates,
        )
        if (
            snapshot.origin not in ("handshake", "handle")
            or not all(isinstance(text, str) for text in texts)  # pyright: ignore[reportUnnecessaryIsInstance]
            or not isinstance(snapshot.client, bytes)  # pyright: ignore[reportUnnecessaryIsInstance]
            or not isinstance(snapshot.log_level, str | None)  # pyright: ignore[reportUnnecessaryIsInstance]
            or not isinstance(subscriptions, list)
            or not isinstance(fields.get("updates", []), list)
            or not isinstance(state, dict)
            or not all(isinstance(key, str) for key in cast("dict[Any, Any]", state))
        ):
            raise SnapshotError(f"a session snapshot of version {version} is damaged: a field has the wrong type")
        return snapshot
