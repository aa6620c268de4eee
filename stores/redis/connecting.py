"""`connect`: one connection to one Redis, through TLS, with our name and password, and its scripts made known."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import hiredis

from .errors import RedisNotPrimary, RedisRefused, RedisSettingsError, RedisUnavailable
from .replies import code_of, refusal
from .scripts import Script
from .settings import RedisSettings
from .wire import Wire, packed

__all__ = ["connect", "tls_context"]

Reply = Any


def tls_context(settings: RedisSettings) -> ssl.SSLContext | None:
    """What the servers' certificates are checked against, and our own; None where there is to be no TLS.

    Raises:
        RedisSettingsError: A file cannot be read, or holds no certificate or key.
    """
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=None if settings.ca is None else str(settings.ca))
    except (OSError, ValueError) as error:
        raise RedisSettingsError(
            f"Redis option 'ca': {str(settings.ca)!r} holds no certificate that can be read: {_reason(error)}"
        ) from error
    if settings.cert is not None and settings.key is not None:
        try:
            context.load_cert_chain(settings.cert, settings.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise RedisSettingsError(
                f"Redis options 'cert' {str(settings.cert)!r} and 'key' {str(settings.key)!r} are no certificate and "
                f"its plain key: {_reason(error)}"
            ) from error
    return context


async def connect(
    server: tuple[str, int],
    *,
    tls: ssl.SSLContext | None,
    user: str | None,
    password: str | None,
    db: int = 0,
    scripts: Sequence[Script] = (),
    primary: bool = True,
    name: str = "understudy",
    timeout: float = 5.0,
    replicas: int = 0,
) -> Wire:
    """A connection that is ready for use, within `timeout` seconds, in one round trip beyond TCP and TLS.

    Cancelled, it leaves nothing open.

    Args:
        primary: Whether a replica is refused.
        name: What the server shows as the name of the connection.

    Raises:
        RedisUnavailable: No server there, or it does not answer, or is loading.
        RedisRefused: It refuses us: password, certificate, permissions.
        RedisNotPrimary: It is a replica.
    """
    host, port = server
    where = f"{host}:{port}"
    loop = asyncio.get_running_loop()
    wire = Wire(where, timeout=timeout, replicas=replicas)
    ready = False
    try:
        async with asyncio.timeout(timeout):
            await loop.create_connection(lambda: wire, host, port, ssl=tls, server_hostname=host if tls else None)
            await _greet(wire, user, password, db, scripts, primary, name)
        ready = True
        return wire
    except TimeoutError as error:
        # Redis waits for the end of a line, which a TLS greeting has not.
        hint = "; if it does not speak TLS at this port, write redis://" if tls is not None and not wire.open else ""
        raise RedisUnavailable(f"Redis at {where} does not answer within {timeout:g} s{hint}") from error
    except RedisUnavailable:
        if wire.lost is not None:
            raise _connection_error(wire.lost, where, tls) from wire.lost
        if not wire.open:
            raise RedisUnavailable(
                f"Redis at {where} closed the connection{'; if it wants TLS, write rediss://' if tls is None else ''}"
            ) from None
        raise
    except OSError as error:
        raise _connection_error(error, where, tls) from error
    finally:
        if not ready:
            wire.close()


async def _greet(
    wire: Wire,
    user: str | None,
    password: str | None,
    db: int,
    scripts: Sequence[Script],
    primary: bool,
    name: str,
) -> None:
    def send(*words: bytes | str | int) -> asyncio.Future[Reply]:
        return wire.send(packed(*words), writing=False)

    login = None
    if password is not None:
        login = send(b"AUTH", *(() if user is None else (user,)), password)
    database = send(b"SELECT", db) if db else None
    send(b"CLIENT", b"SETNAME", name)
    role = send(b"ROLE") if primary else None
    known = [send(b"SCRIPT", b"LOAD", script.body) for script in scripts]
    last = send(b"PING")
    for answer in (login, database, role, *known, last):
        if answer is None:
            continue
        reply = await answer
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if answer is role and code_of(text) == "NOPERM":
                # A script's first write would tell too, and the user need not see who replicates.
                continue
            raise refusal(text, wire.where, writing=False)
        if answer is role and reply[0] != b"master":
            raise RedisNotPrimary(f"Redis at {wire.where} is a read-only replica of another: name the primary")


def _connection_error(error: Exception, where: str, tls: ssl.SSLContext | None) -> RedisUnavailable:
    if isinstance(error, ssl.SSLCertVerificationError):
        return RedisRefused(
            f"the certificate of Redis at {where} is not trusted ({error.verify_message}): name the CA that signed it "
            "(?ca=FILE), and the server as the certificate does"
        )
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "no reason given"
        if "REQUIRED" in reason.upper() or "HANDSHAKE_FAILURE" in reason.upper():
            return RedisRefused(
                f"Redis at {where} asks for a client certificate: give one with its key (?cert=FILE&key=FILE)"
            )
        if "WRONG_VERSION" in reason.upper() or "RECORD_LAYER" in reason.upper():
            return RedisRefused(f"Redis at {where} does not speak TLS at this port: use redis://, or set it up")
        return RedisRefused(f"TLS with Redis at {where} failed: {reason}")
    if isinstance(error, hiredis.ProtocolError):
        return RedisUnavailable(f"what answers at {where} is no Redis: correct the URL")
    if isinstance(error, ConnectionRefusedError):
        return RedisUnavailable(f"no Redis at {where}: start it, or correct the URL")
    if isinstance(error, socket.gaierror):
        return RedisUnavailable(f"the host of Redis at {where} is not known: correct the URL")
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        hint = "; if it wants TLS, write rediss://" if tls is None else ""
        return RedisUnavailable(f"Redis at {where} closed the connection{hint}")
    if isinstance(error, TimeoutError):
        return RedisUnavailable(f"Redis at {where} does not answer")
    return RedisUnavailable(f"Redis at {where} cannot be reached: {getattr(error, 'strerror', None) or error}")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)


def _no_password() -> str:
    # Without a callback OpenSSL asks on the terminal, and a service hangs at its start.
    raise ValueError("the key is encrypted")
