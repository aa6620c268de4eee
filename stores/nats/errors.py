"""What can go wrong with NATS, as few errors of ours: nothing of nats-py's leaves this package."""

from __future__ import annotations

from ..errors import StoreUnavailable, StoreURLError

__all__ = ["JetStreamMissing", "NatsRefused", "NatsSettingsError", "NatsUnavailable", "StorageFull"]


class NatsSettingsError(StoreURLError):
    """Settings for NATS that cannot be understood, or a file they name that cannot be read."""


class NatsUnavailable(StoreUnavailable):
    """NATS did not answer: no server there, cut off, restarting, too slow. It may come back by itself."""

    def __init__(self, message: str, *, outcome_unknown: bool = False, retry_after: float = 1.0) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown, retry_after=retry_after)


class NatsRefused(NatsUnavailable):
    """The server is there and will not have us: user, password, key, certificate, TLS or permissions are not right."""

    def __init__(self, message: str, *, outcome_unknown: bool = False, retry_after: float = 5.0) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown, retry_after=retry_after)


class JetStreamMissing(NatsRefused):
    """The server runs without JetStream, or this account may not use it."""


class StorageFull(NatsUnavailable):
    """NATS has no room for what was to be written: its disk, or the limit of the server, account or bucket, is full."""

    def __init__(self, message: str) -> None:
        super().__init__(message, outcome_unknown=False, retry_after=5.0)
