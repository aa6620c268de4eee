"""`primary_of`: the primary that the sentinels name."""

from __future__ import annotations

import redis.exceptions as redis_py

from .connecting import connect
from .connection import new_connection, options_of
from .errors import RedisRefused, RedisUnavailable
from .pipeline import answer, packed
from .replies import refusal, text_of
from .settings import RedisSettings

__all__ = ["primary_of"]


async def primary_of(settings: RedisSettings, *, timeout: float) -> tuple[str, int]:
    """Host and port of the primary of `settings.service`, from the first sentinel that knows it.

    redis-py's `discover_master` would say of all that went wrong only that there is no master.

    Raises:
        RedisUnavailable: No sentinel answers, or none knows the primary.
        RedisRefused: All of them refuse us.
    """
    assert settings.service is not None
    failures: list[RedisUnavailable] = []
    share = max(timeout / len(settings.servers), min(timeout, 1.0))
    for server in settings.servers:
        try:
            return await _asked(server, settings, settings.service, share)
        except RedisUnavailable as error:
            failures.append(error)
    kind = RedisRefused if all(isinstance(error, RedisRefused) for error in failures) else RedisUnavailable
    told = "; ".join(dict.fromkeys(str(error) for error in failures))
    # Theirs is not the one that stands before the hosts: that is for the servers that they name.
    hint = "; a sentinel's own password is ?sentinel_password=, its user ?sentinel_user=" if "password" in told else ""
    raise kind(f"no sentinel names the primary: {told}{hint}")


async def _asked(server: tuple[str, int], settings: RedisSettings, service: str, timeout: float) -> tuple[str, int]:
    where = f"{server[0]}:{server[1]}"
    options = options_of(settings, timeout=timeout)
    connection = new_connection(
        options | {"username": settings.sentinel_user, "password": settings.sentinel_password, "db": 0}
    )
    await connect(connection, server, timeout=timeout, primary=False)
    try:
        await connection.send_packed_command(packed(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service))
        reply = await answer(connection)
    except redis_py.RedisError as error:
        raise RedisUnavailable(f"the sentinel at {where} does not answer") from error
    finally:
        connection.drop()
    if isinstance(reply, redis_py.RedisError):
        text = text_of(reply)
        if "unknown command" in text.lower():
            raise RedisRefused(f"Redis at {where} is no sentinel: name the sentinels, or write redis://{where}")
        error = refusal(text, where, writing=False)
        raise error if isinstance(error, RedisUnavailable) else RedisUnavailable(str(error))
    if reply is None:
        raise RedisRefused(f"the sentinel at {where} does not know the service {service!r}: correct the URL")
    host, port = reply
    return host.decode(), int(port)
