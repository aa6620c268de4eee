"""`HelperOptions`: what a runtime offers the tools of a tenant, from what its operator has named."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from ..actors.session.tenants.cache_bounds import CacheBounds
from ..actors.session.tenants.database import TenantDatabase
from ..actors.session.tenants.folders import Files, TenantFolders
from ..actors.session.tenants.helpers import TenantHelpers
from ..actors.session.tenants.secrets import SecretKeeper, SecretSource
from ..actors.session.tenants.secrets_file import SecretsFile
from .credentials.protected_resource import ProtectedResource
from .credentials.tenant_hosts import ByHost
from .errors import ConfigurationError

__all__ = ["HelperOptions"]

Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class HelperOptions:
    """The options `cache`, `files`, `secrets` and `database` of `Runtime`."""

    cache: CacheBounds | None
    files: Files | Path | None
    secrets: SecretSource | SecretsFile | Path | None
    database: TenantDatabase | None

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigurationError: One is of another kind than it can be.
        """
        if self.cache is not None and not isinstance(self.cache, CacheBounds):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"cache is a {type(self.cache).__name__}; it must be CacheBounds")
        if not isinstance(self.files, Files | str | os.PathLike | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"files is a {type(self.files).__name__}; it must be a folder, or Files(folder)")
        if not (callable(self.secrets) or isinstance(self.secrets, SecretsFile | str | os.PathLike | None)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"secrets is a {type(self.secrets).__name__}; it must be a function (tenant) -> mapping, the path of a "
                "file, or SecretsFile(path)"
            )
        if self.database is not None and not callable(getattr(self.database, "connection", None)):
            raise ConfigurationError(
                f"database is a {type(self.database).__name__}; it must be RowLevelSecurity(url), "
                "SchemaPerTenant(url), DatabasePerTenant(url) or another TenantDatabase"
            )

    def make(self, tenants: object) -> TenantHelpers:
        """What one run of the runtime has. `tenants`: the resolver, which may know secrets itself."""
        files = self.files
        if isinstance(files, str | os.PathLike):
            files = Files(files)
        source: Any = self.secrets if self.secrets is not None else _secrets_of(tenants)
        if isinstance(source, str | os.PathLike):
            source = SecretsFile(cast("Path", source))
        return TenantHelpers(
            cache=self.cache,
            files=None if files is None else TenantFolders(files),
            secrets=None if source is None else SecretKeeper(source),
            database=self.database,
        )


def _secrets_of(tenants: object) -> Callable[..., Any] | None:
    """The resolver's own method `secrets(tenant)`, if it has one, or one that it goes around has."""
    while tenants is not None:
        source = getattr(tenants, "secrets", None)
        if callable(source):
            return source
        tenants = tenants.inner if isinstance(tenants, ByHost | ProtectedResource) else None
    return None
