"""What each number of the helpers of tenants means, and which of them only grow."""

from __future__ import annotations

__all__ = ["HELPER_GAUGES", "HELPER_TOTALS"]

HELPER_GAUGES = {
    "tenant_cache_tenants": "Tenants that have something in their cache.",
    "tenant_cache_entries": "Values in the caches of all tenants.",
    "tenant_cache_bytes": "Bytes in the caches of all tenants, by estimate.",
    "tenant_files_waiting_or_running": "Operations on tenants' files that run or wait for a thread.",
    "tenant_secrets_parties": "Principals whose secrets are remembered.",
    "tenant_database_connections": "Connections of tenants' databases that are open.",
    "tenant_database_connections_in_use": "Those of them that a call has.",
    "tenant_database_pools": "Pools of connections that are open.",
    "tenant_database_waiting": "Calls that wait for a connection.",
}
HELPER_TOTALS = {
    "tenant_cache_hits_total": "Values that were found in a tenant's cache.",
    "tenant_cache_misses_total": "Values that were not.",
    "tenant_cache_evictions_total": "Values that left because of a bound.",
    "tenant_cache_too_large_total": "Values that were larger than a tenant's whole cache, and not kept.",
    "tenant_files_operations_total": "Operations on tenants' files.",
    "tenant_files_refused_total": "Operations on tenants' files that were refused because too many waited.",
    "tenant_secrets_loads_total": "Times that the source of secrets has answered.",
    "tenant_secrets_failures_total": "Times that it has failed, or taken too long.",
    "tenant_secrets_redactions_total": "Texts of logs and errors in which a secret was blotted out.",
    "tenant_database_transactions_total": "Transactions of tenants.",
    "tenant_database_busy_total": "Transactions that were refused because no connection became free in time.",
    "tenant_database_discarded_total": "Connections that were closed because the next tenant could not have them.",
}
