"""How much a tenant may use, and a session: at all nodes of a cluster together."""

from .counters import Counters, CountersUnavailable, MemoryCounters
from .limits import Limits, LimitsByPlan, LimitsOf, SessionLimits

__all__ = [
    "Counters",
    "CountersUnavailable",
    "Limits",
    "LimitsByPlan",
    "LimitsOf",
    "MemoryCounters",
    "SessionLimits",
]
