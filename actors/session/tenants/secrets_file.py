"""`SecretsFile`: secrets of tenants and users in a file that nobody else can read: TOML, JSON or .env."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from ....stores import UnderstudyError
from ....stores.settled_file import FileUnsettled, Stamp, read_settled, stamp_of

if TYPE_CHECKING:
    from ..tenant import TenantContext

__all__ = ["SecretsFile", "SecretsFileError"]

LARGEST: Final = 32 * 2**20

_TABLES: Final = frozenset({"all", "tenants", "users"})
_LINE: Final = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}

Variables = Mapping[str, str]


class SecretsFileError(UnderstudyError, ValueError):
    """A file of secrets that cannot be used. Never says what stands in it."""


class SecretsFile:
    """A source of secrets: `all` are everybody's, `tenants.<id>` one tenant's, `users.<tenant>.<principal>` one user's;
    the more particular wins.

        [tenants.acme]
        CRM_TOKEN = "..."

        [users.acme.ada]
        MAIL_PASSWORD = "..."

    In TOML, or JSON of the same shape. A file that ends in `.env` has lines of `NAME=value`, which are everybody's: for
    a server of one tenant. It is looked at again when secrets are asked for, at most each 5 seconds for one principal,
    and one that is being written is read once it has been left alone for 0.1 s.
    """

    def __init__(self, path: str | os.PathLike[str], *, group_readable: bool = False) -> None:
        """`group_readable`: the file's group may read it too, as where an orchestrator mounts it so."""
        self.path = Path(path)
        self._forbidden = stat.S_IRWXO | stat.S_IWGRP | (0 if group_readable else stat.S_IRGRP | stat.S_IXGRP)
        self._what = f"the file of secrets {str(self.path)!r}"
        self._seen: Stamp | None = None
        self._tables: dict[str, Any] = {}

    def load(self) -> bool:
        """Read it if it has changed; whether it has. Blocks. What was known stays where it raises.

        Raises:
            SecretsFileError: It cannot be read, others can read it, or it is none.
        """
        try:
            # Its mode alone may have changed, which the stamp tells too.
            if self._seen is not None and stamp_of(self.path.stat()) == self._seen:
                return False
            seen, raw = read_settled(self.path, LARGEST + 1, self._check)
        except OSError as error:
            self._seen = None
            raise SecretsFileError(f"{self._what} cannot be read: {error.strerror}") from None
        except FileUnsettled as error:
            raise SecretsFileError(f"{self._what}: {error}") from None
        self._tables = self._parse(raw)
        self._seen = seen
        return True

    def of(self, tenant: TenantContext) -> Variables:
        """What the tenant and its principal have, of what was loaded."""
        tables = self._tables
        own: Mapping[str, Variables] = tables["users"].get(tenant.tenant, {})
        return {**tables["all"], **tables["tenants"].get(tenant.tenant, {}), **own.get(tenant.principal, {})}

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise SecretsFileError(f"{self._what} is no regular file")
        if status.st_mode & self._forbidden:
            raise SecretsFileError(
                f"{self._what} can be read or changed by others (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600"
            )
        if status.st_uid not in (0, os.geteuid()):
            raise SecretsFileError(
                f"{self._what} belongs to user {status.st_uid}, not to the one that runs this process"
            )

    def _parse(self, raw: bytes) -> dict[str, Any]:
        if len(raw) > LARGEST:
            raise SecretsFileError(f"{self._what} is larger than {LARGEST} bytes")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise SecretsFileError(f"{self._what} is not UTF-8") from None
        if self.path.suffix == ".env" or self.path.name == ".env":
            return {"all": self._env(text), "tenants": {}, "users": {}}
        # Neither parser's own words are repeated: they may quote the file.
        try:
            if self.path.suffix == ".json":
                loaded: Any = json.loads(text)
            elif self.path.suffix == ".toml":
                loaded = tomllib.loads(text)
            else:
                raise SecretsFileError(f"{self._what} must end in .toml, .json or .env, which says how it is read")
        except json.JSONDecodeError as error:
            raise SecretsFileError(f"{self._what} is no JSON (line {error.lineno}, column {error.colno})") from None
        except (ValueError, RecursionError) as error:
            if isinstance(error, SecretsFileError):
                raise
            place = re.search(r"\(at [^()]*\)$", str(error))
            raise SecretsFileError(f"{self._what} is no TOML{f' {place[0]}' if place else ''}") from None
        tables = self._table(loaded, "its top")
        if unknown := sorted(tables.keys() - _TABLES):
            raise SecretsFileError(
                f"{self._what} has the unknown table {unknown[0][:32]!r}; known: all, tenants, users"
            )
        tenants, users = (self._table(tables.get(name, {}), name) for name in ("tenants", "users"))
        return {
            "all": self._variables(tables.get("all", {}), "all"),
            "tenants": {tenant: self._variables(own, f"tenants.{tenant}") for tenant, own in tenants.items()},
            "users": {
                tenant: {
                    user: self._variables(own, f"users.{tenant}.{user}")
                    for user, own in self._table(each, f"users.{tenant}").items()
                }
                for tenant, each in users.items()
            },
        }

    def _table(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise SecretsFileError(f"{self._what}: {where[:128]} must be a table")
        return cast("dict[str, Any]", value)

    def _variables(self, value: Any, where: str) -> dict[str, str]:
        table = self._table(value, where)
        for name, text in table.items():
            if not isinstance(text, str):
                raise SecretsFileError(f"{self._what}: {name[:64]} of {where[:128]} must be text")
        return table

    def _env(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line)
            value = None if match is None else _env_value(match[2])
            if match is None or value is None:
                raise SecretsFileError(f'{self._what}: line {number} is not NAME=value, NAME="value" or a comment')
            found[match[1]] = value
        return found


def _env_value(written: str) -> str | None:
    """The value as dotenv files write it; None where it is written wrongly."""
    if written[:1] == "'":
        found = re.fullmatch(r"'([^']*)'[ \t]*(?:#.*)?", written)
        return None if found is None else found[1]
    if written[:1] == '"':
        found = re.fullmatch(r'"((?:[^"\\]|\\.)*)"[ \t]*(?:#.*)?', written)
        return None if found is None else re.sub(r"\\(.)", lambda each: _ESCAPES.get(each[1], each[0]), found[1])
    return re.sub(r"(?:^|[ \t]+)#.*", "", written).strip()
