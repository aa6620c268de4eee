"""What can go wrong with Redis, as few errors of ours."""

from __future__ import annotations

from ..errors import StoreUnavailable, StoreURLError

__all__ = ["RedisFull", "RedisNotPrimary", "RedisRefused", "RedisSettingsError", "RedisUnavailable"]


class RedisSettingsError(StoreURLError):
    """Settings for Redis that cannot be understood, or a file they name that cannot be read."""


class RedisUnavailable(StoreUnavailable):
    """Redis did not answer as it should: no server there, cut off, loading. It may come back by itself."""

    def __init__(self, message: str, *, outcome_unknown: bool = False, retry_after: float = 1.0) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown, retry_after=retry_after)


class RedisRefused(RedisUnavailable):
    """The server is there and will not have us: user, password, permissions, TLS or its role are not right."""

    def __init__(self, message: str, *, outcome_unknown: bool = False, retry_after: float = 5.0) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown, retry_after=retry_after)


class RedisNotPrimary(RedisUnavailable):
    """The server is a replica, or has become one: the primary has to be looked for. Nothing was written."""


class RedisFull(RedisUnavailable):
    """Redis has no memory, or its disk no room, for what was to be written. Nothing was written."""

    def __init__(self, message: str) -> None:
        super().__init__(message, outcome_unknown=False, retry_after=5.0)
