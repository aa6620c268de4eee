"""What `understudy serve` can be told, and how its words are read: durations, sizes, hosts, origins."""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..stores import UnderstudyError

__all__ = ["ConfigError", "ServeOptions", "parse_duration", "parse_size"]

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_QUANTITY = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-zA-Z]*)", re.ASCII)
_HOST = re.compile(
    r"(?:\*|\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?::(?:\*|\d{1,5}))?", re.ASCII
)
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+", re.ASCII)
_OWN_PATHS = ("/healthz", "/readyz", "/metrics")

LONGEST = 10 * 365 * 86400.0
"""The longest duration taken, in seconds: ten years. Longer ones are typing errors."""


class ConfigError(UnderstudyError, ValueError):
    """An option, or the environment variable of that name, that cannot be used."""


def parse_duration(text: str) -> float:
    """Seconds from `90`, `1.5h`, `30m`, `24h`, `7d` or `250ms`.

    Raises:
        ConfigError: Not a number with a known unit, zero, or more than ten years.
    """
    match = _QUANTITY.fullmatch(text.strip())
    unit = _SECONDS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ConfigError(f"{text[:64]!r} is no duration: write seconds (90) or a number with ms, s, m, h or d (24h)")
    seconds = float(match[1]) * unit
    if not 0 < seconds <= LONGEST:
        raise ConfigError(f"duration {text[:64]!r} must be more than nothing and at most ten years")
    return seconds


def parse_size(text: str) -> int:
    """Bytes from `4194304`, `4MiB`, `512KiB` or `10MB`.

    Raises:
        ConfigError: Not a number with a known unit, less than one byte, or more than 1 GiB.
    """
    match = _QUANTITY.fullmatch(text.strip())
    unit = _BYTES.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ConfigError(f"{text[:64]!r} is no size: write bytes (4194304) or a number with KiB, MiB or GiB (4MiB)")
    size = int(float(match[1]) * unit)
    if not 1 <= size <= 2**30:
        raise ConfigError(f"size {text[:64]!r} must be between 1 byte and 1 GiB")
    return size


def format_duration(seconds: float) -> str:
    """`86400.0` as `24h`: the largest unit that leaves a whole number."""
    for unit in ("d", "h", "m", "s"):
        count = seconds / _SECONDS[unit]
        if count >= 1 and count.is_integer() and (unit != "d" or count > 1):
            return f"{int(count)}{unit}"
    return f"{seconds:g}s"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Everything `understudy serve` knows besides its target. Durations are seconds, sizes bytes."""

    host: str = "127.0.0.1"
    port: int = 8000
    path: str = "/mcp"
    store: str | None = None
    """A store URL; None: a SQLite file of the target's own (see `understudy.runtime.target.default_store_path`)."""
    session_ttl: float = 86400.0
    idle_after: float = 300.0
    max_sessions: int = 10_000
    max_body: int = 4 * 2**20
    http: str = "hypercorn"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    log_format: str = "text"
    log_level: str = "info"
    drain_timeout: float = 30.0
    reload: bool = False

    def __post_init__(self) -> None:
        """Check what one option alone cannot know.

        Raises:
            ConfigError: A path, host, origin or TLS pair that cannot be used.
        """
        if _PATH.fullmatch(self.path) is None:
            raise ConfigError(f"--path {self.path[:128]!r} must start with / and end without one, such as /mcp")
        if self.path in _OWN_PATHS:
            raise ConfigError(f"--path {self.path!r} is understudy's own; take another, such as /mcp")
        for host in self.allowed_hosts:
            _check_host(host)
        for origin in self.allowed_origins:
            _check_origin(origin)
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("--tls-cert", "--tls-key") if self.tls_cert else ("--tls-key", "--tls-cert")
            raise ConfigError(f"{given} needs {missing} beside it: TLS takes a certificate and its key")
        if self.tls_cert is not None and self.tls_key is not None:
            _check_tls(self.tls_cert, self.tls_key)

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert else "http"

    def url(self, port: int) -> str:
        """The address to give to a client, with `port` as bound (which `--port 0` leaves to the system)."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{port}{self.path}"

    def host_warning(self) -> str | None:
        """What to say when the server will listen where its own Host check refuses everybody."""
        if self.allowed_hosts or is_loopback(self.host):
            return None
        return (
            f"listening on {self.host}, but only requests for localhost will be answered (others get 421): name the "
            "hosts that clients use with --allowed-host mcp.example.com, or '*' behind a proxy that checks them"
        )


def is_loopback(host: str) -> bool:
    """Whether binding to `host` keeps strangers out."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_host(host: str) -> None:
    if _HOST.fullmatch(host) is None:
        raise ConfigError(
            f"--allowed-host {host[:128]!r} is no host: write example.com, example.com:8443, [::1] or *, without https://"
        )


def _check_origin(origin: str) -> None:
    parts = urlsplit(origin) if origin.isascii() and origin.isprintable() else None
    bare = parts is not None and not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    if origin != "*" and (parts is None or not bare or not parts.scheme or _HOST.fullmatch(parts.netloc) is None):
        raise ConfigError(
            f"--allowed-origin {origin[:128]!r} is no origin: write https://app.example.com, without a path, or *"
        )


def _check_tls(cert: Path, key: Path) -> None:
    for option, file in (("--tls-cert", cert), ("--tls-key", key)):
        try:
            file.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{option} {str(file)!r} cannot be read: {error.strerror}") from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise ConfigError(
            f"--tls-cert {str(cert)!r} and --tls-key {str(key)!r} are no certificate and its plain key: {reason}"
        ) from error


def _no_password() -> str:
    # Without a callback OpenSSL asks on the terminal, and a service hangs at its start.
    raise ValueError("the key is encrypted")
