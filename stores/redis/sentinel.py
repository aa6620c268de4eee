"""`primary_of`: the primary that the sentinels name."""

from __future__ import annotations

import hiredis

from .connecting import connect, tls_context
from .errors import RedisRefused, RedisUnavailable
from .replies import refusal
from .settings import RedisSettings
from .wire import packed

__all__ = ["primary_of"]


async def primary_of(settings: RedisSettings, *, timeout: float) -> tuple[str, int]:
    """Host and port of the primary of `settings.service`, from the first sentinel that knows it.

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
    raise kind("no sentinel names the primary: " + "; ".join(dict.fromkeys(str(error) for error in failures)))


async def _asked(server: tuple[str, int], settings: RedisSettings, service: str, timeout: float) -> tuple[str, int]:
    wire = await connect(
        server,
        tls=tls_context(settings),
        user=settings.sentinel_user,
        password=settings.sentinel_password,
        primary=False,
        name="understudy",
        timeout=timeout,
    )
    try:
        reply = await wire.send(packed(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service), writing=False)
    finally:
        wire.close()
    where = f"{server[0]}:{server[1]}"
    if isinstance(reply, hiredis.ReplyError):
        text = str(reply)
        if "unknown command" in text.lower():
            raise RedisRefused(f"Redis at {where} is no sentinel: name the sentinels, or write redis://{where}")
        error = refusal(text, where, writing=False)
        raise error if isinstance(error, RedisUnavailable) else RedisUnavailable(str(error))
    if reply is None:
        raise RedisRefused(f"the sentinel at {where} does not know the service {service!r}: correct the URL")
    host, port = reply
    return host.decode(), int(port)
