"""What is said to who has used as much as he may, in words that a model can read."""

from __future__ import annotations

from math import ceil

from ...actors.session.errors import LimitExceeded

__all__ = ["over_rate", "over_size", "over_use", "unchecked"]

_RATES = {
    "calls_per_minute": "calls/minute",
    "read_only_calls_per_minute": "read-only calls/minute",
    "result_bytes_per_minute": "result bytes/minute",
}
_USES = {
    "calls_in_flight": "calls in flight",
    "sessions": "sessions",
    "streams": "open streams",
}
UNCHECKED_RETRY = 1.0


def _later(seconds: float) -> str:
    whole = max(1, ceil(seconds))
    return f"Retry after {whole} second{'s' if whole != 1 else ''}."


def over_rate(limit: str, most: int, retry_after: float, *, of_session: bool = False) -> LimitExceeded:
    """A rate is spent."""
    where = " in one session" if of_session else ""
    text = f"Rate limit exceeded: {most} {_RATES[limit]}{where}. {_later(retry_after)}"
    return LimitExceeded(text, limit=limit, retry_after=max(1.0, ceil(retry_after)))


def over_use(limit: str, most: int, retry_after: float, *, of_session: bool = False) -> LimitExceeded:
    """As much is in use as may be at once."""
    where = " in one session" if of_session else ""
    what = "End one, or retry" if limit == "sessions" else "Retry"
    text = f"Limit reached: {most} {_USES[limit]}{where}. {_later(retry_after).replace('Retry', what)}"
    return LimitExceeded(text, limit=limit, retry_after=max(1.0, ceil(retry_after)))


def over_size(most: int, size: int) -> LimitExceeded:
    """A result is too large."""
    text = f"The result takes {size} bytes, over the limit of {most} for one; the call changed nothing. Ask for less."
    return LimitExceeded(text, limit="result_bytes", ran=True)


def unchecked(limit: str) -> LimitExceeded:
    """Nobody can say now whether there is any left."""
    text = f"Limits cannot be checked now. {_later(UNCHECKED_RETRY)}"
    return LimitExceeded(text, limit=limit, retry_after=UNCHECKED_RETRY, unchecked=True)
