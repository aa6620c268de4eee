"""`read_limits`: limits by plan, from a TOML or JSON file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, cast

from ..errors import ConfigurationError
from .limits import Limits, SessionLimits

__all__ = ["read_limits"]

LARGEST: Final = 2**20


def read_limits(path: Path) -> dict[str | None, Limits]:
    """What the table `default` says, under None, and each of `plans`, under its name.

    Raises:
        ConfigurationError: The file cannot be read, or says something else than limits; the message says where.
    """
    where = f"the file of limits {str(path)!r}"
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be read: {error.strerror}") from error
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
    return limits


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
