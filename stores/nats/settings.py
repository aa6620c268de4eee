"""`NatsSettings`: which NATS servers, and how to prove who we are, from a URL or the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from .errors import NatsSettingsError

__all__ = ["ENVIRONMENT", "NatsSettings", "split_nats_url"]

ENVIRONMENT = {
    "UNDERSTUDY_NATS": "url",
    "UNDERSTUDY_NATS_USER": "user",
    "UNDERSTUDY_NATS_PASSWORD": "password",
    "UNDERSTUDY_NATS_TOKEN": "token",
    "UNDERSTUDY_NATS_NKEY": "nkey",
    "UNDERSTUDY_NATS_CREDS": "creds",
    "UNDERSTUDY_NATS_CA": "ca",
    "UNDERSTUDY_NATS_CERT": "cert",
    "UNDERSTUDY_NATS_KEY": "key",
}
"""Variables of the environment, and the field or URL option that each of them is."""

_OPTIONS = ("user", "password", "token", "nkey", "creds", "ca", "cert", "key")
_FILES = ("nkey", "creds", "ca", "cert", "key")
_ADDRESS = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::(.*))?", re.ASCII)
_FORM = "write nats://host:4222, several as nats://one:4222,two:4222, or tls://host:4222 for TLS"
_MOST_SERVERS = 64


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """Where NATS is and how to connect. What is secret is not in its `repr`.

    At most one of user with password, token, `nkey` (file of an NKey seed) and `creds` (file of a JWT and its seed).

    Raises:
        NatsSettingsError: No server, or options that exclude each other.
    """

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    """Each `nats://host:port` or `tls://host:port`, without user or password."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    nkey: Path | None = None
    creds: Path | None = None
    ca: Path | None = None
    """Certificates that the servers' are checked against; None: those that the system trusts."""
    cert: Path | None = None
    key: Path | None = None
    """Our own certificate and its key, for servers that ask for one."""

    def __post_init__(self) -> None:
        if not self.servers:
            raise NatsSettingsError(f"no NATS server is named; {_FORM}")
        if (self.user is None) != (self.password is None):
            given, missing = ("user", "password") if self.password is None else ("password", "user")
            raise NatsSettingsError(f"NATS option {given!r} needs {missing!r} beside it")
        forms = [name for name in ("user", "token", "nkey", "creds") if getattr(self, name) is not None]
        if len(forms) > 1:
            raise NatsSettingsError(f"NATS options {' and '.join(map(repr, forms))} exclude each other: give one")
        if (self.cert is None) != (self.key is None):
            given, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise NatsSettingsError(f"NATS option {given!r} needs {missing!r} beside it: a certificate and its key")

    @property
    def tls(self) -> bool:
        """Whether a server that does not offer TLS is refused."""
        return any(server.startswith("tls://") for server in self.servers) or bool(self.ca or self.cert)

    @property
    def where(self) -> str:
        """The servers, for messages."""
        return ", ".join(self.servers)

    @staticmethod
    def from_url(url: str) -> NatsSettings:
        """From `nats://user:password@host:4222`, `tls://host`, `nats://one:4222,two:4222?creds=/run/nats.creds`.

        A user without a password is a token. Port 4222 where there is none. The options after `?` are the fields'
        names.

        Raises:
            NatsSettingsError: It cannot be understood. The message repeats nothing that may be secret.
        """
        settings, path, options = split_nats_url(url)
        if path:
            raise NatsSettingsError("a NATS URL has nothing after the host but ?options: remove the path")
        if options:
            raise NatsSettingsError(f"unknown option {min(options)[:64]!r}; a NATS URL takes {', '.join(_OPTIONS)}")
        return settings

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> NatsSettings | None:
        """From `UNDERSTUDY_NATS` (a URL) and the other variables in `ENVIRONMENT`; None if the URL is not set.

        Raises:
            NatsSettingsError: A variable that cannot be used, or one set without `UNDERSTUDY_NATS`.
        """
        given = {name: environment[name] for name in ENVIRONMENT if environment.get(name)}
        url = given.pop("UNDERSTUDY_NATS", None)
        if url is None:
            if given:
                raise NatsSettingsError(f"{min(given)} is set, but UNDERSTUDY_NATS, the server's URL, is not")
            return None
        return NatsSettings.from_url(url).with_options({ENVIRONMENT[name]: value for name, value in given.items()})

    def anywhere(self) -> NatsSettings:
        """These settings as a process with another working directory understands them."""
        files = {name: Path(os.path.abspath(file)) for name in _FILES if (file := getattr(self, name)) is not None}
        return replace(self, **files)  # pyright: ignore[reportArgumentType] - each of them is a file

    def with_options(self, options: Mapping[str, str]) -> NatsSettings:
        """These settings with `options` (names as in a URL) put over them. Raises `NatsSettingsError`."""
        unknown = set(options) - set(_OPTIONS)
        if unknown:
            raise NatsSettingsError(f"unknown NATS option {min(unknown)[:64]!r}; known are {', '.join(_OPTIONS)}")
        for name, value in options.items():
            if not value or "\0" in value:
                raise NatsSettingsError(f"NATS option {name!r} is empty, or contains a NUL")
        typed = {name: Path(value).expanduser() if name in _FILES else value for name, value in options.items()}
        return replace(self, **typed)  # pyright: ignore[reportArgumentType] - each name goes with its type


