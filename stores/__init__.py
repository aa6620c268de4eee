"""What is remembered: records, epochs, expiry, and who may write."""

from .address import Address
from .encrypted import EncryptedStore
from .environment import FoundStore, store_of_environment
from .errors import (
    AddressError,
    EventsTooLarge,
    RecordExists,
    RecordNotFound,
    StaleEpoch,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    StoreURLError,
    StoreVersionError,
    StreamTaken,
    UnderstudyError,
)
from .event_log import EventLog, EventLogBounds, LoggedStream, event_log_of
from .faulty import Faults, FaultyStore
from .key_lines import KeyRingError, MasterKey
from .key_ring import KeyRing, TenantKeyDestroyed
from .memory import MemoryStore
from .memory_events import MemoryEventLog
from .record import Page, Record, RecordInfo
from .seal import EncryptionMissing, SealBroken
from .sqlite.store import SQLiteStore
from .store import SessionStore
from .url import open_store, register_scheme

__all__ = [
    "Address",
    "AddressError",
    "EncryptedStore",
    "EncryptionMissing",
    "EventLog",
    "EventLogBounds",
    "EventsTooLarge",
    "Faults",
    "FaultyStore",
    "FoundStore",
    "KeyRing",
    "KeyRingError",
    "LoggedStream",
    "MasterKey",
    "MemoryEventLog",
    "MemoryStore",
    "Page",
    "Record",
    "RecordExists",
    "RecordInfo",
    "RecordNotFound",
    "SQLiteStore",
    "SealBroken",
    "SessionStore",
    "StaleEpoch",
    "StoreCorrupt",
    "StoreError",
    "StoreURLError",
    "StoreUnavailable",
    "StoreVersionError",
    "StreamTaken",
    "TenantKeyDestroyed",
    "UnderstudyError",
    "event_log_of",
    "open_store",
    "register_scheme",
    "store_of_environment",
]
