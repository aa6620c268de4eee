"""`connect`: to NATS, once within a deadline, and from then on for ever. For the store and for the cluster."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

from nats import errors
from nats.js import JetStreamContext
from nats.js import errors as js_errors

from .client import NatsClient, RequestForbiddenError, RequestInterruptedError
from .credentials import credentials
from .errors import JetStreamMissing, NatsRefused, NatsUnavailable, StorageFull
from .settings import NatsSettings

__all__ = ["api_error", "close", "connect", "jetstream", "translated"]

logger = logging.getLogger(__name__)

_REFUSALS = ("authorization", "authentication", "maximum", "tls required", "secure connection")
_FULL = {10002, 10023, 10028, 10047, 10122}
"""JetStream's error codes for: account, server, memory, storage and stream limits."""
_NO_JETSTREAM = {10035, 10039, 10076}


async def connect(
    settings: NatsSettings,
    *,
    name: str,
    deadline: float = 5.0,
    ping_interval: float = 2.0,
    on_disconnected: Callable[[], None] | None = None,
    on_reconnected: Callable[[], None] | None = None,
    on_error: Callable[[NatsUnavailable], None] | None = None,
) -> NatsClient:
    """A connection to one of the servers; when it breaks, it is made anew until `close`, whatever happens.

    Until it is there again every call on it raises at once; see `NatsClient`. Waits between attempts grow from 0.1 to 2
    seconds, with jitter. Cancelled, it leaves nothing open.

    Args:
        name: What the server shows as the name of this connection.
        deadline: Seconds for the first connection. A server that is not there yet is tried until then.
        ping_interval: Seconds; a server that answers nothing is given up after three of them.
        on_disconnected, on_reconnected, on_error: Called on the event loop; must not wait. `on_error` hears of each
            failed attempt and of whatever the server complains about.

    Raises:
        NatsSettingsError: A file of the settings cannot be used.
        NatsUnavailable: No server answered in time.
        NatsRefused: All of them refused us: password, certificate, ...
    """
    options = credentials(settings)
    client = NatsClient(needs_tls=settings.tls)
    first = _FirstConnection(settings, client)
    connected = given_up = False

    async def error_happened(error: Exception) -> None:
        if given_up:
            return
        if not connected:
            first.failed(error)
        elif on_error is not None:
            _call(on_error, _connection_error(error, str(_server_of(client))))

    async def disconnected() -> None:
        if connected and on_disconnected is not None:
            _call(on_disconnected)

    async def reconnected() -> None:
        if on_reconnected is not None:
            _call(on_reconnected)

    nkey = options.pop("public_nkey", None)
    if nkey is not None:
        client.public_nkey = nkey
    try:
        async with asyncio.timeout(deadline):
            await client.connect(
                servers=list(settings.servers),
                name=name,
                error_cb=error_happened,
                disconnected_cb=disconnected,
                reconnected_cb=reconnected,
                connect_timeout=min(2.0, deadline),  # pyright: ignore[reportArgumentType] - used as seconds
                reconnect_time_wait=0.1,  # pyright: ignore[reportArgumentType]
                max_reconnect_attempts=-1,
                ping_interval=ping_interval,  # pyright: ignore[reportArgumentType]
                max_outstanding_pings=2,
                reconnect_to_server_handler=client.next_server,
                **options,
            )
            connected = True
            return client
    except _GaveUpError:
        pass
    except TimeoutError:
        first.deadline = deadline
    except errors.Error as error:
        first.failures[settings.where] = error
    finally:
        if not connected:
            given_up = True
            await close(client, timeout=1.0)
    raise first.explanation()


async def close(client: NatsClient, *, timeout: float = 2.0) -> None:
    """Send what was published and close for good, within `timeout` seconds. Never raises; idempotent."""
    try:
        await client.shut(timeout)
    except (OSError, errors.Error, TimeoutError):
        client.abort()


