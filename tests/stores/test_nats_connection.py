"""`connect`: every way to prove who we are against a real nats-server, every refusal, and coming back."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats import errors
from support import free_port
from support.certificates import self_signed
from support.nats_keys import NKey, make_operator
from support.patience import PATIENCE
from support.serving import serving
from understudy.runtime.commands.nats_server import NatsServer
from understudy.stores import StoreUnavailable
from understudy.stores.nats.client import NatsClient, RequestInterruptedError
from understudy.stores.nats.connection import close, connect, jetstream
from understudy.stores.nats.errors import JetStreamMissing, NatsRefused, NatsSettingsError, NatsUnavailable
from understudy.stores.nats.settings import NatsSettings

Servers = Callable[..., NatsServer]


@pytest.fixture(autouse=True)
def _nats_py_says_nothing(caplog: pytest.LogCaptureFixture) -> object:
    yield
    said = [record for record in caplog.records if record.name.startswith(("nats", "asyncio"))]
    assert [record.getMessage() for record in said if record.levelno >= logging.WARNING] == []


async def test_without_a_password(nats_servers: Servers) -> None:
    async with nats_servers() as server:
        await _works(server.url)


async def test_with_user_and_password(nats_servers: Servers) -> None:
    async with nats_servers(user="me@home", password="p:/%?") as server:
        await _works(server.url.replace("//", "//me%40home:p%3A%2F%25%3F@"))
        await _works(f"{server.url}?user=me%40home&password=p%3A%2F%25%3F")
        for wrong in ("", "me%40home:hunter2@", "you:p@", "hunter2@"):
            await _refused(server.url.replace("//", f"//{wrong}"), "refused our credentials")


async def test_with_a_token(nats_servers: Servers) -> None:
    async with nats_servers(token="s3cr3t") as server:
        await _works(server.url.replace("//", "//s3cr3t@"))
        await _refused(server.url.replace("//", "//hunter2@"), "refused our credentials")


async def test_with_an_nkey(nats_servers: Servers, tmp_path: Path) -> None:
    key, other = NKey("user"), NKey("user")
    (tmp_path / "seed").write_text(f"{key.seed}\n")
    (tmp_path / "other").write_text(other.seed)
    async with nats_servers(nkey=key.public) as server:
        await _works(f"{server.url}?nkey={tmp_path}/seed")
        await _refused(f"{server.url}?nkey={tmp_path}/other", "refused our credentials")
        await _refused(server.url, "refused our credentials")


async def test_with_a_creds_file(nats_servers: Servers, tmp_path: Path) -> None:
    operator = make_operator(tmp_path / "operator")
    async with nats_servers(more=operator.config) as server:
        await _works(f"{server.url}?creds={operator.creds}")
        await _refused(f"{server.url}?creds={operator.creds_of_a_stranger}", "refused our credentials")
        async with _connected(f"{server.url}?creds={operator.creds_without_jetstream}") as client:
            with pytest.raises(JetStreamMissing, match="this account may not use JetStream"):
                await jetstream(client)


async def test_over_tls(nats_servers: Servers, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path / "tls")
    other, _ = self_signed(tmp_path / "other")
    async with nats_servers(tls_cert=cert, tls_key=key, user="u", password="p") as server:
        url = server.url.replace("//", "//u:p@")
        await _works(f"{url}?ca={cert}")
        await _works(f"{url.replace('tls:', 'nats:')}?ca={cert}")
        await _refused(url, r"certificate of tls://127.0.0.1:\d+ is not trusted .*--nats-ca, .*\?ca=FILE")
        await _refused(f"{url}?ca={other}", "is not trusted")
        await _refused(f"{server.url}?ca={cert}", "refused our credentials")


async def test_over_tls_with_a_certificate_of_our_own(nats_servers: Servers, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path / "tls")
    async with nats_servers(tls_cert=cert, tls_key=key, tls_client_ca=cert) as server:
        await _works(f"{server.url}?ca={cert}&cert={cert}&key={key}")
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(NatsUnavailable, match=r"client certificate|TLS|closed the connection"):
                await connect(NatsSettings.from_url(f"{server.url}?ca={cert}"), name="test", deadline=1)


async def test_nothing_secret_is_sent_to_a_server_without_the_tls_that_was_asked_for(nats_servers: Servers) -> None:
    heard = b""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        writer.write(b'INFO {"server_id":"x","version":"2.11.0","headers":true,"max_payload":1048576}\r\n')
        heard += await reader.read(1000)
        writer.close()

    async with serving(listen) as port:
        await _refused(f"tls://u:hunter2@127.0.0.1:{port}", "does not offer TLS")
    assert heard == b""


async def test_no_server_there_is_told_after_the_deadline(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(NatsUnavailable, match=r"within 0.3 s: no NATS server at nats://127.0.0.1:\d+: start one"):
        await connect(NatsSettings.from_url(f"nats://127.0.0.1:{free_port()}"), name="test", deadline=0.3)
    assert 0.25 < time.monotonic() - started < 2


async def test_a_server_that_comes_within_the_deadline_is_found(nats_servers: Servers) -> None:
    server = nats_servers()
    server.port = free_port()
    async with asyncio.TaskGroup() as tasks:
        connecting = tasks.create_task(connect(NatsSettings.from_url(server.url), name="test"))
        await asyncio.sleep(0.2)
        await server.start()
    await close(connecting.result())


async def test_something_else_than_nats_is_told(nats_servers: Servers) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with serving(answer) as port:
        with pytest.raises(NatsUnavailable, match="is no NATS server"):
            await connect(NatsSettings.from_url(f"nats://127.0.0.1:{port}"), name="test", deadline=0.5)


async def test_a_server_that_says_nothing_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings = NatsSettings.from_url(f"nats://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(NatsUnavailable, match=r"says nothing|does not answer"):
            await connect(settings, name="test", deadline=0.3)


async def test_of_several_servers_one_that_is_there_is_enough(nats_servers: Servers) -> None:
    async with nats_servers() as server:
        port = free_port()
        await _works(f"nats://127.0.0.1:{port},127.0.0.1:{server.port},127.0.0.1:{port}")


async def test_no_jetstream_is_told(nats_servers: Servers) -> None:
    async with nats_servers(jetstream=False) as server, _connected(server.url) as client:
        with pytest.raises(JetStreamMissing, match=r"runs without JetStream: start nats-server with -js"):
            await jetstream(client)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("?creds=/nowhere/x.creds", "cannot be read: No such file"),
        ("?nkey=/nowhere/seed", "cannot be read: No such file"),
        ("?nkey={junk}", "holds no NKey seed"),
        ("?creds={junk}", "holds no NKey seed"),
        ("?ca=/nowhere/ca.pem", "No such file"),
        ("?ca={junk}", "holds no certificate"),
        ("?cert={junk}&key={junk}", "no certificate and its plain key"),
    ],
)
async def test_a_file_that_cannot_be_used_is_told(options: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("SUhunter2\n")
    url = f"nats://127.0.0.1:1{options.format(junk=tmp_path / 'junk')}"
    with pytest.raises(NatsSettingsError, match=says) as caught:
        await connect(NatsSettings.from_url(url), name="test")
    assert "hunter2" not in str(caught.value)


async def test_it_comes_back_by_itself_and_says_so(nats_servers: Servers) -> None:
    events: list[str] = []
    async with nats_servers() as server:
        client = await connect(
            NatsSettings.from_url(server.url),
            name="test",
            on_disconnected=lambda: events.append("disconnected"),
            on_reconnected=lambda: events.append("reconnected"),
            on_error=lambda error: events.append(f"{type(error).__name__}: {error}"),
        )
        heard = await client.subscribe("news")
        await client.flush()
        for _ in range(2):
            server.kill()
            await _until(lambda: not client.is_connected)
            with pytest.raises(errors.ConnectionReconnectingError):
                await client.publish("news", b"lost")
            await asyncio.sleep(0.3)
            await server.start()
            await _until(lambda: client.is_connected)
            await client.publish("news", b"again")
            assert (await heard.next_msg(timeout=2)).data == b"again"
        await _until(lambda: events.count("reconnected") == 2)
        assert events.count("disconnected") == 2
        assert any("no NATS server at" in event for event in events)
        await close(client)


async def test_a_callback_that_fails_does_not_stop_the_reconnecting(
    nats_servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault in the callback")

    async with nats_servers() as server:
        client = await connect(
            NatsSettings.from_url(server.url), name="test", on_disconnected=fail, on_reconnected=fail, on_error=fail
        )
        await server.restart()
        await _until(lambda: client.is_connected)
        await client.flush()
        await close(client)
    assert "a callback of the NATS connection failed" in caplog.text


async def test_a_password_that_changes_is_tried_for_ever_and_works_when_it_is_right_again(
    nats_servers: Servers, tmp_path: Path
) -> None:
    refusals: list[NatsUnavailable] = []
    key, other = NKey("user"), NKey("user")
    seed = tmp_path / "seed"
    seed.write_text(key.seed)
    users = {"authorization": {"users": [{"nkey": key.public}]}}
    async with nats_servers(more=users) as server:
        client = await connect(
            NatsSettings.from_url(f"{server.url}?nkey={seed}"), name="test", on_error=refusals.append
        )
        users["authorization"]["users"] = [{"nkey": other.public}]
        await server.restart()
        await _until(lambda: any(isinstance(error, NatsRefused) for error in refusals))
        assert not client.is_connected
        users["authorization"]["users"] = [{"nkey": other.public}, {"nkey": key.public}]
        await server.restart()
        await _until(lambda: client.is_connected)
        await close(client)


async def test_being_thrown_out_while_connected_is_no_end(nats_servers: Servers) -> None:
    # nats-py alone closes for good at any -ERR that it does not know.
    async with _impostor() as (port, writers), _connected(f"nats://127.0.0.1:{port}") as client:
        writers[-1].write(b"-ERR 'User Authentication Expired'\r\n")
        await _until(lambda: len(writers) == 2)
        await _until(lambda: client.is_connected)


async def test_nonsense_from_the_server_is_no_end(caplog: pytest.LogCaptureFixture) -> None:
    async with _impostor() as (port, writers), _connected(f"nats://127.0.0.1:{port}") as client:
        writers[-1].write(b"GARBAGE\r\n")
        await _until(lambda: len(writers) == 2)
        await _until(lambda: client.is_connected)


async def test_a_request_under_way_when_the_connection_breaks_does_not_wait(nats_servers: Servers) -> None:
    async with nats_servers() as server, _connected(server.url) as client:
        await client.subscribe("mute")
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(_error_of(client.request("mute", b"", timeout=30)))
            await asyncio.sleep(0.05)
            server.kill()
        assert isinstance(asking.result(), RequestInterruptedError)
        assert not client._resp_map


async def test_a_server_that_hangs_is_given_up_after_three_pings(nats_servers: Servers) -> None:
    async with nats_servers() as server:
        client = await connect(NatsSettings.from_url(server.url), name="test", ping_interval=0.1)
        server.pause()
        # More than the socket takes, so that nobody who writes comes through either.
        writing = [_error_of(client.publish("x", b"x" * 900_000)) for _ in range(40)]
        started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for write in writing:
                tasks.create_task(write)
            await _until(lambda: not client.is_connected)
            assert time.monotonic() - started < 2
        server.resume()
        await _until(lambda: client.is_connected)
        await client.flush()
        await close(client)


async def test_a_flush_that_timed_out_does_not_break_the_connection(nats_servers: Servers) -> None:
    async with nats_servers() as server, _connected(server.url) as client:
        server.pause()
        with pytest.raises(errors.TimeoutError):
            await client.flush(timeout=0.05)  # type: ignore[arg-type]
        server.resume()
        await client.flush()
        assert client.stats["reconnects"] == 0


async def test_closing_takes_bounded_time_and_sends_what_was_published(nats_servers: Servers) -> None:
    async with nats_servers() as server, _connected(server.url) as listener:
        heard = await listener.subscribe("news")
        await listener.flush()
        client = await connect(NatsSettings.from_url(server.url), name="test")
        await client.publish("news", b"last words")
        await close(client)
        await close(client)
        assert (await heard.next_msg(timeout=2)).data == b"last words"
        client = await connect(NatsSettings.from_url(server.url), name="test")
        server.pause()
        started = time.monotonic()
        await close(client, timeout=0.4)
        assert time.monotonic() - started < 1
        assert client.is_closed
        server.resume()


async def test_closing_ends_the_reconnecting(nats_servers: Servers) -> None:
    async with nats_servers() as server:
        before = asyncio.all_tasks()
        client = await connect(NatsSettings.from_url(server.url), name="test")
        server.kill()
        await _until(lambda: not client.is_connected)
        await close(client)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


async def test_a_cancelled_connect_leaves_nothing_open() -> None:
    before = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings = NatsSettings.from_url(f"nats://127.0.0.1:{mute.getsockname()[1]}")
        for steps in (0, 1, 3, 10):
            async with asyncio.TaskGroup() as tasks:
                connecting = tasks.create_task(connect(settings, name="test"))
                for _ in range(steps):
                    await asyncio.sleep(0.001)
                connecting.cancel()
    assert asyncio.all_tasks() == before
    gc.collect()  # A socket left open would be a ResourceWarning, and so an error.


async def _works(url: str) -> None:
    async with _connected(url) as client:
        await jetstream(client)


async def _refused(url: str, says: str) -> None:
    started = time.monotonic()
    with pytest.raises(NatsRefused, match=says) as caught:
        await connect(NatsSettings.from_url(url), name="test", deadline=5)
    assert time.monotonic() - started < 3, "a refusal is no reason to wait"
    assert isinstance(caught.value, StoreUnavailable)
    assert caught.value.outcome_unknown is False
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in f"{error} {error.args}"
        error = error.__cause__ or error.__context__


@asynccontextmanager
async def _connected(url: str) -> AsyncGenerator[NatsClient]:
    client = await connect(NatsSettings.from_url(url), name="test")
    try:
        yield client
    finally:
        await close(client)


@asynccontextmanager
async def _impostor() -> AsyncGenerator[tuple[int, list[asyncio.StreamWriter]]]:
    """What passes for a nats-server, and lets the test say anything in its name."""
    writers: list[asyncio.StreamWriter] = []
    talking: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.add(writer)
        writer.write(b'INFO {"server_id":"x","version":"2.11.0","headers":true,"max_payload":1048576}\r\n')
        try:
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
                    writers.append(writer)
                    break
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
        except ConnectionError:
            pass
        finally:
            talking.discard(writer)
            writer.close()

    async with serving(serve) as port:
        yield port, writers
        for writer in writers:
            writer.close()
        await _until(lambda: not talking)


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.005)


async def _error_of(call: object) -> BaseException | None:
    try:
        await call  # type: ignore[misc]
    except (errors.Error, OSError) as error:
        return error
    return None
