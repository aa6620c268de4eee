"""What a connection to NATS shows of itself: password, token, NKey, JWT, certificate."""

from __future__ import annotations

import base64
import importlib
import re
from functools import partial
from pathlib import Path
from typing import Any

from nats import errors

from ..tls_files import tls_context
from .errors import NatsSettingsError
from .settings import NatsSettings

__all__ = ["credentials"]

_SEED = re.compile(rb"\bS[A-Z][A-Z2-7]{56}\b")
_JWT = re.compile(rb"-+BEGIN NATS USER JWT-+\s+([A-Za-z0-9_.-]+)\s+-+END")


def credentials(settings: NatsSettings) -> dict[str, Any]:
    """The options of nats-py's `connect` that say who we are and whom we trust, and `public_nkey`.

    Raises:
        NatsSettingsError: A file cannot be read, or holds no key or certificate.
    """
    if not settings.tls:
        return _login(settings)
    tls = tls_context(settings.ca, settings.cert, settings.key, of="NATS", error=NatsSettingsError)
    return _login(settings) | {"tls": tls}


def _login(settings: NatsSettings) -> dict[str, Any]:
    if settings.user is not None:
        return {"user": settings.user, "password": settings.password}
    if settings.token is not None:
        return {"token": settings.token}
    if settings.nkey is not None:
        file = settings.nkey
        return {"signature_cb": partial(_again, _signature, file), "public_nkey": _public_key(file)}
    if settings.creds is not None:
        file = settings.creds
        _public_key(file)
        _jwt(file)
        # Read anew for each connection, so that credentials that were exchanged are found.
        return {
            "signature_cb": partial(_again, _signature, file),
            "user_jwt_cb": partial(_again, _jwt, file),
        }
    return {}


def _again(read: Any, *args: Any) -> Any:
    # nats-py goes on reconnecting after errors of its own kind only.
    try:
        return read(*args)
    except NatsSettingsError as error:
        raise errors.Error(str(error)) from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise NatsSettingsError(f"NATS credentials in {str(file)!r} cannot be read: {error.strerror}") from error


def _jwt(file: Path) -> bytes:
    found = _JWT.search(_read(file))
    if found is None:
        raise NatsSettingsError(f"{str(file)!r} holds no NATS USER JWT: give the .creds file that nsc writes")
    return found[1]


def _key_pair(file: Path) -> Any:
    try:
        nkeys: Any = importlib.import_module("nkeys")  # which has no types
    except ImportError as error:
        raise NatsSettingsError(
            "NKey and creds files need the package nkeys: pip install 'understudy[cluster]'"
        ) from error
    found = _SEED.search(_read(file))
    try:
        if found is not None:
            return nkeys.from_seed(bytearray(found[0]))
    except Exception:  # noqa: S110 - nkeys raises of many kinds, and some quote the seed
        pass
    raise NatsSettingsError(f"{str(file)!r} holds no NKey seed (a line that starts with SU) of a user")


def _public_key(file: Path) -> str:
    pair = _key_pair(file)
    public: bytes = pair.public_key
    pair.wipe()
    return bytes(public).decode()


def _signature(file: Path, nonce: str) -> bytes:
    pair = _key_pair(file)
    signature = base64.b64encode(pair.sign(nonce.encode()))
    pair.wipe()
    return signature
