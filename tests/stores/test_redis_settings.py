"""`RedisSettings`: what a URL of Redis means, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from understudy.stores.redis.errors import RedisSettingsError
from understudy.stores.redis.settings import SCHEMES, RedisSettings
from understudy.stores.url import _BUILTIN


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("redis://host", RedisSettings((("host", 6379),))),
        ("redis://host:1/2", RedisSettings((("host", 1),), db=2)),
        ("redis://host?db=2", RedisSettings((("host", 6379),), db=2)),
        ("redis://[::1]:7", RedisSettings((("::1", 7),))),
        ("redis://:p%40ss@host", RedisSettings((("host", 6379),), password="p@ss")),
        ("redis://u:p:q@host", RedisSettings((("host", 6379),), user="u", password="p:q")),
        ("redis://host?user=u&password=p", RedisSettings((("host", 6379),), user="u", password="p")),
        ("rediss://host?ca=/ca", RedisSettings((("host", 6379),), tls=True, ca=Path("/ca"))),
        (
            "redis+sentinel://u:p@one,two:2/main/3?sentinel_password=s",
            RedisSettings(
                (("one", 26379), ("two", 2)), "sentinel", "main", user="u", password="p", sentinel_password="s", db=3
            ),
        ),
        (
            "rediss+cluster://one,two:2?prefix=shop&replicas=2",
            RedisSettings((("one", 6379), ("two", 2)), "cluster", tls=True, prefix="shop", replicas=2),
        ),
    ],
)
def test_a_url_says_all_of_it(url: str, settings: RedisSettings) -> None:
    assert RedisSettings.from_url(url) == settings


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://host", "starts with redis://"),
        ("redis:host", "starts with redis://"),
        ("redis://", "names no host"),
        ("redis://a b", "visible ASCII"),
        ("redis://host#x", "visible ASCII"),
        ("redis://one,two", "names one server"),
        ("redis://host:0", "port"),
        ("redis://host:65536", "port"),
        ("redis://host/x", "whole number"),
        ("redis://host/-1", "whole number"),
        ("redis://host/1?db=1", "twice"),
        ("redis://host?db=1&db=1", "twice"),
        ("redis://host/70000", "0 to 65535"),
        ("redis://user@host", "without a password"),
        ("redis://user:@host", "without a password"),
        ("redis://u:p@host?password=p", "repeats"),
        ("redis://host?user=u", "needs a password"),
        ("redis+sentinel://host/m?sentinel_user=u", "needs a password"),
        ("redis://host?nonsense=1", "unknown option 'nonsense'"),
        ("redis://host?prefix=", "is empty"),
        ("redis://host?prefix={x}", "prefix"),
        ("redis://host?replicas=99", "0 to 16"),
        ("redis://host?replicas=one", "whole number"),
        ("redis://host?ca=/ca", "write rediss://"),
        ("rediss://host?cert=/c", "needs 'key'"),
        ("redis+sentinel://host", "name of the primary"),
        ("redis+sentinel://host/a b", "visible ASCII"),
        ("redis+cluster://host/1", "one database"),
        ("redis+cluster://" + ",".join(["h"] * 65), "at most 64"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(url: str, says: str) -> None:
    with pytest.raises(RedisSettingsError, match=says):
        RedisSettings.from_url(url)


def test_no_secret_is_shown() -> None:
    settings = RedisSettings.from_url("redis+sentinel://u:hunter2@host/main?sentinel_password=hunter2")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.where


def test_every_scheme_is_one_that_open_store_knows() -> None:
    assert set(SCHEMES) == {scheme for scheme in _BUILTIN if scheme.startswith("redis")}
