"""`SQLiteStore` across processes: killed writers, rivals on one file, a disk that says no."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from understudy.stores import Address, SQLiteStore

SESSIONS = 20

# Saves as fast as it can in twenty sessions, and says of each save that it was acknowledged, with one write(2).
WRITER = """
import asyncio, os, sys
from understudy.stores import Address, RecordNotFound, SQLiteStore

async def session(store, address):
    try:
        record = await store.claim(address, owner="writer")
    except RecordNotFound:
        record = await store.create(address, tenant="acme", owner="writer", snapshot=b"1", ttl=3600.0)
    version = record.version
    while True:
        version += 1
        await store.save(address, epoch=record.epoch, version=version, snapshot=b"%d" % version, ttl=3600.0)
        os.write(1, b"%s %d\\n" % (address.id.encode(), version))

async def main():
    store = await SQLiteStore.open(sys.argv[1])
    async with asyncio.TaskGroup() as group:
        for n in range(int(sys.argv[2])):
            group.create_task(session(store, Address("session", f"s{n}")))

asyncio.run(main())
"""

# Counts up in one record by claim and save; says how often it was acknowledged.
RIVAL = """
import asyncio, sys, time
from understudy.stores import Address, RecordExists, SQLiteStore, StaleEpoch

async def main():
    time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
    store = await SQLiteStore.open(sys.argv[1], busy_timeout=30.0)
    address = Address("session", "shared")
    try:
        await store.create(address, tenant="acme", owner="rival", snapshot=b"0", ttl=3600.0)
    except RecordExists:
        pass
    acknowledged = 0
    for _ in range(100):
        record = await store.claim(address, owner="rival")
        count = b"%d" % (int(record.snapshot) + 1)
        try:
            await store.save(address, epoch=record.epoch, version=record.version + 1, snapshot=count, ttl=3600.0)
        except StaleEpoch:
            continue
        acknowledged += 1
    await store.aclose()
    print(acknowledged)

asyncio.run(main())
"""

# Runs into the limit of a file's size, which the kernel answers with an error as a broken disk does.
LIMITED = """
import asyncio, resource, signal, sys
from understudy.stores import Address, SQLiteStore, StoreUnavailable

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = await SQLiteStore.open(sys.argv[1])
    address = Address("session", "a")
    await store.create(address, tenant="acme", owner="n", snapshot=b"1", ttl=3600.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    for attempt in (store.save(address, epoch=1, version=2, snapshot=b"x" * 500_000, ttl=60.0), store.ping()):
        try:
            await attempt
            print("done")
        except StoreUnavailable as error:
            print(error.outcome_unknown, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await store.ping()
    await store.save(address, epoch=1, version=2, snapshot=b"x" * 500_000, ttl=60.0)
    record = await store.claim(address, owner="n")
    print(record.version, len(record.snapshot))
    await store.aclose()

asyncio.run(main())
"""


async def test_after_kill_9_under_load_every_acknowledged_save_is_there(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    acknowledged: dict[str, int] = {}
    for _ in range(3):
        saves = _saves_until_killed(path, acknowledged)
        assert saves >= 1_000, "the writer ended by itself"
        store = await SQLiteStore.open(path)
        for id, version in acknowledged.items():
            record = await store.load(Address("session", id))
            assert record is not None
            assert record.snapshot == b"%d" % record.version
            # At most one save of a session was on its way when its writer died.
            assert version <= record.version <= version + 1
        await store.aclose()


async def test_rivals_in_several_processes_that_open_a_new_file_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    start = str(time.time() + 0.7)
    rivals = [
        await asyncio.create_subprocess_exec(*_python(RIVAL, path, start), stdout=-1, stderr=-1) for _ in range(3)
    ]
    outputs = [await rival.communicate() for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0, 0, 0], outputs
    acknowledged = sum(int(out) for out, _ in outputs)
    store = await SQLiteStore.open(path)
    record = await store.load(Address("session", "shared"))
    await store.aclose()
    assert record is not None
    assert (record.snapshot, record.version) == (b"%d" % acknowledged, acknowledged + 1)
    assert record.epoch == 1 + 3 * 100


def test_a_disk_that_fails_is_unavailable_and_when_it_is_well_again_the_save_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    done = subprocess.run(_python(LIMITED, path), capture_output=True, text=True, check=True, timeout=30)
    save, ping, after = done.stdout.splitlines()
    assert re.match(rf"True {path} cannot be read or written: the disk reports an error", save)
    assert ping == "done" or str(path) in ping
    assert after == "2 500000"


def _python(program: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", program, *map(str, arguments)]


def _saves_until_killed(path: Path, acknowledged: dict[str, int]) -> int:
    with subprocess.Popen(_python(WRITER, path, SESSIONS), stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        saves = 0
        for line in writer.stdout:
            id, version = line.decode().split()
            assert int(version) > acknowledged.get(id, 0)
            acknowledged[id] = int(version)
            saves += 1
            if saves == 1_000:  # what else it acknowledges before it dies is still read here
                writer.send_signal(signal.SIGKILL)
        return saves
