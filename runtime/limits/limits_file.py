"""`LimitsFile`: limits by plan, from a TOML or JSON file, which is read again when it has changed."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, cast

from ...actors.session import TenantContext
from ...stores.settled_file import FileUnsettled, Stamp, read_settled, stamp_of
from ..errors import ConfigurationError
from .limits import Limits, SessionLimits

__all__ = ["LimitsFile", "read_limits"]

logger = logging.getLogger("understudy.limits")

LARGEST: Final = 2**20
READ_TIMEOUT: Final = 2.0


class LimitsFile:
    """A `LimitsOf`: the table `default`, and tables `plans.<name>` for tenants of these plans.

        Runtime(server, tenants=resolver, limits=LimitsFile("limits.toml"))

    The node looks at it every second while anybody calls, in a thread, and what it says then holds from the next call
    on. One that cannot be used then changes nothing: the limits stay, and a log line and
    `limits_file_failures_total` say so. One that is being written is read once it has been left alone for 0.1 s.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Raises:
            ConfigurationError: The file cannot be used now.
        """
        self._path = Path(path)
        self._reading: asyncio.Future[None] | None = None
        self._complaint: str | None = None
        self._seen: Stamp | None = None
        self.reloads = 0
        self.failures = 0
        self._seen, self._plans = _read(self._path)
        self._default = self._plans[None]

    def __call__(self, tenant: TenantContext) -> Limits:
        """What the file says of the plan of `tenant`."""
        return self._plans.get(tenant.plan, self._default)

    async def look(self) -> None:
        """Read the file if it has changed. Takes 2 s at most. Cancelled, or out of time, it leaves a thread that ends
        by itself, and until then there is no other.
        """
        if self._reading is None or self._reading.get_loop() is not asyncio.get_running_loop():
            self._reading = asyncio.get_running_loop().run_in_executor(None, self._look_apart)
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                await asyncio.shield(self._reading)
        except TimeoutError:
            self._complain(f"the file of limits {str(self._path)!r} could not be read within {READ_TIMEOUT:g} s")
            if not self._reading.done():
                return
        self._reading = None

    def _look_apart(self) -> None:
        try:
            present = stamp_of(self._path.stat())
            if present == self._seen:
                return
            # Also if it cannot be used: it is not read again before it has changed again.
            self._seen = present
            self._seen, plans = _read(self._path)
        except OSError as error:
            # A file that comes back unchanged is news too, and ends the complaint.
            self._seen = None
            self._complain(f"the file of limits {str(self._path)!r} cannot be read: {error.strerror}")
        except ConfigurationError as error:
            self._complain(str(error))
        else:
            self._plans, self._default = plans, plans[None]
            self._complaint = None
            self.reloads += 1
            logger.info("the file of limits %r has changed and was read again", str(self._path))

    def _complain(self, reason: str) -> None:
        """Say that the file cannot be used, once for each reason, and that the limits stay."""
        self.failures += 1
        if reason != self._complaint:
            self._complaint = reason
            logger.error("the limits stay as they were: %s", reason)


def read_limits(path: Path) -> dict[str | None, Limits]:
    """What the table `default` says, under None, and each of `plans`, under its name.

    Raises:
        ConfigurationError: The file cannot be read, or says something else than limits; the message says where.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[Stamp, dict[str | None, Limits]]:
    where = f"the file of limits {str(path)!r}"
    try:
        stamp, raw = read_settled(path, LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be read: {error.strerror}") from error
    except FileUnsettled as error:
        raise ConfigurationError(f"{where}: {error}") from error
    if len(raw) > LARGEST:
        raise ConfigurationError(f"{where} is larger than {LARGEST // 2**20} MiB")
    try:
        text = raw.decode()
        read: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigurationError(f"{where} is no {kind}: {error}") from error
    tables = _table(read, where, {"default", "plans"})
    if "default" not in tables:
        raise ConfigurationError(
            f"{where} has no table `default`, for tenants without a plan, or of another; an empty one sets no limits"
        )
    limits: dict[str | None, Limits] = {None: _limits(tables["default"], f"{where}, default")}
    for plan, table in _table(tables.get("plans", {}), f"{where}, plans", None).items():
        limits[plan] = _limits(table, f"{where}, plans.{plan[:64]}")
    return stamp, limits


def _limits(given: Any, where: str) -> Limits:
    table = dict(_table(given, where, {each.name for each in fields(Limits)}))
    names = {each.name for each in fields(SessionLimits)}
    try:
        if "per_session" in table:
            table["per_session"] = SessionLimits(**_table(table["per_session"], f"{where}.per_session", names))
        return Limits(**table)
    except ConfigurationError as error:
        if str(error).startswith(where):
            raise
        raise ConfigurationError(f"{where}: {error}") from error


def _table(given: Any, where: str, known: set[str] | None) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise ConfigurationError(f"{where} is {type(given).__name__}; it must be a table")
    table = cast("dict[str, Any]", given)
    unknown = sorted(table.keys() - known) if known is not None else []
    if known is not None and unknown:
        raise ConfigurationError(f"{where} says {unknown[0][:64]!r}; it may say {', '.join(sorted(known))}")
    return table
