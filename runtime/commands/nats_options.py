"""`NatsOptions`: what the command line says of NATS, put together with what the environment says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlencode

from ...stores import UnderstudyError
from ...stores.nats.settings import ENVIRONMENT, NatsSettings

__all__ = ["LOGIN_VARIABLES", "ClusterExtraMissing", "NatsOptions", "nats_url", "require_nats"]

LOGIN_VARIABLES = ("UNDERSTUDY_NATS_USER", "UNDERSTUDY_NATS_PASSWORD", "UNDERSTUDY_NATS_TOKEN")
"""Read from the environment alone: what stands on a command line, every process of the machine can read."""

_FILES = ("nkey", "creds", "ca", "cert", "key")


class ClusterExtraMissing(UnderstudyError):
    """The packages that a cluster needs are not installed."""


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """`--nats` and its kin. User, password and token come in the URL or the environment."""

    url: str | None = field(default=None, repr=False)
    creds: Path | None = None
    nkey: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def settings(self, environment: Mapping[str, str] = os.environ) -> NatsSettings:
        """Everything that `connect` needs.

        Raises:
            NatsSettingsError: A URL that cannot be understood, or options that exclude each other.
        """
        options = {name: str(file) for name in _FILES if (file := getattr(self, name))}
        login = {ENVIRONMENT[name]: environment[name] for name in LOGIN_VARIABLES if environment.get(name)}
        return NatsSettings.from_url(self.url or "nats://127.0.0.1:4222").with_options(login | options)


def require_nats() -> None:
    """
    Raises:
        ClusterExtraMissing: nats-py is not installed.
    """
    if find_spec("nats") is None:
        raise ClusterExtraMissing("a cluster needs the package nats-py: pip install 'understudy[cluster]'")


def nats_url(settings: NatsSettings, path: str = "") -> str:
    """A URL that means `settings`, with `path` (the bucket of a store) behind the servers. Holds their secrets."""
    login = ""
    if settings.token is not None:
        login = f"{quote(settings.token, safe='')}@"
    elif settings.user is not None:
        login = f"{quote(settings.user, safe='')}:{quote(settings.password or '', safe='')}@"
    servers = ",".join(
        server.replace("://", f"://{login}", 1) if number == 0 else server
        for number, server in enumerate(settings.servers)
    )
    files = {name: str(file) for name in _FILES if (file := getattr(settings, name))}
    return f"{servers}{f'/{path}' if path else ''}{f'?{urlencode(files, quote_via=quote)}' if files else ''}"
