"""`RedisSettings`: which Redis, and how to prove who we are, from a URL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote

from .errors import RedisSettingsError

__all__ = ["SCHEMES", "RedisSettings"]

Mode = Literal["server", "sentinel", "cluster"]

SCHEMES: Mapping[str, tuple[Mode, bool]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
"""What each scheme of a URL means, and whether by TLS."""

_OPTIONS = ("user", "password", "sentinel_user", "sentinel_password", "ca", "cert", "key", "prefix", "replicas", "db")
_ADDRESS = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::(.*))?", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FORM = (
    "write redis://host:6379/0 (rediss:// for TLS), redis+sentinel://one:26379,two:26379/service, or "
    "redis+cluster://one:6379,two:6379"
)
_MOST_SERVERS = 64
_PORTS = {"server": 6379, "cluster": 6379, "sentinel": 26379}


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Where Redis is and how to connect. What is secret is not in its `repr`.

    Raises:
        RedisSettingsError: Something is missing, out of range, or does not go together.
    """

    servers: tuple[tuple[str, int], ...] = (("127.0.0.1", 6379),)
    """Hosts and ports: of the server, of the sentinels, or of some nodes of the cluster."""
    mode: Mode = "server"
    service: str | None = None
    """The name that the sentinels have for the primary."""
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_user: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    """For the sentinels themselves; None: they ask for none."""
    ca: Path | None = None
    """Certificates that the servers' are checked against; None: those that the system trusts."""
    cert: Path | None = None
    key: Path | None = None
    """Our own certificate and its key, for servers that ask for one."""
    db: int = 0
    prefix: str = "understudy"
    """What all keys begin with, so that several stores fit into one Redis."""
    replicas: int = 0
    """Replicas that must have a write before it is acknowledged."""

    def __post_init__(self) -> None:
        if not self.servers:
            raise RedisSettingsError(f"no Redis server is named; {_FORM}")
        if len(self.servers) > _MOST_SERVERS:
            raise RedisSettingsError(f"{len(self.servers)} Redis servers are named; at most {_MOST_SERVERS} are taken")
        if self.mode == "server" and len(self.servers) > 1:
            raise RedisSettingsError(f"redis:// names one server, and this names {len(self.servers)}; {_FORM}")
        if self.mode == "sentinel" and (self.service is None or _SERVICE.fullmatch(self.service) is None):
            raise RedisSettingsError("redis+sentinel:// needs the name of the primary: redis+sentinel://host/service")
        if self.mode == "cluster" and self.db:
            raise RedisSettingsError("a Redis cluster has one database, number 0: leave the number out")
        if not 0 <= self.db <= 65535:
            raise RedisSettingsError(f"database {self.db} of Redis must be 0 to 65535")
        for user, password, names in (
            (self.user, self.password, "user and password"),
            (self.sentinel_user, self.sentinel_password, "sentinel_user and sentinel_password"),
        ):
            if user is not None and password is None:
                raise RedisSettingsError(f"a user of Redis needs a password beside it ({names})")
        if (self.cert is None) != (self.key is None):
            given, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise RedisSettingsError(f"Redis option {given!r} needs {missing!r} beside it: a certificate and its key")
        if not self.tls and (self.ca or self.cert):
            raise RedisSettingsError("ca, cert and key are for TLS: write rediss://")
        if _PREFIX.fullmatch(self.prefix) is None:
            raise RedisSettingsError(
                f"prefix {self.prefix[:80]!r} must be 1 to 64 letters, digits, '.', '_' or '-', the first a letter or "
                "a digit"
            )
        if not 0 <= self.replicas <= 16:
            raise RedisSettingsError(f"replicas={self.replicas} must be 0 to 16")

    @property
    def where(self) -> str:
        """The servers, for messages."""
        return ", ".join(f"{host}:{port}" for host, port in self.servers)

    @staticmethod
    def from_url(url: str) -> RedisSettings:
        """From `redis://user:password@host:6379/0`, `rediss://host?ca=FILE`, `redis+sentinel://one,two/service`,
        `redis+cluster://one,two`; the options after `?` are the fields' names.

        Raises:
            RedisSettingsError: It cannot be understood. The message repeats nothing that may be secret.
        """
        if not url.isascii() or not url.isprintable() or " " in url or "#" in url:
            raise RedisSettingsError(f"a Redis URL is visible ASCII without #: percent-encode the rest; {_FORM}")
        rest, _, query = url.partition("?")
        scheme, colon, rest = rest.partition("://")
        if not colon or scheme not in SCHEMES:
            raise RedisSettingsError(f"a Redis URL starts with {'://, '.join(SCHEMES)}://; {_FORM}")
        mode, tls = SCHEMES[scheme]
        options = _options(query)
        authority, _, path = rest.partition("/")
        login, at, hosts = authority.rpartition("@")
        if at:
            _take_login(login, options)
        servers = tuple(_address(host, _PORTS[mode]) for host in hosts.split(","))
        service: str | None = None
        if mode == "sentinel":
            service, _, path = unquote(path).partition("/")
        if path:
            if "db" in options:
                raise RedisSettingsError("the database is given twice in a Redis URL: after the host and as db=")
            options["db"] = path
        files = {name: Path(options[name]).expanduser() for name in ("ca", "cert", "key") if name in options}
        texts = {name: options[name] for name in _OPTIONS if name in options and name not in files}
        numbers = {name: _number(name, texts.pop(name)) for name in ("db", "replicas") if name in texts}
        return RedisSettings(servers, mode, service, tls, **texts, **files, **numbers)  # pyright: ignore[reportArgumentType] - each name goes with its type


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise RedisSettingsError(f"unknown option {name[:64]!r} in a Redis URL; it takes {', '.join(_OPTIONS)}")
        if name in options:
            raise RedisSettingsError(f"option {name!r} is given twice in a Redis URL")
        if not value or "\0" in value:
            raise RedisSettingsError(f"option {name!r} of a Redis URL is empty, or contains a NUL")
        options[name] = value
    return options


def _take_login(login: str, options: dict[str, str]) -> None:
    user, colon, password = login.partition(":")
    if not colon or not password:
        raise RedisSettingsError(
            "a Redis URL has a user without a password: write redis://user:password@host, or redis://:password@host "
            "for the default user"
        )
    if "user" in options or "password" in options:
        raise RedisSettingsError("user or password repeats what stands before the @ of a Redis URL: give it once")
    options["password"] = unquote(password)
    if user:
        options["user"] = unquote(user)


def _address(text: str, port: int) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise RedisSettingsError(f"a Redis URL names no host, or one that is none; {_FORM}")
    host, given = match[1].strip("[]"), match[2]
    # Not by int() of whatever there is: its error would quote what may be a password.
    if given and not (given.isdigit() and len(given) <= 5 and 1 <= int(given) <= 65535):
        raise RedisSettingsError(f"a port in a Redis URL is no number from 1 to 65535; {_FORM}")
    return host, int(given or port)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise RedisSettingsError(f"{'the database' if name == 'db' else name} of a Redis URL must be a whole number")
    return int(text)
