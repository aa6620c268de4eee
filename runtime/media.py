"""Which media types a client accepts and sends."""

from __future__ import annotations

__all__ = ["MediaTypes"]

_REMEMBERED = 256


class MediaTypes:
    """Reads `Accept` and `Content-Type`. The few values that clients send are read once and remembered."""

    def __init__(self) -> None:
        self._accepts: dict[bytes, tuple[bool, bool]] = {}

    def accepts(self, accept: bytes | None) -> tuple[bool, bool]:
        """Whether the client accepts JSON, and whether server-sent events. Wildcards count (RFC 9110, 12.5.1).

        No `Accept` header at all accepts nothing, as the SDK has it: the protocol demands that both are listed.
        """
        known = self._accepts.get(accept or b"")
        if known is None:
            types = {part.split(b";")[0].strip().lower() for part in (accept or b"").split(b",")}
            anything = b"*/*" in types
            known = (
                anything or b"application/json" in types or b"application/*" in types,
                anything or b"text/event-stream" in types or b"text/*" in types,
            )
            if len(self._accepts) < _REMEMBERED:
                self._accepts[accept or b""] = known
        return known

    def is_json(self, content_type: bytes | None) -> bool:
        """Whether the body says it is JSON."""
        return content_type is not None and (
            content_type == b"application/json" or content_type.split(b";")[0].strip().lower() == b"application/json"
        )
