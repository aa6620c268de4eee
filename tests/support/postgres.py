"""PostgreSQL for tests: one server for the whole run, private ones, and a PgBouncer in front of it."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlencode

import psutil

from .ports import free_port

SUPERUSER = "understudy"
PASSWORD = "loopback only: '/@%"
"""With characters that a URL, a file and a line of SQL must each escape."""

_FAST = {
    "shared_buffers": "32MB",
    "max_connections": "200",
    "superuser_reserved_connections": "3",
    "jit": "off",
    "max_wal_size": "128MB",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "timezone": "UTC",
}
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class PostgresError(Exception):
    """A server did not come up; the message holds its last words."""


def postgres_programs() -> Path | None:
    """The folder of the newest PostgreSQL server's programs here; None if there is none."""
    debian = Path("/usr/lib/postgresql")
    versions = sorted(
        (folder for folder in debian.glob("*/bin") if (folder / "initdb").exists()),
        key=lambda folder: float(folder.parent.name),
        reverse=True,
    )
    if versions:
        return versions[0]
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def postgres_missing() -> str | None:
    """Why no test can have a PostgreSQL here; None if it can."""
    if postgres_programs() is None:
        return "needs a PostgreSQL server: apt-get install postgresql"
    if shutil.which("setpriv") is None:
        return "needs setpriv (util-linux), which has PostgreSQL end with the tests and not run as root"
    if os.geteuid() == 0 and _unprivileged() is None:
        return "runs as root, and there is neither a user postgres nor nobody to run PostgreSQL as"
    try:
        import asyncpg  # noqa: F401
    except ImportError:
        return "needs asyncpg: pip install 'understudy[postgres]'"
    return None


def pgbouncer_missing() -> str | None:
    """Why no test can have a PgBouncer here; None if it can."""
    if _pgbouncer() is None:
        return "needs PgBouncer: apt-get install pgbouncer"
    return postgres_missing()


def _pgbouncer() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _unprivileged() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    return None


class _Server:
    """A program that ends with this process, `kill -9` included, and does not run as root. Start it in the main
    thread: it ends with the thread that started it."""

    def __init__(self) -> None:
        self.port = 0
        self.directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the last start."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def _make_directory(self) -> Path:
        if self.directory is None:
            # Not below pytest's own directory, which the user that the server runs as may not enter.
            self.directory = Path(tempfile.mkdtemp(prefix="understudy-pg-"))
            self._hand_over(self.directory)
        return self.directory

    def _hand_over(self, path: Path) -> None:
        owner = _unprivileged() if os.geteuid() == 0 else None
        if owner is not None:
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def _as_other(self, *command: str | Path, death: signal.Signals | None = None) -> list[str]:
        words = ["setpriv"]
        owner = _unprivileged() if os.geteuid() == 0 else None
        if owner is not None:
            words += [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        if death is not None:
            words += ["--pdeathsig", death.name.removeprefix("SIG")]
        return [*words, *map(str, command)]

    def _spawn(self, *command: str | Path, log: Path, death: signal.Signals) -> None:
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                self._as_other(*command, death=death),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=self.directory,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            )

    def _end(self, number: int, *, patience: float = 10.0) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        self.thaw()
        process.send_signal(number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            for each in self._processes():
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()

    def _processes(self) -> list[psutil.Process]:
        if not self.running:
            return []
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.pid)
            return [first, *first.children(recursive=True)]
        return []

    def freeze(self) -> None:
        """Stop all its processes in the middle of whatever they do: it keeps its connections and answers nothing."""
        for each in self._processes():
            with suppress(psutil.NoSuchProcess):
                each.suspend()

    def thaw(self) -> None:
        """Undo `freeze`. Idempotent."""
        for each in self._processes():
            with suppress(psutil.NoSuchProcess):
                each.resume()

    def _remove(self) -> None:
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None


