"""Which media types a client accepts and sends."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["Accepted", "MediaTypes"]

_REMEMBERED = 256


class Accepted(NamedTuple):
    """What a client takes as an answer."""

    json: bool
    stream: bool
    """Server-sent events."""
    prefers_stream: bool
    """It takes both, and would rather have server-sent events: by weight or, of equal weight, by their order."""


_JSON: Final = (b"application/json", b"application/*", b"*/*")
_STREAM: Final = (b"text/event-stream", b"text/*", b"*/*")


class MediaTypes:
    """Reads `Accept` and `Content-Type`. The few values that clients send are read once and remembered."""

    def __init__(self) -> None:
        self._accepts: dict[bytes, Accepted] = {}

    def accepts(self, accept: bytes | None) -> Accepted:
        """What an `Accept` header says. Wildcards count, and weights (RFC 9110, 12.4.2 and 12.5.1).

        No `Accept` header at all accepts nothing, as the SDK has it: the protocol demands that both are listed.
        """
        known = self._accepts.get(accept or b"")
        if known is None:
            known = _read(accept or b"")
            if len(self._accepts) < _REMEMBERED:
                self._accepts[accept or b""] = known
        return known

    def is_json(self, content_type: bytes | None) -> bool:
        """Whether the body says it is JSON."""
        return content_type is not None and (
            content_type == b"application/json" or content_type.split(b";")[0].strip().lower() == b"application/json"
        )


def _read(accept: bytes) -> Accepted:
    weights: dict[bytes, float] = {}
    for part in accept.split(b","):
        media, *parameters = (field.strip().lower() for field in part.split(b";"))
        if media:
            weights.setdefault(media, _weight(parameters))
    # The most specific range that fits says the weight.
    json = next((media for media in _JSON if media in weights), b"")
    stream = next((media for media in _STREAM if media in weights), b"")
    of_json, of_stream = weights.get(json, 0.0), weights.get(stream, 0.0)
    named = list(weights)
    first = stream != json and of_stream > 0 and (json not in weights or named.index(stream) < named.index(json))
    prefers = of_stream > of_json or (of_stream == of_json and first)
    return Accepted(of_json > 0, of_stream > 0, of_json > 0 and prefers)


def _weight(parameters: list[bytes]) -> float:
    for parameter in parameters:
        if parameter.startswith(b"q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 1.0
    return 1.0
