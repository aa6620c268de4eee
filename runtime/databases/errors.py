"""What the databases of tenants refuse."""

from __future__ import annotations

from ...actors.session.tenants.errors import TenantHelperError
from ..errors import ConfigurationError

__all__ = [
    "DatabaseBusy",
    "DatabaseError",
    "DatabaseMisconfigured",
    "DatabaseUnavailable",
    "StatementRefused",
    "TenantNotProvisioned",
]


class DatabaseError(TenantHelperError):
    """`tenant.connection()` could not do, or refused, what it was asked. What PostgreSQL itself says of a statement
    comes as asyncpg's `PostgresError`."""


class DatabaseBusy(DatabaseError):
    """No connection became free in time, or too many wait. Nothing was done."""


class DatabaseUnavailable(DatabaseError):
    """The server is out of reach. `outcome_unknown`: what the transaction changed may have been committed."""

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class TenantNotProvisioned(DatabaseError, LookupError):
    """The tenant's schema, role or database is not there."""


class StatementRefused(DatabaseError, ValueError):
    """A statement that would end the transaction that keeps tenants apart."""


class DatabaseMisconfigured(ConfigurationError):
    """The database does not keep tenants apart; the message says what to change. `problems`: each by itself."""

    def __init__(self, problems: list[str]) -> None:
        shown = "\n".join(f"- {problem}" for problem in problems[:20])
        more = f"\n- and {len(problems) - 20} more" if len(problems) > 20 else ""
        super().__init__(f"the database does not keep tenants apart:\n{shown}{more}")
        self.problems = problems
