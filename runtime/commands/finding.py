"""Finding a running cluster: the one that was named, or the one that `understudy cluster` started last here."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from ...stores import UnderstudyError
from ...stores.nats.settings import NatsSettings
from .nats_options import NatsOptions, nats_url

__all__ = ["Found", "NoCluster", "announced", "find_cluster", "running_clusters"]

MOST_BYTES = 65_536


class NoCluster(UnderstudyError):
    """There is no cluster to talk to, or it is not known which."""


@dataclass(frozen=True, slots=True)
class Found:
    """A cluster and the way to its NATS."""

    name: str | None
    """None: to be found at that NATS."""
    settings: NatsSettings = field(repr=False)
    pid: int = 0
    """Of the `understudy cluster` that runs it; 0 if it was named."""
    started: float = 0.0
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    """Those that the cluster's operator gives; none: the cluster keeps its own in NATS."""


def find_cluster(options: NatsOptions, name: str | None, environment: Mapping[str, str] = os.environ) -> Found:
    """The cluster that is meant: by a NATS URL, or else one that runs on this machine, of that name if one is given.

    Raises:
        NoCluster: None runs here, or it is not said well which is meant.
        NatsSettingsError: A NATS URL that cannot be understood.
    """
    if options.url is not None:
        if not options.url.strip():
            # Not the cluster that happens to run here: in `--nats "$NATS"` another one was meant.
            raise NoCluster("--nats is empty: name a NATS server, nats://host:4222, or leave it out")
        return Found(name, options.settings(environment))
    if options != NatsOptions():
        raise NoCluster(
            "--nats-creds, --nats-nkey, --nats-ca, --nats-cert and --nats-key go with --nats URL; how to reach the "
            "cluster that was started here is known"
        )
    running = running_clusters(environment)
    for found in running:
        if name in (None, found.name):
            return found
    if name is not None and running:
        others = ", ".join(sorted({str(found.name) for found in running}))
        raise NoCluster(f"no cluster {name!r} was started here, only {others}; name its NATS server with --nats")
    raise NoCluster(
        "no cluster runs on this machine: start one with `understudy cluster TARGET`, or name one with "
        "--nats nats://host:4222 --cluster NAME (UNDERSTUDY_NATS, UNDERSTUDY_CLUSTER)"
    )


@contextmanager
def announced(name: str, settings: NatsSettings, environment: Mapping[str, str] = os.environ) -> Generator[None]:
    """While inside, this process's cluster can be found by the same user's other processes.

    The file is readable by its owner alone, since it tells how to log in to NATS. It counts for as long as this process
    holds a lock on it, so that one left behind by `kill -9` means nothing.

    Raises:
        NoCluster: There is no directory for it.
    """
    path = _first_directory(environment) / f"cluster-{os.getpid()}.json"
    said = {
        "format": 1,
        "name": name,
        "nats": nats_url(settings.anywhere()),
        "pid": os.getpid(),
        "started": time.time(),
    }
    try:
        path.unlink(missing_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8")
    except OSError as error:
        raise NoCluster(
            f"{str(path)!r}, which tells other processes of this cluster, cannot be written: {error}"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        json.dump(said, file)
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def running_clusters(environment: Mapping[str, str] = os.environ) -> list[Found]:
    """The clusters that this user's `understudy cluster` commands run now, the last started first.

    What others have left behind is removed.
    """
    # All of them: whoever looks may have another environment (ssh, cron) than whoever started it.
    directories = [directory for directory in _candidates(environment) if not _distrusted(directory)]
    files = [path for directory in directories for path in directory.glob("cluster-*.json")]
    found = [cluster for path in files if (cluster := _read(path)) is not None]
    return sorted(found, key=lambda cluster: cluster.started, reverse=True)


def _read(path: Path) -> Found | None:
    with suppress(OSError), path.open("r+", encoding="utf-8", errors="replace") as file:
        if not _locked_by_another(file):
            path.unlink(missing_ok=True)
            return None
        return _parsed(file.read(MOST_BYTES))
    return None


def _locked_by_another(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _parsed(text: str) -> Found | None:
    try:
        said: Any = json.loads(text)
    except ValueError:
        # It is being written just now.
        return None
    match said:
        case {"format": 1, "name": str(name), "nats": str(url), "pid": int(pid), "started": int() | float()}:
            with suppress(UnderstudyError):
                started = float(cast("dict[str, float]", said)["started"])
                return Found(name, NatsSettings.from_url(url), pid, started)
        case _:
            pass
    return None


def _first_directory(environment: Mapping[str, str]) -> Path:
    refusals: list[str] = []
    for directory in _candidates(environment):
        with suppress(OSError):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        refusal = _distrusted(directory)
        if not refusal:
            return directory
        refusals.append(f"{directory}: {refusal}")
    raise NoCluster(
        f"no place to note which cluster runs here ({'; '.join(refusals)}); set XDG_RUNTIME_DIR to a directory of yours"
    )


def _distrusted(directory: Path) -> str:
    """Why not: somebody else's directory, or link, in a place that all may write to, could name a server of theirs."""
    try:
        status = directory.lstat()
    except OSError as error:
        return error.strerror or "not there"
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        return "not a directory that this user alone may write to"
    return ""


def _candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    # The XDG specification: a relative path there is invalid and to be ignored.
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        yield Path(runtime) / "understudy"
    home = environment.get("XDG_STATE_HOME", "")
    if os.path.isabs(home):
        yield Path(home) / "understudy"
    elif os.path.isabs(environment.get("HOME", "")):
        yield Path(environment["HOME"]) / ".local" / "state" / "understudy"
    yield Path(environment.get("TMPDIR") or tempfile.gettempdir()) / f"understudy-{os.getuid()}"
