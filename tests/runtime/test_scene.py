"""`understudy demo`: the scene plays, says so, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from understudy.runtime import scene, stage

PATIENCE = 40.0


async def demo(directory: Path, *args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "understudy.runtime",
        "demo",
        *args,
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def test_the_scene_ends_well_and_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    process = await demo(tmp_path, "--exit")
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, out + err
    assert err == b""
    lines = [line for line in out.decode().splitlines() if " ms  " in line]
    assert [line.rpartition(": ")[2] for line in lines if "increment" in line] == ["1, 2, 3", "4"]
    assert [line.rpartition(": ")[2] for line in lines if "count" in line] == ["3"]
    assert "kill -9" in out.decode()
    assert b"\x1b" not in out
    assert os.listdir(tmp_path) == []
    assert not servers_in(tmp_path)


async def test_it_serves_on_until_interrupted(tmp_path: Path) -> None:
    process = await demo(tmp_path)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        while b"Still serving http://127.0.0.1:" not in (line := await process.stdout.readline()):
            assert line, await process.communicate()
        assert servers_in(tmp_path)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert os.listdir(tmp_path) == []
    assert not servers_in(tmp_path)


async def test_a_server_does_not_outlive_a_demo_that_is_killed(tmp_path: Path) -> None:
    process = await demo(tmp_path)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        await process.stdout.readuntil(b"open a session")
        (server,) = servers_in(tmp_path)
        process.kill()
        await process.communicate()
        await asyncio.to_thread(server.wait, PATIENCE)


async def test_a_failed_step_is_said_with_the_servers_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "TARGET", "understudy.runtime.demo:sever")
    out = io.StringIO()
    assert await scene.play(stay=False, out=out) == 1
    assert "FAILED: start a server" in out.getvalue()
    assert "has no attribute 'sever'; did you mean 'server'?" in out.getvalue()


def servers_in(directory: Path) -> list[psutil.Process]:
    """The servers whose store is in `directory`."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if " serve " in command and str(directory) in command:
            found.append(process)
    return found
