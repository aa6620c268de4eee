"""`DatabaseLimits`: how many connections tenants may have, and how long things may take."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DatabaseLimits"]


@dataclass(frozen=True, slots=True)
class DatabaseLimits:
    """Of one pool of connections: of the database that tenants share, or of each tenant's own."""

    connections: int = 10
    """At once."""
    connections_of_one: int | None = None
    """Of one tenant at once; None: half of them, so that no tenant has all (all, where a pool is one tenant's)."""
    waiting: int = 256
    """Calls of one tenant that may wait for a connection; one more is an error at once."""
    acquire_timeout: float = 5.0
    """Seconds that a call waits for a connection."""
    connect_timeout: float = 10.0
    """Seconds that making one may take."""
    statement_timeout: float = 30.0
    """Seconds that one statement may take; the server ends it, and should it not, the connection is closed."""
    idle_timeout: float = 60.0
    """Seconds that a transaction may do nothing before the server ends it, and its connection: a tool must not hold one
    while it waits for a user."""
    keep: float = 300.0
    """Seconds that a connection is kept without use."""

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: A number is not above 0.
        """
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} of DatabaseLimits is {value!r}; it must be greater than 0")

    @property
    def of_one(self) -> int:
        """Connections that one tenant may have."""
        return self.connections_of_one or max(1, self.connections // 2)

    def timeouts(self) -> dict[str, str]:
        """The server's own deadlines, as settings of one transaction."""
        return {
            "statement_timeout": f"{max(1, round(self.statement_timeout * 1000))}",
            "idle_in_transaction_session_timeout": f"{max(1, round(self.idle_timeout * 1000))}",
        }
