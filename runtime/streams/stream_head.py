"""`StreamHead`: what the event log says of a stream before its first event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from mcp_types import RequestId

from ...actors.packing import pack, unpack
from ...stores import UnderstudyError

__all__ = ["HEAD_VERSION", "DamagedHead", "StreamHead"]

HEAD_VERSION = 1


class DamagedHead(UnderstudyError):
    """A logged stream's head cannot be read: damaged, or written by a newer version."""


@dataclass(frozen=True, slots=True)
class StreamHead:
    """The wire form is a msgpack map with the key `v` and the names of the fields. Unknown keys are ignored."""

    writer: str
    """Who began the stream. Whoever else appends has taken it over."""
    request_id: RequestId | None = None
    """The request that the stream answers; None for a session's standalone stream."""
    method: str = ""
    revision: str = ""
    """The protocol revision that its client spoke."""
    life: str = ""
    """Of a standalone stream: names the stretch of it that the log has without a gap."""

    def pack(self) -> bytes:
        """The wire form."""
        return pack(
            {
                "v": HEAD_VERSION,
                "writer": self.writer,
                "id": self.request_id,
                "method": self.method[:128],
                "revision": self.revision[:32],
                "life": self.life,
            }
        )

    @classmethod
    def unpack(cls, packed: bytes) -> StreamHead:
        """The inverse of `pack`.

        Raises:
            DamagedHead: It is none, or of a newer version.
        """
        try:
            raw: Any = unpack(packed)
        except ValueError as error:
            raise DamagedHead(f"the head of a logged stream, {len(packed)} bytes, is not msgpack: {error}") from None
        fields = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
        version = fields.get("v")
        if type(version) is not int or not 1 <= version <= HEAD_VERSION:
            raise DamagedHead(
                f"the head of a logged stream has version {version!r:.40}; this node reads 1 to {HEAD_VERSION}"
            )
        match fields:
            case {
                "writer": str(writer),
                "id": int() | str() | None as request_id,
                "method": str(method),
                "revision": str(revision),
                "life": str(life),
            }:
                return cls(writer, request_id, method, revision, life)
            case _:
                raise DamagedHead("the head of a logged stream lacks a field, or one has the wrong type")
