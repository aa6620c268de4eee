"""`connect`: a connection of redis-py to one Redis, with its scripts made known; what fails, as errors of ours."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any, Final

import redis.exceptions as redis_py

from ..errors import StoreError
from .connection import RedisConnection, TlsConnection
from .errors import RedisNotPrimary, RedisRefused, RedisSettingsError, RedisUnavailable
from .pipeline import answer, packed
from .replies import code_of, refusal, text_of
from .scripts import Script

__all__ = ["WANTS_TLS", "causes", "connect", "failure_of"]

WANTS_TLS: Final = "; if it wants TLS, write rediss://"


async def connect(
    connection: RedisConnection,
    server: tuple[str, int],
    *,
    timeout: float,
    scripts: Sequence[Script] = (),
    primary: bool = True,
    name: str = "understudy",
) -> None:
    """Connect it to `server`, within `timeout` seconds.

    Cancelled or failed, it is not connected.

    Args:
        primary: Whether a replica is refused.
        name: What the server shows as the name of the connection.

    Raises:
        RedisUnavailable: No server there, or it does not answer, or is loading.
        RedisRefused: It refuses us: password, certificate, permissions.
        RedisNotPrimary: It is a replica.
        RedisSettingsError: A file of the settings cannot be used.
    """
    connection.host, connection.port = server
    where = f"{server[0]}:{server[1]}"
    tls = isinstance(connection, TlsConnection)
    reached = ready = False

    async def greet(_: Any) -> None:
        nonlocal reached
        reached = True
        await connection.on_connect()
        await _greet(connection, where, scripts, primary, name)

    connection.redis_connect_func = greet  # pyright: ignore[reportAttributeAccessIssue] - redis-py awaits it
    try:
        async with asyncio.timeout(timeout):
            await connection.connect()
        ready = True
    except (TimeoutError, redis_py.TimeoutError) as error:
        # Redis waits for the end of a line, which a TLS greeting has not.
        hint = "; if it does not speak TLS at this port, write redis://" if tls and not reached else ""
        raise RedisUnavailable(f"Redis at {where} does not answer within {timeout:g} s{hint}") from error
    except redis_py.RedisError as error:
        hint = _hint(connection, reached=reached)
        raise failure_of(error, where, hint) from error
    finally:
        if not ready:
            connection.drop()


async def _greet(connection: RedisConnection, where: str, scripts: Sequence[Script], primary: bool, name: str) -> None:
    commands = [packed(b"CLIENT", b"SETNAME", name)]
    if primary:
        commands.append(packed(b"ROLE"))
    commands += [packed(b"SCRIPT", b"LOAD", script.body) for script in scripts]
    await connection.send_packed_command(b"".join([*commands, packed(b"PING")]), check_health=False)
    # Without a name it works as well.
    await answer(connection)
    role = await answer(connection) if primary else None
    for reply in [role, *[await answer(connection) for _ in range(len(scripts) + 1)]]:
        if isinstance(reply, redis_py.RedisError):
            text = text_of(reply)
            if reply is role and code_of(text) == "NOPERM":
                # A script's first write would tell too, and the user need not see who replicates.
                continue
            raise refusal(text, where, writing=False)
    if isinstance(role, list) and role[0] != b"master":
        raise RedisNotPrimary(f"Redis at {where} is a read-only replica of another: name the primary")


def _hint(connection: RedisConnection, *, reached: bool) -> str:
    """What to look at where the server closes a connection without a word."""
    if not isinstance(connection, TlsConnection):
        return WANTS_TLS
    if reached and not connection.has_certificate:
        # Of TLS 1.3 the server's own word is lost if what we have sent meets a connection that is closed.
        return "; if it asks for a client certificate, give one with its key (?cert=FILE&key=FILE)"
    return ""


def failure_of(error: redis_py.RedisError, where: str, hint: str) -> StoreError:
    """The error of ours for what kept redis-py from connecting: by the first of its causes that says more.

    `hint`: what is added where the server has closed the connection.
    """
    if text := text_of(error):
        return refusal(text, where, writing=False)
    if isinstance(error, redis_py.InvalidResponse):
        return RedisUnavailable(f"what answers at {where} is no Redis: correct the URL")
    for cause in causes(error):
        if isinstance(cause, RedisSettingsError):
            return cause
        if isinstance(cause, OSError):
            return _system_error(cause, where, hint)
    return RedisUnavailable(f"Redis at {where} closed the connection{hint}")


def _system_error(error: OSError, where: str, hint: str) -> RedisUnavailable:
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
    if isinstance(error, ConnectionRefusedError):
        return RedisUnavailable(f"no Redis at {where}: start it, or correct the URL")
    if isinstance(error, socket.gaierror):
        return RedisUnavailable(f"the host of Redis at {where} is not known: correct the URL")
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return RedisUnavailable(f"Redis at {where} closed the connection{hint}")
    if isinstance(error, TimeoutError):
        return RedisUnavailable(f"Redis at {where} does not answer")
    return RedisUnavailable(f"Redis at {where} cannot be reached: {error.strerror or error}")


def causes(error: BaseException) -> Iterator[BaseException]:
    """What an error came from, the nearest first."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
