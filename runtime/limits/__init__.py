"""How much a tenant may use, and a session: at all nodes of a cluster together."""

from .counters import Counters, CountersUnavailable, MemoryCounters
from .limits import Limits, LimitsByPlan, LimitsOf, SessionLimits
from .limits_file import LimitsFile

__all__ = [
    "Counters",
    "CountersUnavailable",
    "Limits",
    "LimitsByPlan",
    "LimitsFile",
    "LimitsOf",
    "MemoryCounters",
    "SessionLimits",
]