def split_nats_url(url: str) -> tuple[NatsSettings, str, dict[str, str]]:
    """A URL's settings, its path without the first slash, and those of its options that are no settings.

    Raises:
        NatsSettingsError: As `NatsSettings.from_url`.
    """
    if not url.isascii() or not url.isprintable() or " " in url or "#" in url:
        raise NatsSettingsError(f"a NATS URL is visible ASCII without #: percent-encode the rest; {_FORM}")
    rest, _, query = url.partition("?")
    scheme, colon, rest = rest.partition("://")
    if not colon or scheme not in ("nats", "tls"):
        raise NatsSettingsError(f"a NATS URL starts with nats:// or tls://; {_FORM}")
    # Each server of a list may repeat the scheme, which contains slashes, so the path is what follows the last one.
    rest = re.sub(r",(nats|tls)://", r",\1:", rest)
    authorities, _, path = rest.partition("/")
    servers: list[str] = []
    logins: set[tuple[str, ...]] = set()
    for part in authorities.split(","):
        of, authority = scheme, part
        for other in ("nats", "tls"):
            # A host named "nats" or "tls" has digits behind its colon.
            if part.startswith(f"{other}:") and not part.removeprefix(f"{other}:").isdigit() and servers:
                of, authority = other, part.removeprefix(f"{other}:")
        login, at, address = authority.rpartition("@")
        if at:
            user, with_password, password = login.partition(":")
            logins.add((unquote(user), unquote(password)) if with_password else (unquote(user),))
        servers.append(f"{of}://{_checked_address(address)}")
    if len(servers) > _MOST_SERVERS:
        raise NatsSettingsError(f"a NATS URL names {len(servers)} servers; at most {_MOST_SERVERS} are taken")
    if len(logins) > 1:
        raise NatsSettingsError("the servers of one NATS URL have different users: one is for all of them")
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in options:
            raise NatsSettingsError(f"option {name[:64]!r} is given twice in a NATS URL")
        options[name] = value
    login_options: dict[str, str] = {}
    for login in logins:
        login_options = {"token": login[0]} if len(login) == 1 else {"user": login[0], "password": login[1]}
    twice = login_options.keys() & options.keys()
    if twice:
        raise NatsSettingsError(f"option {min(twice)!r} repeats what stands before the @ of a NATS URL: give it once")
    own = login_options | {name: options.pop(name) for name in _OPTIONS if name in options}
    return NatsSettings(tuple(servers)).with_options(own), path, options


def _checked_address(address: str) -> str:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise NatsSettingsError(f"a NATS URL names no host, or one that is none; {_FORM}")
    host, port = match[1], match[2]
    # Not by int() of whatever there is: its error would quote what may be a password.
    if port and not (port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise NatsSettingsError(f"a port in a NATS URL is no number from 1 to 65535; {_FORM}")
    return f"{host}:{int(port or 4222)}"