async def jetstream(client: NatsClient, *, timeout: float = 5.0) -> JetStreamContext:
    """JetStream of this connection, once the server has said that it is there.

    Raises:
        JetStreamMissing: The server runs without it, or the account may not use it.
        NatsUnavailable: No answer.
    """
    context = JetStreamContext(client, timeout=timeout)
    try:
        await context.account_info()
    except js_errors.APIError as error:
        raise _jetstream_error(client, error) from error
    except errors.NoRespondersError as error:
        raise _no_jetstream(client) from error
    except (errors.Error, OSError, TimeoutError) as error:
        raise translated(error, "asking NATS for JetStream") from error
    return context


def translated(error: Exception, doing: str, *, writing: bool = False) -> NatsUnavailable:
    """The error of ours for what nats-py raised while `doing`. `writing`: something would have changed had it worked,
    so that an answer that did not come leaves the outcome unknown.
    """
    if isinstance(error, NatsUnavailable):
        return error
    if isinstance(error, js_errors.APIError) and error.err_code is not None:
        return api_error(error.err_code, error.description or "", doing, writing=writing)
    if isinstance(
        error, errors.NoRespondersError | js_errors.NoStreamResponseError | js_errors.ServiceUnavailableError
    ):
        return NatsUnavailable(f"{doing}: nobody at NATS answers for this bucket; JetStream may still be starting")
    if isinstance(error, RequestForbiddenError):
        return NatsRefused(
            f"{doing}: NATS does not permit it to this user ({_plain(error)}): see 'Permissions' in stores/README.md"
        )
    if isinstance(error, RequestInterruptedError):
        return NatsUnavailable(f"{doing}: the connection to NATS broke before the answer came", outcome_unknown=writing)
    if isinstance(error, errors.ConnectionReconnectingError | errors.ConnectionClosedError):
        return NatsUnavailable(f"{doing}: not connected to NATS; the connection is being made anew")
    if isinstance(error, errors.MaxPayloadError):
        return NatsUnavailable(f"{doing}: larger than the max_payload of the NATS server; raise it there")
    if isinstance(error, TimeoutError):
        # A nats-server whose disk is full does not answer writes, and says why in its log only.
        hint = "; if it answers reads, its disk may be full: see its log" if writing else ""
        return NatsUnavailable(f"{doing}: NATS did not answer in time{hint}", outcome_unknown=writing)
    return NatsUnavailable(f"{doing}: {_plain(error)}", outcome_unknown=writing)


def api_error(code: int, description: str, doing: str, *, writing: bool = False) -> NatsUnavailable:
    """The error of ours for an answer of JetStream's with `code` (its `err_code`)."""
    if code in _FULL or "maximum bytes" in description or "no space left" in description:
        return StorageFull(
            f"{doing}: NATS has no room ({description}): free its disk, or raise max_file_store of the server, the "
            "limits of the account or max_bytes of the bucket"
        )
    if code in _NO_JETSTREAM:
        return JetStreamMissing(f"{doing}: {description}: start nats-server with -js, or give this account JetStream")
    # 10077: the store of the stream failed, and how far it had come is not said.
    return NatsUnavailable(
        f"{doing}: JetStream says: {description} ({code})", outcome_unknown=writing and code == 10077
    )


class _GaveUpError(Exception):
    """Every server has refused us: to ask again would not help."""


class _FirstConnection:
    def __init__(self, settings: NatsSettings, client: NatsClient) -> None:
        self._settings = settings
        self._client = client
        self.failures: dict[str, Exception] = {}
        self.deadline: float | None = None

    def failed(self, error: Exception) -> None:
        server = _server_of(self._client)
        # A refusal may get lost on its way when the server hangs up right behind it; the one before it counts.
        before = self.failures.get(server)
        if before is None or not isinstance(_connection_error(before, server), NatsRefused):
            self.failures[server] = error
        refused = sum(isinstance(_connection_error(e, ""), NatsRefused) for e in self.failures.values())
        if refused >= len(self._settings.servers):
            raise _GaveUpError from error

    def explanation(self) -> NatsUnavailable:
        told = [_connection_error(error, server) for server, error in self.failures.items()]
        if not told:
            told = [NatsUnavailable(f"the server at {self._settings.where} takes connections and says nothing")]
        text = "; ".join(dict.fromkeys(str(error) for error in told))
        if all(isinstance(error, NatsRefused) for error in told):
            return NatsRefused(f"cannot connect to NATS: {text}")
        waited = f" within {self.deadline:g} s" if self.deadline is not None else ""
        return NatsUnavailable(f"cannot connect to NATS{waited}: {text}")


