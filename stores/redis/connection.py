"""`PlainConnection`, `TlsConnection`: redis-py's connections, given up when nothing comes, and closed at once."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Literal

import redis.asyncio.connection as redis_py
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ..tls_files import tls_context
from .errors import RedisSettingsError
from .settings import RedisSettings

if TYPE_CHECKING:
    from redis._parsers import _AsyncHiredisParser as Parser  # pyright: ignore[reportPrivateUsage] - has no other name
else:
    Parser = redis_py.DefaultParser

__all__ = ["PlainConnection", "RedisConnection", "TlsConnection", "new_connection", "options_of"]


class _Parser(Parser):
    silence = 5.0

    async def read_from_socket(self) -> Literal[True]:
        # redis-py's own timeout is for a whole answer, and a large one on a slow way moves all the time.
        async with asyncio.timeout(self.silence):
            return await super().read_from_socket()


class PlainConnection(redis_py.Connection):
    """Without TLS. `silence`: seconds without a byte after which an answer is not waited for any longer."""

    def __init__(self, *, silence: float, **options: Any) -> None:
        self._silence = silence
        super().__init__(parser_class=_Parser, **options)  # pyright: ignore[reportUnknownMemberType] - not annotated

    def set_parser(self, parser_class: Any) -> None:
        """See `redis.asyncio.Connection`."""
        super().set_parser(parser_class)
        self._parser.silence = self._silence  # pyright: ignore[reportAttributeAccessIssue] - it is a `_Parser`

    @property
    def alive(self) -> bool:
        """Whether it is connected, as far as the system has said, and not to be left."""
        reader = self._reader
        return reader is not None and reader.exception() is None and not reader.at_eof() and not self.should_reconnect()

    async def disconnect(self, *_: Any, **__: Any) -> None:
        """See `drop`."""
        self.drop()

    def drop(self) -> None:
        """Close at once. What has not been sent is thrown away, which redis-py would keep while a server hangs."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._parser.on_disconnect()
        self.reset_should_reconnect()
        self._close()


class TlsConnection(PlainConnection, redis_py.SSLConnection):
    """Through TLS. `settings` say whom to trust."""

    def __init__(self, *, settings: RedisSettings, **options: Any) -> None:
        super().__init__(**options)
        self.has_certificate = settings.cert is not None
        self.ssl_context = _Trust(settings)


class _Trust(redis_py.RedisSSLContext):
    """Files that are read for each connection, as they may be renewed. redis-py's own would trust the system's CAs
    beside the one that is named."""

    __slots__ = ("_settings",)

    def __init__(self, settings: RedisSettings) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType] - not annotated
        self._settings = settings

    def get(self) -> ssl.SSLContext:
        named = self._settings
        return tls_context(named.ca, named.cert, named.key, of="Redis", error=RedisSettingsError)


RedisConnection = PlainConnection | TlsConnection


def options_of(settings: RedisSettings, *, timeout: float) -> dict[str, Any]:
    """What redis-py is told for each connection with the servers' user and password; its own repeats are off."""
    return {
        "username": settings.user,
        "password": settings.password,
        "db": settings.db,
        # Of RESP 3 nothing is used, and HELLO is one command more to be permitted.
        "protocol": 2,
        "driver_info": None,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "socket_read_size": 2**16,
        "silence": timeout,
        **({"settings": settings} if settings.tls else {}),
    }


def new_connection(options: dict[str, Any]) -> RedisConnection:
    """A connection, not yet connected, from `options_of`."""
    return (TlsConnection if "settings" in options else PlainConnection)(**options)
