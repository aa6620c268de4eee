"""`PostgresSettings`: which PostgreSQL, and how to prove who we are, from a URL."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote, urlencode

from ..errors import StoreURLError

__all__ = ["PostgresSettings", "PostgresSettingsError"]

_TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_SERVERS = ("any", "primary", "read-write")
_OPTIONS = ("sslmode", *_TLS_FILES, "target_session_attrs", "host", "schema", "connections")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]", re.ASCII)
_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,62}", re.ASCII)
_FORM = "write postgresql://user:password@host:5432/database, several hosts as one:5432,two:5432"
_MOST_HOSTS = 64
MOST_CONNECTIONS = 100


class PostgresSettingsError(StoreURLError):
    """Settings for PostgreSQL that cannot be understood, or a file they name that cannot be read."""


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """Where PostgreSQL is and how to connect. What is secret is not in its `repr`.

    What is None is asked of the environment, as by every client of PostgreSQL: `PGHOST`, `PGUSER`, `PGPASSWORD` or
    `~/.pgpass`, `PGDATABASE`, `PGSSLMODE`, `PGSSLROOTCERT` and the like.

    Raises:
        PostgresSettingsError: A value that cannot be.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    """Host, or directory of a Unix socket, and port; tried in this order. Empty: as the environment says."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    tls: tuple[tuple[str, str], ...] = ()
    """libpq's `sslmode`, `sslrootcert`, `sslcert`, `sslkey` and `sslcrl`, as far as they are given."""
    target_session_attrs: str | None = None
    """Which of several servers: `any`, `primary` or `read-write`. None: `read-write` if there are several."""
    schema: str = "understudy"
    """The schema that holds the tables; made if it is not there."""
    connections: int = 4
    """Most connections at once."""

    def __post_init__(self) -> None:
        if len(self.hosts) > _MOST_HOSTS:
            raise PostgresSettingsError(
                f"{len(self.hosts)} PostgreSQL hosts are named; at most {_MOST_HOSTS} are taken"
            )
        if _SCHEMA.fullmatch(self.schema) is None or self.schema.startswith("pg_"):
            raise PostgresSettingsError(
                f"schema {self.schema[:80]!r} must be at most 63 letters, digits, '_', '$' or '-', starting with a "
                "letter or '_' and not with 'pg_'"
            )
        if not 1 <= self.connections <= MOST_CONNECTIONS:
            raise PostgresSettingsError(f"connections {self.connections} must be 1 to {MOST_CONNECTIONS}")
        mode = dict(self.tls).get("sslmode")
        if mode is not None and mode not in _TLS_MODES:
            raise PostgresSettingsError(f"sslmode {mode[:32]!r} must be one of {', '.join(_TLS_MODES)}")
        if self.target_session_attrs not in (None, *_SERVERS):
            raise PostgresSettingsError(
                f"target_session_attrs {self.target_session_attrs[:32]!r} must be one of {', '.join(_SERVERS)}: the "
                "store writes"
            )

    @property
    def where(self) -> str:
        """The servers and the database, for messages."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts) or "the PGHOST of the environment or this host"
        return f"{hosts}, database {self.database or 'of PGDATABASE or the user'}"

    @property
    def tls_query(self) -> str:
        """`tls` as the options of a URL."""
        return urlencode(self.tls)

    @staticmethod
    def from_url(url: str) -> PostgresSettings:
        """From `postgresql://user:password@host:5432/database?sslmode=verify-full&sslrootcert=ca.pem&schema=mcp`, or
        with `postgres://`.

        Port 5432 where there is none. The options after `?` are libpq's `sslmode`, `sslrootcert`, `sslcert`, `sslkey`,
        `sslcrl`, `target_session_attrs` and `host` (the directory of a Unix socket), and `schema` and `connections`.

        Raises:
            PostgresSettingsError: It cannot be understood. The message repeats nothing that may be secret.
        """
        if not url.isascii() or not url.isprintable() or " " in url or "#" in url:
            raise PostgresSettingsError(
                f"a PostgreSQL URL is visible ASCII without #: percent-encode the rest; {_FORM}"
            )
        scheme, colon, rest = url.partition("://")
        if not colon or scheme not in ("postgresql", "postgres"):
            raise PostgresSettingsError(f"a PostgreSQL URL starts with postgresql:// or postgres://; {_FORM}")
        rest, _, query = rest.partition("?")
        authority, _, path = rest.partition("/")
        login, _, addresses = authority.rpartition("@")
        if "/" in path:
            # Not echoed: a password with a slash that is not encoded looks like this.
            raise PostgresSettingsError(f"a PostgreSQL URL has one / after the host, before the database; {_FORM}")
        user, colon, password = login.partition(":")
        settings = PostgresSettings(
            hosts=tuple(_host_and_port(address) for address in addresses.split(",")) if addresses else (),
            user=_decoded("user", user),
            password=_decoded("password", password) if colon else None,
            database=_decoded("database", path),
        )
        return settings.with_options(_options(query))

    def with_options(self, options: dict[str, str]) -> PostgresSettings:
        """These settings with the options of a URL put over them. Raises `PostgresSettingsError`."""
        settings = self
        tls: dict[str, str] = dict(self.tls)
        for name, value in options.items():
            if not value or "\0" in value:
                raise PostgresSettingsError(f"option {name!r} of a PostgreSQL URL is empty, or contains a NUL")
            if name == "sslmode" or name in _TLS_FILES:
                tls[name] = value
            elif name == "connections":
                if not value.isdigit() or len(value) > 4:
                    raise PostgresSettingsError(f"connections {value[:32]!r} must be a number, 1 to {MOST_CONNECTIONS}")
                settings = replace(settings, connections=int(value))
            elif name == "host":
                if not value.startswith("/"):
                    raise PostgresSettingsError("option 'host' is the directory of a Unix socket and starts with /")
                if settings.hosts:
                    raise PostgresSettingsError("option 'host' repeats what stands before the database: give it once")
                settings = replace(settings, hosts=((value, 5432),))
            elif name == "schema":
                settings = replace(settings, schema=value)
            elif name == "target_session_attrs":
                settings = replace(settings, target_session_attrs=value)
            else:
                raise PostgresSettingsError(
                    f"unknown option {name[:64]!r} in a PostgreSQL URL; it takes {', '.join(_OPTIONS)}"
                )
        return replace(settings, tls=tuple(tls.items()))


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in options:
            raise PostgresSettingsError(f"option {name[:64]!r} is given twice in a PostgreSQL URL")
        options[name] = value
    return options


def _decoded(name: str, text: str) -> str | None:
    decoded = unquote(text)
    if "\0" in decoded or "\ufffd" in decoded:
        raise PostgresSettingsError(f"the {name} in a PostgreSQL URL is no UTF-8, or contains a NUL")
    return decoded or None


def _host_and_port(address: str) -> tuple[str, int]:
    if address.startswith("["):
        host, _, port = address.partition("]:")
        host = host if host.endswith("]") else f"{host}]"
    else:
        host, _, port = address.partition(":")
    if _HOST.fullmatch(host) is None:
        raise PostgresSettingsError(f"a PostgreSQL URL names no host, or one that is none; {_FORM}")
    # Not by int() of whatever there is: its error would quote what may be a password.
    if port and not (port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise PostgresSettingsError(f"a port in a PostgreSQL URL is no number from 1 to 65535; {_FORM}")
    return host.strip("[]"), int(port or 5432)
