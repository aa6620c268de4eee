"""What can go wrong with DynamoDB, as few errors of ours."""

from __future__ import annotations

from ..errors import StoreUnavailable, StoreURLError

__all__ = ["DynamoRefused", "DynamoSettingsError", "DynamoThrottled", "DynamoTooLarge", "DynamoUnavailable"]


class DynamoSettingsError(StoreURLError):
    """Settings for DynamoDB that cannot be understood, or a profile that is not there."""


class DynamoUnavailable(StoreUnavailable):
    """DynamoDB did not answer as it should: out of reach, cut off, failing, too slow. It may come back by itself.

    `code` is DynamoDB's own name of the error, empty where it gave none.
    """

    code = ""

    def __init__(self, message: str, *, outcome_unknown: bool = False, retry_after: float = 1.0) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown, retry_after=retry_after)


class DynamoRefused(DynamoUnavailable):
    """DynamoDB is there and will not do it: credentials, permissions, clock, table or region are not right."""

    def __init__(self, message: str, *, outcome_unknown: bool = False, retry_after: float = 5.0) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown, retry_after=retry_after)


class DynamoThrottled(DynamoUnavailable):
    """More requests than the table, a key or the account may have, for longer than a call can wait."""

    def __init__(self, message: str, *, outcome_unknown: bool = False, retry_after: float = 2.0) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown, retry_after=retry_after)


class DynamoTooLarge(DynamoUnavailable):
    """A snapshot of more bytes than the store keeps. Nothing was written, and a repeat will not help."""
