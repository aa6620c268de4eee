"""`ServeOptions` and the words its values are written in."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.certificates import self_signed
from understudy.runtime.commands.config import ConfigError, ServeOptions, format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("1.5h", 5400.0),
        ("30m", 1800.0),
        ("24H", 86400.0),
        ("7d", 604800.0),
        ("250ms", 0.25),
        (" 5 s ", 5.0),
    ],
)
def test_a_duration_is_seconds_or_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-5", "5w", "1e9", "nan", "inf", "0", "0s", "11000d", "9" * 400, "٣h"])
def test_what_is_no_duration_is_refused_with_the_value_in_the_message(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_duration(text)
    assert repr(text[:64]) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4194304", 4194304), ("4MiB", 4194304), ("512 KiB", 524288), ("10mb", 10_000_000), ("0.5GiB", 2**29)],
)
def test_a_size_is_bytes_or_a_number_with_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "0", "0.1", "2GiB", "4 parsecs", "9" * 400])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(86400.0, "24h"), (604800.0, "7d"), (300.0, "5m"), (90.0, "90s"), (0.5, "0.5s")]
)
def test_a_duration_is_said_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    "path", ["", "mcp", "/", "/mcp/", "/a//b", "/mcp?x=1", "/m cp", "/healthz", "/metrics", "/readyz"]
)
def test_a_path_that_cannot_be_routed_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="--path"):
        ServeOptions(path=path)


@pytest.mark.parametrize(
    "host", ["example.com", "example.com:8443", "a_b.internal", "[::1]", "[::1]:8000", "*", "localhost:*"]
)
def test_a_host_with_or_without_port_is_taken(host: str) -> None:
    assert ServeOptions(allowed_hosts=(host,)).allowed_hosts == (host,)


@pytest.mark.parametrize("host", ["", "https://example.com", "example.com/", "a b", "exa\nmple.com", "-x", "user@host"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="--allowed-host"):
        ServeOptions(allowed_hosts=(host,))


@pytest.mark.parametrize("origin", ["https://app.example.com", "http://localhost:3000", "*", "vscode-webview://abc"])
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    assert ServeOptions(allowed_origins=(origin,)).allowed_origins == (origin,)


@pytest.mark.parametrize(
    "origin", ["example.com", "https://example.com/", "https://", "https://u@h.example", "https://a b"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="--allowed-origin"):
        ServeOptions(allowed_origins=(origin,))


def test_a_certificate_without_its_key_is_refused_and_so_is_the_reverse(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--tls-cert needs --tls-key"):
        ServeOptions(tls_cert=tmp_path / "cert.pem")
    with pytest.raises(ConfigError, match="--tls-key needs --tls-cert"):
        ServeOptions(tls_key=tmp_path / "key.pem")


def test_a_missing_certificate_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--tls-cert '.*absent.pem' cannot be read: No such file"):
        ServeOptions(tls_cert=tmp_path / "absent.pem", tls_key=tmp_path / "absent.key")


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    cert, _ = self_signed(tmp_path / "a")
    _, key = self_signed(tmp_path / "b")
    with pytest.raises(ConfigError, match="KEY_VALUES_MISMATCH"):
        ServeOptions(tls_cert=cert, tls_key=key)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, password=b"secret")
    with pytest.raises(ConfigError, match="plain key"):
        ServeOptions(tls_cert=cert, tls_key=key)


def test_the_url_is_one_a_client_on_this_machine_can_use(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    assert ServeOptions(host="0.0.0.0").url(8123) == "http://127.0.0.1:8123/mcp"
    assert ServeOptions(host="::1", path="/a/b").url(80) == "http://[::1]:80/a/b"
    assert ServeOptions(host="localhost", tls_cert=cert, tls_key=key).url(443) == "https://localhost:443/mcp"


def test_listening_to_strangers_without_allowed_hosts_is_warned_about() -> None:
    assert "--allowed-host" in (ServeOptions(host="0.0.0.0").host_warning() or "")
    assert "--allowed-host" in (ServeOptions(host="mcp.example.com").host_warning() or "")
    assert ServeOptions(host="0.0.0.0", allowed_hosts=("mcp.example.com",)).host_warning() is None
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert ServeOptions(host=host).host_warning() is None


def test_a_time_that_may_be_none_may_be_0() -> None:
    assert parse_duration("0", or_none=True) == 0.0
    with pytest.raises(ConfigError):
        parse_duration("-1", or_none=True)


def test_a_lame_duck_has_time_in_a_cluster_only_unless_told_otherwise() -> None:
    cluster = {"cluster": "shop", "nats": "nats://127.0.0.1:1"}
    assert ServeOptions().lame_duck_time == 0.0
    assert ServeOptions(lame_duck=1.0).lame_duck_time == 1.0
    assert ServeOptions(**cluster).lame_duck_time == 2.0  # type: ignore[arg-type]
    assert ServeOptions(**cluster, lame_duck=0.0).lame_duck_time == 0.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nats", "fits"),
    [
        ("nats://127.0.0.1:4222", True),
        ("tls://localhost", True),
        ("nats://[::1]:4222", True),
        ("nats://10.0.0.1", False),
        ("nats://127.0.0.1,nats.example", False),
    ],
)
def test_a_sqlite_file_fits_a_cluster_whose_nats_is_on_this_machine_alone(nats: str, fits: bool) -> None:
    def options() -> ServeOptions:
        return ServeOptions(cluster="shop", nats=nats, store="sqlite:///a.db")

    if not fits:
        with pytest.raises(ConfigError, match="--store sqlite: is a file of one machine"):
            options()
        return
    warning = options().store_warning()
    assert warning is not None
    assert "every node of this cluster must run on this machine" in warning


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_node_that_listens_everywhere_is_shown_by_its_machines_name(host: str) -> None:
    assert ServeOptions(host=host).advertised_url(80) == f"http://{socket.gethostname()}:80/mcp"
    assert ServeOptions(host="10.0.0.1").advertised_url(80) == "http://10.0.0.1:80/mcp"


def test_the_event_log_may_be_larger_than_a_body() -> None:
    assert parse_size("20GiB", most=2**44) == 20 * 2**30
    with pytest.raises(ConfigError, match="between 1 byte and 16384 GiB"):
        parse_size("20000GiB", most=2**44)
