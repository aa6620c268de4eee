"""What `understudy serve` can be told, and how its words are read: durations, sizes, hosts, origins."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ...stores import KeyRing, UnderstudyError
from ...stores.tls_files import load_plain_key
from ..telemetry.tenant_label import DEFAULT_LABELS
from ..wire.loopback import is_loopback
from .key_file import read_keys
from .nats_options import NatsOptions, require_nats

__all__ = ["ConfigError", "ServeOptions", "not_in_a_cluster", "parse_duration", "parse_size"]

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_QUANTITY = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-zA-Z]*)", re.ASCII)
_HOST = re.compile(
    r"(?:\*|\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?::(?:\*|\d{1,5}))?", re.ASCII
)
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+", re.ASCII)
_OWN_PATHS = ("/healthz", "/readyz", "/metrics")

LAME_DUCK = 2.0
"""Seconds that a cluster's node answers on by default once it was asked to stop: two looks of a balancer at /readyz."""

_STORES = ("store", "next_store", "former_store")

_CLUSTER_ONLY = (
    "nats",
    "nats_creds",
    "nats_nkey",
    "nats_ca",
    "nats_cert",
    "nats_key",
    "node",
    "advertise",
    "link_version",
    "unsigned_contexts",
    "request_state_keys",
)

LONGEST = 10 * 365 * 86400.0
"""The longest duration taken, in seconds: ten years. Longer ones are typing errors."""


class ConfigError(UnderstudyError, ValueError):
    """An option, or the environment variable of that name, that cannot be used."""


def not_in_a_cluster(name: str) -> ConfigError:
    """What to raise where the option `name`, by its field, is given to a node that is alone."""
    return ConfigError(f"--{name.replace('_', '-')} is for a node of a cluster: name the cluster with --cluster NAME")


def parse_duration(text: str, *, or_none: bool = False) -> float:
    """Seconds from `90`, `1.5h`, `30m`, `24h`, `7d` or `250ms`. With `or_none`, `0` is one too.

    Raises:
        ConfigError: Not a number with a known unit, zero, or more than ten years.
    """
    match = _QUANTITY.fullmatch(text.strip())
    unit = _SECONDS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ConfigError(f"{text[:64]!r} is no duration: write seconds (90) or a number with ms, s, m, h or d (24h)")
    seconds = float(match[1]) * unit
    if not 0 < seconds <= LONGEST and not (or_none and seconds == 0):
        raise ConfigError(f"duration {text[:64]!r} must be more than nothing and at most ten years")
    return seconds


