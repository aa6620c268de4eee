"""redis-server for tests: one for the whole run, private ones, with replicas and sentinels, and as a cluster."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from .ports import free_port


def redis_missing() -> str | None:
    """Why no test can have a redis-server here; None if it can."""
    if shutil.which("redis-server") is None:
        return "needs a Redis server: apt-get install redis-server"
    try:
        import hiredis  # noqa: F401
        import redis  # noqa: F401
    except ImportError:
        return "needs redis-py: pip install 'understudy[redis]'"
    return None


def fresh_prefix() -> str:
    """A prefix for keys that no other test on the same server has."""
    return f"test-{secrets.token_hex(6)}"


class RedisServer:
    """`with RedisServer() as server`: on a port of its own, which it keeps when it is started again.

    Args:
        durable: Every write is on the disk before it is acknowledged; without, an AOF that survives `kill -9`.
        password: Of the default user.
        certificate: A certificate and its key: TLS alone is spoken then.
        replica_of: The port of a primary of this machine.
        sentinel_of: The port of a primary: this is a sentinel, which knows it as `sessions`.
        cluster: This is a node of a cluster.
        options: Of `redis.conf`, over those that the rest makes.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        password: str | None = None,
        certificate: tuple[Path, Path] | None = None,
        replica_of: int | None = None,
        sentinel_of: int | None = None,
        cluster: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.password = password
        self.directory = Path(tempfile.mkdtemp(prefix="understudy-redis-"))
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None
        lines = {
            "port": "0" if certificate else str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "logfile": str(self.directory / "log"),
        }
        if sentinel_of is None:
            lines |= {
                "save": '""',
                "appendonly": "yes",
                "appendfsync": "always" if durable else "no",
                "repl-diskless-sync-delay": "0",
                "repl-ping-replica-period": "1",
                "enable-debug-command": "yes",
            }
        if certificate is not None:
            lines |= {
                "tls-port": str(self.port),
                "tls-cert-file": str(certificate[0]),
                "tls-key-file": str(certificate[1]),
                "tls-ca-cert-file": str(certificate[0]),
                "tls-auth-clients": "no",
            }
        if password is not None:
            lines |= {"requirepass": f'"{password}"', "masterauth": f'"{password}"'}
        if replica_of is not None:
            lines["replicaof"] = f"127.0.0.1 {replica_of}"
        if cluster:
            lines |= {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
            # Beside the port; the default is 10000 above it, which need not be free, nor a port.
            lines["cluster-port"] = str(free_port())
        text = "".join(f"{name} {value}\n" for name, value in (lines | dict(options or {})).items())
        if sentinel_of is not None:
            text += (
                f"sentinel monitor sessions 127.0.0.1 {sentinel_of} 1\n"
                "sentinel down-after-milliseconds sessions 500\n"
                "sentinel failover-timeout sessions 2000\n"
            )
        self._sentinel = sentinel_of is not None
        self._conf = self.directory / "redis.conf"
        self._conf.write_text(text)

    @property
    def url(self) -> str:
        """As a store's URL, with the password; without a path."""
        login = "" if self.password is None else f":{self.password}@"
        return f"redis{'s' if self._certificate else ''}://{login}127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has logged so far."""
        file = self.directory / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self, *, ready: bool = True) -> Self:
        """Start it, again on the same port and data. `ready`: wait until it answers."""
        # Ends with the thread that starts it: call this in one that lasts.
        end = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        command = [*end, "redis-server", str(self._conf), *(["--sentinel"] if self._sentinel else [])]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while ready:
            with suppress(OSError):
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    pass
                if self._certificate is not None or self.command("PING") == b"PONG":
                    break
            if not self.running or time.monotonic() > until:
                raise RuntimeError(f"redis-server did not start: {self.log[-2000:]}")
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        """SIGTERM, and wait. Idempotent."""
        if self._process is not None and self.running:
            self.resume()
            self._process.terminate()
        self._wait()

    def kill(self) -> None:
        """SIGKILL, and wait. Idempotent."""
        if self._process is not None and self.running:
            self._process.kill()
        self._wait()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and does nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def command(self, *words: str | bytes | int) -> Any:
        """Send one command by a connection of its own; the answer, errors of Redis as `hiredis.ReplyError`s."""
        import hiredis

        reader = hiredis.Reader()
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            for words_ in ([("AUTH", self.password)] if self.password else []) + [words]:
                connection.sendall(hiredis.pack_command(words_))
                while (reply := reader.gets()) is False:
                    data = connection.recv(2**16)
                    if not data:
                        raise ConnectionResetError("Redis closed the connection")
                    reader.feed(data)
        return reply

    def info(self, section: str) -> dict[str, str]:
        """INFO of one section."""
        lines = (line.partition(":") for line in self.command("INFO", section).decode().splitlines())
        return {name: value for name, _, value in lines}

    def close(self) -> None:
        """End it, and remove what it has kept. Idempotent."""
        with suppress(ProcessLookupError):
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(20)

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_until(holds: Any, *, seconds: float = 10) -> None:
    """Return when `holds()` is true."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError("it did not come true in time")
        time.sleep(0.01)


class RedisCluster:
    """`with RedisCluster() as cluster`: primaries that share the slots, and know each other."""

    def __init__(self, primaries: int = 3) -> None:
        self.servers = [RedisServer(cluster=True) for _ in range(primaries)]

    @property
    def url(self) -> str:
        """As a store's URL. Names one of the nodes only."""
        return f"redis+cluster://127.0.0.1:{self.servers[0].port}"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        for server in self.servers:
            server.start()
        count = len(self.servers)
        for number, server in enumerate(self.servers):
            first, last = 16384 * number // count, 16384 * (number + 1) // count - 1
            assert server.command("CLUSTER", "ADDSLOTSRANGE", first, last) == b"OK"
            server.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for other in self.servers[1:]:
            bus = _option(other, "cluster-port")
            self.servers[0].command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        for server in self.servers:
            wait_until(lambda server=server: b"cluster_state:ok" in server.command("CLUSTER", "INFO"), seconds=20)
            wait_until(lambda server=server: len(server.command("CLUSTER", "SLOTS")) == count, seconds=20)

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.close()


def _option(server: RedisServer, name: str) -> str:
    return server.command("CONFIG", "GET", name)[1].decode()
