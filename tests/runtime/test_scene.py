"""`understudy demo`: the scene plays, says so, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.demo import assert_the_scene_was_played, environment, left_in, processes_of
from support.forked_popen import forked_popen
from support.patience import PATIENCE
from understudy.runtime.commands import scene, stage


@pytest.fixture(autouse=True)
def processes_and_theirs_are_forked() -> Iterator[None]:
    """README's own test starts the demo as its reader does."""
    with forked_popen(supervises=True):
        yield


async def demo(directory: Path, *args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "understudy.runtime",
        "demo",
        *args,
        cwd=directory,
        env=environment(directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def test_the_scene_ends_well_and_it_serves_on_until_interrupted_and_leaves_no_process_and_no_file(
    tmp_path: Path,
) -> None:
    # That it ends by itself with --exit, and leaves nothing either, tests/readme shows.
    process = await demo(tmp_path)
    assert process.stdout is not None
    out = b""
    async with asyncio.timeout(PATIENCE):
        while b"Still serving" not in (line := await process.stdout.readline()):
            assert line, (out, await process.communicate())
            out += line
        assert line.count(b"http://127.0.0.1:") == 3
        assert processes_of(tmp_path)
        seen = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "understudy.runtime", "nodes", env=environment(tmp_path), stdout=subprocess.PIPE
        )
        nodes, _ = await seen.communicate()
        assert [line.split()[:2] for line in nodes.decode().splitlines()[1:]] == [
            ["node-1", "up"],
            ["node-2", "up"],
            ["node-3", "up"],
        ]
        process.send_signal(signal.SIGINT)
        rest, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert_the_scene_was_played(out.decode())
    assert b"\x1b" not in out + line + rest
    assert left_in(tmp_path) == []
    assert not processes_of(tmp_path)


async def test_nothing_outlives_a_demo_that_is_killed(tmp_path: Path) -> None:
    process = await demo(tmp_path)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        await process.stdout.readuntil(b"open a session")
        running = processes_of(tmp_path)
        assert len(running) >= 4
        process.kill()
        await process.communicate()
        for one in running:
            await asyncio.to_thread(one.wait, PATIENCE)
    # But for the note of which cluster runs here, which counts for nothing without the process that holds its lock.
    assert [Path(path).suffix for path in left_in(tmp_path)] == [".json"]


async def test_a_failed_step_is_said_with_the_nodes_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stage, "TARGET", "understudy.runtime.demo:sever")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    out = io.StringIO()
    assert await scene.play(stay=False, out=out) == 1
    assert "FAILED: start three nodes" in out.getvalue()
    assert "has no attribute 'sever'; did you mean 'server'?" in out.getvalue()
    assert left_in(tmp_path) == []
