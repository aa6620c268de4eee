"""`AskerSettings`: the settings of PostgreSQL that tell a transaction who asks."""

from __future__ import annotations

from ...actors.session import TenantContext
from .statements import setting_name

__all__ = ["AskerSettings"]


class AskerSettings:
    """Their names, and what they are to be for one transaction."""

    __slots__ = ("principal", "tenant")

    def __init__(self, tenant: str, principal: str) -> None:
        """
        Raises:
            ConfigurationError: One is no name of a setting.
        """
        self.tenant = setting_name(tenant)
        self.principal = setting_name(principal)

    def of(self, asker: TenantContext) -> dict[str, str]:
        """The settings where `asker` asks."""
        return {self.tenant: asker.tenant, self.principal: asker.principal}
