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
from .faulty import Faults, FaultyStore
from .memory import MemoryStore
from .record import Page, Record, RecordInfo
from .sqlite import SQLiteStore
from .store import SessionStore
from .url import open_store, register_scheme

__all__ = [
    "Address",
    "AddressError",
    "Faults",
    "FaultyStore",
    "MemoryStore",
    "Page",
    "Record",
    "RecordExists",
    "RecordInfo",
    "RecordNotFound",
    "SQLiteStore",
    "SessionStore",
    "StaleEpoch",
    "StoreCorrupt",
    "StoreError",
    "StoreURLError",
    "StoreUnavailable",
    "StoreVersionError",
    "UnderstudyError",
    "open_store",
    "register_scheme",
]
