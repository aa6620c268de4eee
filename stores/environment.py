"""`store_of_environment`: which store a process is meant to use, from the variables that platforms set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from .errors import StoreURLError

__all__ = ["AUTO", "FoundStore", "store_of_environment"]

AUTO = "auto"
"""In the place of a store's URL: ask the environment."""

_OWN = "UNDERSTUDY_STORE"
_TABLES = ("UNDERSTUDY_DYNAMODB_TABLE", "DYNAMODB_TABLE", "DYNAMODB_TABLE_NAME")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_LOOKED_AT = f"{_OWN}, REDIS_URL, VALKEY_URL, DATABASE_URL, PGHOST, PGDATABASE, NATS_URL and {_TABLES[0]}"


@dataclass(frozen=True, slots=True)
class FoundStore:
    """A store, and how the environment names it."""

    variable: str
    url: str = field(repr=False)
    """For `open_store`. Where the variable holds a password, so does this."""


def store_of_environment(environment: Mapping[str, str]) -> FoundStore:
    """The store that `environment` names: the one of `UNDERSTUDY_STORE`, or else the only one that the variables of
    Redis, PostgreSQL, NATS and DynamoDB name together. Empty variables count as not set.

    Raises:
        StoreURLError: They name none, or several. The message holds names of variables and none of their values.
    """
    own = environment.get(_OWN, "").strip()
    if own and own != AUTO:
        return FoundStore(_OWN, own)
    found = [store for look in (_redis, _postgresql, _nats, _dynamodb) for store in look(environment)]
    urls = {store.url for store in found}
    if len(urls) > 1:
        names = [store.variable for store in found]
        raise StoreURLError(
            f"the environment names {len(urls)} stores, by {', '.join(names[:-1])} and {names[-1]}: say which is meant "
            f"(--store URL, or {_OWN})"
        )
    if not found:
        raise StoreURLError(f"the environment names no store: set one of {_LOOKED_AT}, or give the store's URL")
    return found[0]


def _redis(environment: Mapping[str, str]) -> list[FoundStore]:
    return [FoundStore(name, url) for name in ("REDIS_URL", "VALKEY_URL") if (url := _value(environment, name))]


def _postgresql(environment: Mapping[str, str]) -> list[FoundStore]:
    url = _value(environment, "DATABASE_URL")
    scheme, colon, rest = url.partition("://")
    # SQLAlchemy's way of writing has the driver in it.
    if colon and scheme.partition("+")[0] in ("postgresql", "postgres"):
        return [FoundStore("DATABASE_URL", f"postgresql://{rest}")]
    for name in ("PGHOST", "PGDATABASE"):
        if _value(environment, name):
            # Who connects asks the same variables for the rest.
            return [FoundStore(name, "postgresql://")]
    return []


def _nats(environment: Mapping[str, str]) -> list[FoundStore]:
    url = _value(environment, "NATS_URL")
    return [FoundStore("NATS_URL", url)] if url else []


def _dynamodb(environment: Mapping[str, str]) -> list[FoundStore]:
    name = next((name for name in _TABLES if _value(environment, name)), None)
    if name is None:
        return []
    region = next((region for variable in _REGIONS if (region := _value(environment, variable))), "")
    query = f"?{urlencode({'region': region})}" if region else ""
    return [FoundStore(name, f"dynamodb://{quote(_value(environment, name), safe='')}{query}")]


def _value(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "").strip()
