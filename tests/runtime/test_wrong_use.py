"""What a program gives `Runtime` by mistake is refused where it is given, in words: before a port is open."""

from __future__ import annotations

from typing import Any

import pytest
from edge.client import hosting
from edge.server import make_server
from understudy.runtime import ApiKey, ApiKeyError, ApiKeys, ConfigurationError, Runtime, TenantContext, new_api_key
from understudy.stores import MemoryStore

KEY = new_api_key()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("store", 5, "must be the URL of a store, or a SessionStore"),
        ("store", None, "must be the URL of a store, or a SessionStore"),
        ("store", MemoryStore, "must be the URL of a store, or a SessionStore"),
        ("next_store", object(), "must be the URL of a store, or a SessionStore"),
        # With a star among its letters, everything would be allowed.
        ("allowed_hosts", "*.example.com", "it must be several texts"),
        ("allowed_hosts", [5], "it must be several texts"),
        ("allowed_origins", "https://*.example.com", "it must be several texts"),
        ("tenants", "keys.toml", "it must be a resolver"),
        ("tenants", [ApiKey.of(KEY, TenantContext("acme", "ada"))], "it must be a resolver"),
        ("tenants", ApiKeys, "it must be a resolver"),
        ("encryption", "the keys", "encryption is of type str; it must be a KeyRing"),
        ("audit", 5, "it must be a file or a function"),
        ("cluster", "shop", "it must be ClusterOptions"),
    ],
)
def test_what_is_no_such_option_is_refused(option: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        Runtime(make_server(), **{option: value})
    assert "the keys" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tenant": 5}, "tenant is 5; it must be text"),
        ({"principal": None}, "principal is None; it must be text"),
        ({"scopes": "read billing"}, "it must be a set of them"),
        ({"plan": 5}, "plan is 5; it must be text, or None"),
        ({"expires": "tomorrow"}, "it must be Unix time in seconds"),
    ],
)
def test_a_context_of_wrong_types_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TenantContext(**({"tenant": "acme", "principal": "ada"} | fields))


async def test_scopes_that_are_listed_are_a_set_of_scopes() -> None:
    listed: Any = ["read", "billing", "read"]
    context = TenantContext("acme", "ada", scopes=listed)
    assert context == TenantContext("acme", "ada", scopes=frozenset({"read", "billing"}))
    async with hosting(make_server(), tenants=lambda request: context) as client:
        await client.open()
        assert await client.tool("increment") == 1


def test_what_is_no_api_key_is_refused_and_not_shown() -> None:
    for keys in (KEY, [KEY]):
        with pytest.raises(ApiKeyError, match="among the keys: make each with") as refused:
            ApiKeys(keys)  # type: ignore[arg-type]
        assert KEY not in str(refused.value)
    with pytest.raises(ApiKeyError, match="a key is for a TenantContext, and not for 'acme'"):
        ApiKey.of(KEY, "acme")  # type: ignore[arg-type]