class PostgresServer(_Server):
    """A real PostgreSQL on a free port of 127.0.0.1, with a superuser that has a password.

        with PostgresServer(fsync=True) as server:
            await asyncpg.connect(server.url())

    Args:
        fsync: Whether what is committed survives a crash of the machine. Off, tests are faster, and what is committed
            still survives `crash()`, as the machine goes on.
        settings: What else stands in postgresql.conf.
    """

    def __init__(self, *, fsync: bool = False, settings: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._settings = {**_FAST, **({} if fsync else _NOT_DURABLE), **(settings or {})}

    def url(self, database: str = "postgres", *, user: str = SUPERUSER, password: str = PASSWORD) -> str:
        """Where clients connect."""
        return postgres_url(self.port, database, user=user, password=password)

    def start(self, *, patience: float = 30.0) -> None:
        """Start it, on the port and the data of the start before if there was one, and wait until it takes connections.

        Raises:
            PostgresError: It did not come up.
        """
        programs = postgres_programs()
        assert programs is not None, postgres_missing()
        directory = self._make_directory()
        data, log = directory / "data", directory / "log"
        if not data.exists():
            self._initialize(programs, data)
        until = time.monotonic() + patience
        while True:
            self.port = self.port or free_port()
            self._spawn(programs / "postgres", "-D", data, "-p", str(self.port), log=log, death=signal.SIGQUIT)
            while self.running and time.monotonic() < until:
                if self._is_ready(data):
                    return
                time.sleep(0.02)
            self._end(signal.SIGQUIT)
            said = log.read_text(errors="replace")[-2000:]
            if time.monotonic() >= until or "Address already in use" not in said:
                raise PostgresError(f"PostgreSQL did not start:\n{said}")
            time.sleep(0.1)

    def _initialize(self, programs: Path, data: Path) -> None:
        assert self.directory is not None
        password_file = self.directory / "password"
        password_file.write_text(PASSWORD)
        self._hand_over(password_file)
        command = self._as_other(
            programs / "initdb",
            f"--pgdata={data}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "--wal-segsize=4",
        )
        made = subprocess.run(command, capture_output=True, text=True, cwd=self.directory, check=False)
        if made.returncode != 0:
            raise PostgresError(f"initdb failed:\n{made.stdout[-1000:]}{made.stderr[-1000:]}")
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in self._settings.items())

    def _is_ready(self, data: Path) -> bool:
        # Its eighth line says so when it does; a file of the start before has another process's number in the first.
        with suppress(OSError):
            lines = (data / "postmaster.pid").read_text().splitlines()
            return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"
        return False

    def stop(self) -> None:
        """End it in order; clients' transactions are rolled back. What it keeps stays until `close`. Idempotent."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End it at once, as a crash would: the next start recovers from the log of what was written."""
        self._end(signal.SIGQUIT)

    def close(self) -> None:
        """End it and remove what it keeps."""
        self._end(signal.SIGQUIT)
        self._remove()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PgBouncer(_Server):
    """A real PgBouncer before a `PostgresServer`, for whatever database and role of it.

    Args:
        mode: "transaction", "session" or "statement".
        pool_size: Connections to the server for each pair of database and role.
    """

    def __init__(self, server: PostgresServer, *, mode: str = "transaction", pool_size: int = 4) -> None:
        super().__init__()
        self._server = server
        self._mode = mode
        self._pool_size = pool_size

    def url(self, database: str = "postgres", *, user: str = SUPERUSER, password: str = PASSWORD) -> str:
        """Where clients connect."""
        return postgres_url(self.port, database, user=user, password=password)

    def start(self, *, patience: float = 15.0) -> None:
        """Start it and wait until it takes connections.

        Raises:
            PostgresError: It did not come up.
        """
        program = _pgbouncer()
        assert program is not None, pgbouncer_missing()
        directory = self._make_directory()
        log, configuration, users = directory / "log", directory / "pgbouncer.ini", directory / "users"
        users.write_text(f'"{SUPERUSER}" "{PASSWORD}"\n')
        until = time.monotonic() + patience
        while True:
            self.port = self.port or free_port()
            configuration.write_text(
                f"[databases]\n* = host=127.0.0.1 port={self._server.port} auth_user={SUPERUSER}\n"
                "[pgbouncer]\n"
                f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
                f"pool_mode = {self._mode}\ndefault_pool_size = {self._pool_size}\nmax_client_conn = 500\n"
                f"auth_type = scram-sha-256\nauth_file = {users}\n"
                "auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1\n"
                "ignore_startup_parameters = extra_float_digits\nserver_check_delay = 0\nserver_lifetime = 60\n"
                "server_login_retry = 0.2\n"
            )
            for file in (configuration, users):
                self._hand_over(file)
            self._spawn(program, configuration, log=log, death=signal.SIGKILL)
            while self.running and time.monotonic() < until:
                if "process up" in log.read_text(errors="replace"):
                    return
                time.sleep(0.02)
            self._end(signal.SIGTERM)
            said = log.read_text(errors="replace")[-2000:]
            if time.monotonic() >= until or "in use" not in said:
                raise PostgresError(f"PgBouncer did not start:\n{said}")
            self.port = 0
            log.unlink()

    def close(self) -> None:
        """End it."""
        self._end(signal.SIGTERM)
        self._remove()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def postgres_url(port: int, database: str, *, user: str, password: str, **options: str) -> str:
    """`postgresql://user:password@127.0.0.1:port/database`, escaped."""
    query = f"?{urlencode(options)}" if options else ""
    return f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1:{port}/{quote(database)}{query}"


def fresh_database_name(prefix: str = "test") -> str:
    """A name for a database or a role that no other test on the same server has."""
    return f"{prefix}_{secrets.token_hex(6)}"