def parse_size(text: str, *, most: int = 2**30) -> int:
    """Bytes from `4194304`, `4MiB`, `512KiB` or `10MB`.

    Raises:
        ConfigError: Not a number with a known unit, less than one byte, or more than `most`.
    """
    match = _QUANTITY.fullmatch(text.strip())
    unit = _BYTES.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ConfigError(f"{text[:64]!r} is no size: write bytes (4194304) or a number with KiB, MiB or GiB (4MiB)")
    size = int(float(match[1]) * unit)
    if not 1 <= size <= most:
        raise ConfigError(f"size {text[:64]!r} must be between 1 byte and {most // 2**30} GiB")
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
    store: str | None = field(default=None, repr=False)
    """A store URL; None: a SQLite file of the target's own (`default_store_path`), or in a cluster the bucket that the
    cluster's NATS keeps."""
    next_store: str | None = field(default=None, repr=False)
    """The URL of the store that the nodes are about to move to."""
    former_store: str | None = field(default=None, repr=False)
    """The URL of the store that they move from."""
    event_log: Literal["store", "off"] = "store"
    """Where streams are kept that clients may resume: in what the store brings, or only in memory."""
    event_log_age: float = 600.0
    """How long the event log keeps a stream after its newest event."""
    event_log_size: int = 2**30
    encryption_keys: Path | None = None
    """A file of keys that sessions and streams are encrypted with in the store; None: they are kept as they are."""
    encryption_allow_plain: bool = False
    limits: Path | None = None
    """A file of limits by plan; None: there are none."""
    when_counters_fail: Literal["open", "closed"] = "open"
    audit: str | None = None
    """The file of the audit trail, `-` for standard error; None: there is none."""
    audit_when_full: Literal["drop", "block"] = "drop"
    tenant_labels: int = DEFAULT_LABELS
    """How many tenants have a label of their own in the metrics."""
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
    cluster: str | None = None
    """The cluster's name; None: one node, without NATS."""
    nats: str | None = field(default=None, repr=False)
    nats_creds: Path | None = None
    nats_nkey: Path | None = None
    nats_ca: Path | None = None
    nats_cert: Path | None = None
    nats_key: Path | None = None
    node: str | None = None
    advertise: str | None = None
    """The URL under which this node is shown to people; None: from host and port."""
    lease: float = 3.0
    lame_duck: float | None = None
    """How long a node that was asked to stop answers on as a mere edge; None: 2 s in a cluster, else not at all."""
    link_version: int | None = None
    unsigned_contexts: Literal["refuse", "accept"] | None = None
    """Whether what nodes from before link version 4 say is taken; None: it is not."""
    credential_check: float = 60.0
    """How often a credential is looked at of which streams are open."""
    api_keys: Path | None = None
    """A file of API keys that clients must have one of; None: everybody is anonymous, unless there are tokens."""
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwks_url: str | None = None
    jwt_tenant: str = "tenant"
    """The claim that names the tenant."""
    files: Path | None = None
    """The folder of `tenant.files`; None: they are not offered, as the next two."""
    secrets: Path | None = None
    database: str | None = field(default=None, repr=False)
    """The URL of the PostgreSQL that `tenant.connection()` connects to."""
    database_isolation: Literal["rows", "schemas", "roles", "databases"] | None = None
    """What keeps tenants apart there."""
    tenant_cache: int = 8 * 2**20
    """Bytes that `tenant.cache` keeps of one tenant; the next: of all."""
    tenant_cache_total: int = 64 * 2**20
    fairness: Literal["equal", "off"] = "equal"
    """Whether tenants that are known share the node."""
    plan_weights: tuple[str, ...] = ()
    """`PLAN=N`: how much tenants of a plan get beside those of others."""
    blocking_threads: int | None = None
    """Worker threads of one tenant; None: as `Fairness` has it."""
    request_state_keys: Path | None = None
    """A file of keys; None: the cluster makes its own."""
    key_rotation: float = 30 * 86400.0
    """Seconds; 0: never by itself."""

    def __post_init__(self) -> None:
        """Check what one option alone cannot know.

        Raises:
            ConfigError: A path, host, origin, TLS pair, or mixture of cluster options, that cannot be used.
            ConfigurationError: No file of limits; a database without asyncpg.
            SecretsFileError: No file of secrets.
            KeyRingError: No file of encryption keys.
            ConfigurationError, NatsSettingsError: A cluster's name, a node's id or a NATS URL that is none.
        """
        if self.cluster is None:
            for name in _CLUSTER_ONLY:
                if getattr(self, name) is not None:
                    raise not_in_a_cluster(name)
        else:
            self._check_cluster(self.cluster)
        if _PATH.fullmatch(self.path) is None:
            raise ConfigError(f"--path {self.path[:128]!r} must start with / and end without one, such as /mcp")
        if self.path in _OWN_PATHS:
            raise ConfigError(f"--path {self.path!r} is understudy's own; take another, such as /mcp")
        for host in self.allowed_hosts:
            _check_host(host)
        for origin in self.allowed_origins:
            _check_origin(origin)
        self._check_moving()
        if self.limits is not None:
            # Here and not above: `understudy --help` should not wait for the SDK.
            from ..limits.limits_file import read_limits

            read_limits(self.limits)
        elif self.when_counters_fail != "open":
            raise ConfigError("--when-counters-fail is for limits: name --limits FILE")
        if self.encryption_keys is not None:
            KeyRing.from_file(self.encryption_keys)
        elif self.encryption_allow_plain:
            raise ConfigError("--encryption-allow-plain is for a store that is encrypted: name --encryption-keys FILE")
        if self.database_isolation is not None and self.database is None:
            raise ConfigError("--database-isolation is for a database of the tenants: name --database URL")
        if self.database is not None and self.database_isolation is None:
            raise ConfigError(
                "--database needs --database-isolation rows, schemas, roles or databases: what parts the tenants"
            )
        if self.secrets is not None or self.database is not None:
            from .serve_tenants import helpers_of

            helpers_of(self)
        self._check_shares()
        tokens = {name: getattr(self, name) for name in ("jwt_issuer", "jwt_audience", "jwks_url")}
        if any(tokens.values()) and not all(tokens.values()):
            missing = next(name for name, value in tokens.items() if not value)
            raise ConfigError(
                f"--{missing.replace('_', '-')} is missing: tokens need --jwt-issuer, --jwt-audience, --jwks-url"
            )
        if self.jwks_url and self.api_keys is not None:
            raise ConfigError("--api-keys and --jwks-url exclude each other: a credential is either a key or a token")
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("--tls-cert", "--tls-key") if self.tls_cert else ("--tls-key", "--tls-cert")
            raise ConfigError(f"{given} needs {missing} beside it: TLS takes a certificate and its key")
        if self.tls_cert is not None and self.tls_key is not None:
            _check_tls(self.tls_cert, self.tls_key)

    def _check_cluster(self, cluster: str) -> None:
        from ..cluster import ClusterOptions
        from ..cluster.names import Names, checked_node
        from ..link.versions import OLDEST, VERSION, checked_versions

        Names(cluster)
        if self.node is not None:
            checked_node(self.node)
        if self.advertise is not None:
            _check_advertised(self.advertise)
        if self.link_version is not None:
            if self.link_version > VERSION:
                raise ConfigError(f"--link-version {self.link_version} is newer than {VERSION}, the newest spoken here")
            checked_versions((OLDEST, self.link_version))
        if self.nats is None:
            raise ConfigError(
                f"--cluster {cluster} needs --nats nats://host:4222, the NATS server that its nodes share"
            )
        if self.reload:
            raise ConfigError(
                "--reload is for one node at work on its code; a cluster's nodes are restarted one by one"
            )
        require_nats()
        settings = self.nats_options.settings()
        ClusterOptions(
            cluster,
            settings,
            lease=self.lease,
            key_rotation=self.key_rotation or None,
            link_versions=None if self.link_version is None else (OLDEST, self.link_version),
            unsigned_contexts=self.unsigned_contexts or "refuse",
        )
        if self.request_state_keys is not None:
            read_keys(self.request_state_keys)
        for name in _STORES:
            self._check_shared(name, settings.servers)

    def _check_shared(self, name: str, servers: Sequence[str]) -> None:
        """That all nodes reach a store: one that is named by this option."""
        option, scheme = f"--{name.replace('_', '-')}", (getattr(self, name) or "").partition(":")[0]
        instead = "leave --store out to keep sessions in NATS, or name" if name == "store" else "name"
        if scheme == "memory":
            raise ConfigError(
                f"{option} memory:// is one node's own, and the nodes of a cluster must share their sessions: "
                f"{instead} a store that all nodes reach"
            )
        if scheme == "sqlite" and not all(is_loopback(urlsplit(server).hostname or "") for server in servers):
            raise ConfigError(
                f"{option} sqlite: is a file of one machine, and a cluster's NATS elsewhere means nodes elsewhere: "
                f"{instead} a store that all nodes reach"
            )

    def _check_shares(self) -> None:
        if self.tenant_cache > self.tenant_cache_total:
            raise ConfigError(
                f"--tenant-cache is {self.tenant_cache} bytes, more than all tenants may have together, "
                f"{self.tenant_cache_total}: lower it, or raise --tenant-cache-total"
            )
        if self.plan_weights:
            from .serve_tenants import plan_weights

            plan_weights(self.plan_weights)
        if self.fairness == "off" and (self.plan_weights or self.blocking_threads is not None):
            raise ConfigError(
                "--plan-weight and --blocking-threads say how tenants share a node, and --fairness off that they do not"
            )

    def _check_moving(self) -> None:
        if self.next_store is None and self.former_store is None:
            return
        if self.next_store is not None and self.former_store is not None:
            raise ConfigError(
                "--next-store and --former-store exclude each other: first restart every node with --next-store NEW "
                "beside --store OLD, then with --store NEW and --former-store OLD"
            )
        given = "next_store" if self.next_store is not None else "former_store"
        option = f"--{given.replace('_', '-')}"
        for name in ("store", given):
            if (getattr(self, name) or "").startswith("memory:"):
                raise ConfigError(f"{option} is for stores that last, and memory:// ends with its process")
        if self.store == getattr(self, given):
            raise ConfigError(f"{option} is the same as --store: name two stores")

    @property
    def nats_options(self) -> NatsOptions:
        """How to reach the cluster's NATS."""
        return NatsOptions(self.nats, self.nats_creds, self.nats_nkey, self.nats_ca, self.nats_cert, self.nats_key)

    @property
    def lame_duck_time(self) -> float:
        """Seconds that the node answers on at least after it was asked to stop."""
        if self.lame_duck is not None:
            return self.lame_duck
        return 0.0 if self.cluster is None else LAME_DUCK

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert else "http"

    def url(self, port: int) -> str:
        """The address to give to a client, with `port` as bound (which `--port 0` leaves to the system)."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{port}{self.path}"

    def advertised_url(self, port: int) -> str:
        """The address that other machines know this node by, as far as it can be told."""
        if self.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            return f"{self.scheme}://{socket.gethostname()}:{port}{self.path}"
        return self.url(port)

    def store_warning(self) -> str | None:
        """What to say of a store that will do for a cluster on one machine only."""
        if self.cluster is None or not (self.store or "").startswith("sqlite:"):
            return None
        return (
            "sessions are kept in a SQLite file: every node of this cluster must run on this machine and name the same "
            "file; leave --store out to keep them in NATS"
        )

    def host_warning(self) -> str | None:
        """What to say when the server will listen where its own Host check refuses everybody."""
        if self.allowed_hosts or is_loopback(self.host):
            return None
        return (
            f"listening on {self.host}, but only requests for localhost will be answered (others get 421): name the "
            "hosts that clients use with --allowed-host mcp.example.com, or '*' behind a proxy that checks them"
        )


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


def _check_advertised(url: str) -> None:
    parts = urlsplit(url) if url.isascii() and url.isprintable() and len(url) <= 512 else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ConfigError(f"--advertise {url[:128]!r} is no URL of a node: write http://host:8000/mcp")


def _check_tls(cert: Path, key: Path) -> None:
    for option, file in (("--tls-cert", cert), ("--tls-key", key)):
        try:
            file.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{option} {str(file)!r} cannot be read: {error.strerror}") from error
    try:
        load_plain_key(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key)
    except ValueError as error:
        raise ConfigError(
            f"--tls-cert {str(cert)!r} and --tls-key {str(key)!r} are no certificate and its plain key: {error}"
        ) from error
