"""What is remembered: records, epochs, expiry, and who may write."""

from .address import Address
from .errors import (
    AddressError,
    RecordExists,
    RecordNotFound,
    StaleEpoch,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    StoreURLError,
    StoreVersionError,
    UnderstudyError,
)
from .record import Page, Record, RecordInfo
from .store import SessionStore

__all__ = [
    "Address",
    "AddressError",
    "Page",
    "Record",
    "RecordExists",
    "RecordInfo",
    "RecordNotFound",
    "SessionStore",
    "StaleEpoch",
    "StoreCorrupt",
    "StoreError",
    "StoreURLError",
    "StoreUnavailable",
    "StoreVersionError",
    "UnderstudyError",
]
