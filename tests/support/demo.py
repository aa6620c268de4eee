"""What `understudy demo` prints when all goes well, and what it must not leave behind."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil


def environment(directory: Path) -> dict[str, str]:
    """In which the demo keeps everything in `directory`, and heeds nothing of the developer's."""
    return {**os.environ, "TMPDIR": str(directory), "XDG_RUNTIME_DIR": str(directory), "UNDERSTUDY_PATH": "/elsewhere"}


def assert_the_scene_was_played(out: str) -> None:
    lines = [line for line in out.splitlines() if " ms  " in line]
    assert [line.rpartition(": ")[2] for line in lines if "increment" in line] == ["1, 2, 3", "4"]
    assert [line.rpartition(": ")[2] for line in lines if "client, same session" in line] == ["3"]
    assert any("node-1: 3, node-2: 3, node-3: 3" in line for line in lines)
    assert "kill -9 node-" in out
    assert "calls meanwhile, none failed" in out
    assert "\x1b" not in out


def left_in(directory: Path) -> list[str]:
    return [str(path) for path in directory.rglob("*") if not path.is_dir() or path.name != "understudy"]


def processes_of(directory: Path) -> list[psutil.Process]:
    """Those that were started by a demo whose files are in `directory`, or that was started there: its nodes, its
    nats-server and helpers."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            # What is forked shows the environment of where it comes from.
            if str(directory) in (process.environ().get("TMPDIR"), process.cwd()):
                found.append(process)
    return found