def _server_of(client: NatsClient) -> str:
    # nats-py takes the next server from the front of its pool, and puts it at the end before it tries.
    pool = client.server_pool
    current = client.connected_url or (pool[-1].uri if pool else None)
    return "NATS" if current is None else f"{current.scheme}://{current.netloc.rpartition('@')[2]}"


def _connection_error(error: Exception, server: str) -> NatsUnavailable:
    if isinstance(error, NatsUnavailable):
        return error
    text = str(error).lower()
    if isinstance(error, errors.SecureConnWantedError):
        return NatsRefused(
            f"{server} does not offer TLS, and nothing secret is sent without: use nats://, or set it up"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return NatsRefused(
            f"the certificate of {server} is not trusted ({error.verify_message}): "
            "name the CA that signed it (--nats-ca, UNDERSTUDY_NATS_CA, ?ca=FILE in a URL), and the server as the "
            "certificate does"
        )
    if isinstance(error, ssl.SSLError):
        if "required" in (error.reason or "").lower():
            return NatsRefused(
                f"{server} asks for a client certificate: give one with its key (--nats-cert and "
                "--nats-key, UNDERSTUDY_NATS_CERT and UNDERSTUDY_NATS_KEY, ?cert=FILE&key=FILE in a URL)"
            )
        return NatsRefused(f"TLS with {server} failed: {error.reason or 'no reason given'}")
    if isinstance(error, errors.AuthorizationError) or "authorization violation" in text:
        return NatsRefused(
            f"{server} refused our credentials: check user and password, token, nkey or creds (UNDERSTUDY_NATS_*)"
        )
    if isinstance(error, errors.Error) and any(word in text for word in _REFUSALS):
        return NatsRefused(f"{server} refused us: {_plain(error)}")
    if isinstance(error, ConnectionRefusedError):
        return NatsUnavailable(f"no NATS server at {server}: start one, or correct the URL (--nats, UNDERSTUDY_NATS)")
    if isinstance(error, errors.UnexpectedEOF | errors.StaleConnectionError | ConnectionResetError):
        return NatsUnavailable(f"{server} closed the connection")
    if isinstance(error, TimeoutError):
        return NatsUnavailable(f"{server} does not answer")
    if isinstance(error, errors.Error) and ("expecting info" in text or "json parse" in text):
        return NatsUnavailable(f"what answers at {server} is no NATS server: correct the URL")
    if isinstance(error, OSError):
        return NatsUnavailable(f"{server} cannot be reached: {error.strerror or _plain(error)}")
    return NatsUnavailable(f"{server}: {_plain(error)}")


def _plain(error: Exception) -> str:
    return str(error).removeprefix("nats: ").strip("'") or type(error).__name__


def _jetstream_error(client: NatsClient, error: js_errors.APIError) -> NatsUnavailable:
    if error.err_code in _NO_JETSTREAM or error.err_code is None:
        return _no_jetstream(client)
    return translated(error, "asking NATS for JetStream")


def _no_jetstream(client: NatsClient) -> JetStreamMissing:
    server = _server_of(client)
    if client.server_info.get("jetstream"):
        return JetStreamMissing(f"this account may not use JetStream of {server}: enable it for the account")
    return JetStreamMissing(f"{server} runs without JetStream: start nats-server with -js -sd DIRECTORY")


def _call(callback: Callable[..., None], *args: Any) -> None:
    # An exception in a callback would end nats-py's task that reconnects.
    try:
        callback(*args)
    except Exception:
        logger.exception("a callback of the NATS connection failed")
