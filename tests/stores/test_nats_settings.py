"""`NatsSettings`: what a URL and the environment can say, and what they cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from understudy.stores.nats.errors import NatsSettingsError
from understudy.stores.nats.settings import NatsSettings, split_nats_url


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("nats://localhost", ("nats://localhost:4222",)),
        ("nats://10.0.0.1:4333", ("nats://10.0.0.1:4333",)),
        ("tls://nats.example.com", ("tls://nats.example.com:4222",)),
        ("nats://[::1]:4222", ("nats://[::1]:4222",)),
        ("nats://[::1]", ("nats://[::1]:4222",)),
        ("nats://a,b:1,c", ("nats://a:4222", "nats://b:1", "nats://c:4222")),
        ("nats://a:1,nats://b:2", ("nats://a:1", "nats://b:2")),
        ("nats://a:1,tls://b:2", ("nats://a:1", "tls://b:2")),
        ("nats://x:1,nats:4222,tls:5", ("nats://x:1", "nats://nats:4222", "nats://tls:5")),
    ],
)
def test_a_url_names_one_server_or_several(url: str, servers: tuple[str, ...]) -> None:
    assert NatsSettings.from_url(url).servers == servers


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://u:p@h", {"user": "u", "password": "p"}),
        ("nats://u%40x:p%3A%2F@h", {"user": "u@x", "password": "p:/"}),
        ("nats://u:p@w@h", {"user": "u", "password": "p@w"}),
        ("nats://u:p@a,b", {"user": "u", "password": "p"}),
        ("nats://u:p@a,nats://u:p@b", {"user": "u", "password": "p"}),
        ("nats://s3cr3t@h", {"token": "s3cr3t"}),
        ("nats://h?token=s3cr3t", {"token": "s3cr3t"}),
        ("nats://h?user=u&password=p", {"user": "u", "password": "p"}),
        ("nats://h?creds=/run/x.creds", {"creds": Path("/run/x.creds")}),
        ("nats://h?nkey=~/seed", {"nkey": Path("~/seed").expanduser()}),
        ("tls://h?ca=ca.pem&cert=c.pem&key=k.pem", {"ca": Path("ca.pem"), "cert": Path("c.pem"), "key": Path("k.pem")}),
    ],
)
def test_a_url_says_who_we_are(url: str, expected: dict[str, object]) -> None:
    settings = NatsSettings.from_url(url)
    for name in ("user", "password", "token", "creds", "nkey", "ca", "cert", "key"):
        assert getattr(settings, name) == expected.get(name), name


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "starts with nats://"),
        ("localhost:4222", "starts with nats://"),
        ("http://h", "starts with nats://"),
        ("nats://", "names no host"),
        ("nats://h,", "names no host"),
        ("nats://h:0", "no number"),
        ("nats://h:99999", "no number"),
        ("nats://h:x", "no number"),
        ("nats://h/path", "nothing after the host"),
        ("nats://h#x", "percent-encode"),
        ("nats://h x", "percent-encode"),
        ("nats://h\u00e9", "percent-encode"),
        ("nats://h?speed=9", "unknown option 'speed'"),
        ("nats://h?token=a&token=b", "twice"),
        ("nats://u:hunter2@h?user=x", "'user' repeats"),
        ("nats://u:hunter2@a,v:hunter2@b", "different users"),
        ("nats://u:hunter2@h?token=hunter2", "'user' and 'token' exclude each other"),
        ("nats://h?creds=a&nkey=b", "'nkey' and 'creds' exclude each other"),
        ("nats://h?user=u", "'user' needs 'password'"),
        ("nats://h?cert=a", "'cert' needs 'key'"),
        ("nats://h?creds=", "'creds' is empty"),
        ("nats://u:hunter2@-", "names no host"),
        ("nats://h:4222:hunter2", "no number"),
        ("nats://" + ",".join(["h"] * 65), "at most 64"),
    ],
)
def test_a_url_that_cannot_be_understood_is_refused_without_its_secrets(url: str, says: str) -> None:
    with pytest.raises(NatsSettingsError, match=says) as caught:
        NatsSettings.from_url(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in f"{error} {error.args}"
        error = error.__cause__ or error.__context__


def test_no_secret_is_shown() -> None:
    settings = NatsSettings.from_url("nats://u:hunter2@h")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.where
    assert "hunter2" not in repr(NatsSettings(token="hunter2"))


def test_the_environment_says_the_same_and_more() -> None:
    assert NatsSettings.from_environment({}) is None
    assert NatsSettings.from_environment({"UNDERSTUDY_NATS": ""}) is None
    environment = {
        "UNDERSTUDY_NATS": "tls://h",
        "UNDERSTUDY_NATS_USER": "u",
        "UNDERSTUDY_NATS_PASSWORD": "p",
        "UNDERSTUDY_NATS_CA": "/ca.pem",
        "HOME": "/",
    }
    settings = NatsSettings.from_environment(environment)
    assert settings == NatsSettings(("tls://h:4222",), user="u", password="p", ca=Path("/ca.pem"))


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"UNDERSTUDY_NATS_TOKEN": "hunter2"}, "UNDERSTUDY_NATS_TOKEN is set, but UNDERSTUDY_NATS"),
        ({"UNDERSTUDY_NATS": "nats://h", "UNDERSTUDY_NATS_USER": "u"}, "'user' needs 'password'"),
        ({"UNDERSTUDY_NATS": "nats://u:hunter2@h", "UNDERSTUDY_NATS_CREDS": "x"}, "exclude each other"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environment: dict[str, str], says: str) -> None:
    with pytest.raises(NatsSettingsError, match=says) as caught:
        NatsSettings.from_environment(environment)
    assert "hunter2" not in str(caught.value)


def test_what_a_store_needs_is_left_for_it() -> None:
    settings, path, options = split_nats_url("nats://a:1,b:2/bucket?replicas=3&token=t")
    assert settings == NatsSettings(("nats://a:1", "nats://b:2"), token="t")
    assert (path, options) == ("bucket", {"replicas": "3"})
    _, path, _ = split_nats_url("nats://a:1,nats://b:2/bucket")
    assert path == "bucket"


@pytest.mark.parametrize(
    ("settings", "tls"),
    [
        (NatsSettings(), False),
        (NatsSettings(("tls://h:1",)), True),
        (NatsSettings(("nats://a:1", "tls://b:1")), True),
        (NatsSettings(ca=Path("ca")), True),
    ],
)
def test_tls_is_demanded_where_it_is_named(settings: NatsSettings, tls: bool) -> None:
    assert settings.tls is tls
