"""What a `Popen` is for who has started it, the fork of one is too."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.forked_popen import ForkedPopen, forked_popen
from support.forked_process import shared_fork_server
from support.patience import PATIENCE

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the tests' fork server is for Linux")

FAMILY = """
import os
mine = [fd for fd in sorted(map(int, os.listdir("/proc/self/fd"))) if os.path.exists(f"/proc/self/fd/{fd}")]
print(os.getppid(), os.getsid(0) == os.getpid(), mine)
"""
ECHO = "import sys; print(sys.argv[1:], sys.stdin.readline(), end='', file=sys.stderr); sys.exit(3)"
SUPERVISOR = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "child.py"], stdout=subprocess.PIPE, text=True)
said, _ = child.communicate()
with open(f"/proc/self/task/{os.getpid()}/children") as children:
    print(type(child).__name__, child.wait() == 0 and said == f"{os.getpid()}\\n", *children.read().split(), flush=True)
time.sleep(60)
"""
ASLEEP = "import time; print('here'); time.sleep(60)"


@pytest.fixture(autouse=True)
def forks(pytestconfig: pytest.Config, processes_are_forked: None) -> None:
    if pytestconfig.getoption("--fresh-starts"):
        pytest.skip("none is forked")


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "program.py"


def command(program: Path, code: str, *words: str) -> list[str]:
    program.write_text(code)
    return [sys.executable, program.name, *words]


def test_it_is_a_child_of_who_has_started_it_with_what_it_was_given_and_nothing_else(program: Path) -> None:
    passed, other = os.pipe()
    with subprocess.Popen(command(program, FAMILY), stdout=subprocess.PIPE, pass_fds=[passed]) as process:
        assert type(process) is ForkedPopen
        said, _ = process.communicate(timeout=PATIENCE)
    os.close(passed)
    os.close(other)
    assert said.decode().split(maxsplit=2) == [str(os.getpid()), "True", f"{[0, 1, 2, passed]}\n"]
    assert process.returncode == 0


def test_what_it_was_given_has_its_number_even_where_others_change_theirs(program: Path) -> None:
    pipes = [os.pipe() for _ in range(8)]
    code = "import os, sys; [os.write(int(number), number.encode()) for number in sys.argv[1:]]"
    numbers = [writing for _, writing in reversed(pipes)]
    subprocess.Popen(command(program, code, *map(str, numbers)), pass_fds=numbers).wait(PATIENCE)
    for reading, writing in pipes:
        os.close(writing)
        assert os.read(reading, 16) == str(writing).encode()
        os.close(reading)


async def test_asyncio_talks_with_it_and_learns_how_it_ended(program: Path) -> None:
    pipe = asyncio.subprocess.PIPE
    words = command(program, ECHO, "a", "b c")
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(PATIENCE):
        assert await process.communicate(b"line\n") == (b"", b"['a', 'b c'] line\n")
    assert process.returncode == 3


def test_it_is_stopped_and_killed_by_its_number(program: Path) -> None:
    with subprocess.Popen(command(program, ASLEEP), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        os.kill(process.pid, signal.SIGSTOP)
        stopped = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert stopped is not None
        assert stopped.si_status == signal.SIGSTOP
        assert process.poll() is None
        process.kill()
        assert process.wait(PATIENCE) == -signal.SIGKILL


def test_a_folder_that_is_not_there_is_refused_as_by_any(program: Path) -> None:
    words = command(program, "")
    with pytest.raises(FileNotFoundError):
        subprocess.Popen([sys.executable, str(program.resolve())], cwd=program.parent / "nowhere")
    assert subprocess.run(words, check=True).returncode == 0


@pytest.mark.parametrize("words", [["/bin/echo", "here"], [sys.executable, "-c", "print('here')"]])
def test_any_other_program_is_started_as_ever(words: list[str]) -> None:
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        said, _ = process.communicate(timeout=PATIENCE)
        assert (said, process.returncode) == (b"here\n", 0)


def test_who_loses_its_father_later_is_not_our_child(program: Path) -> None:
    grandchild = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {ASLEEP!r}]).pid)"
    with subprocess.Popen(command(program, grandchild), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert process.wait(PATIENCE) == 0
    try:
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        assert int(parent) != os.getpid()
    finally:
        os.kill(pid, signal.SIGKILL)


def test_the_fork_server_keeps_nothing_of_what_it_has_made(program: Path) -> None:
    server = shared_fork_server()
    assert server is not None
    words = command(program, "")
    before = os.listdir(f"/proc/{server.pid}/fd")
    for _ in range(3):
        subprocess.run(words, stdin=subprocess.PIPE, capture_output=True, check=True)
    assert os.listdir(f"/proc/{server.pid}/fd") == before
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    assert not [pid for pid in children if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]]


def test_what_a_supervisor_starts_is_forked_too_and_nothing_of_it_stays(program: Path) -> None:
    program.with_name("child.py").write_text("import os; print(os.getppid())")
    words = command(program, SUPERVISOR)
    with forked_popen(supervises=True), subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        kind, as_it_should_be, *helpers = process.stdout.readline().decode().split()
        process.kill()
    assert (kind, as_it_should_be, len(helpers)) == ("ForkedPopen", "True", 1)
    until = time.monotonic() + PATIENCE
    while Path(f"/proc/{helpers[0]}").exists():
        assert time.monotonic() < until, "its fork server lives on"
        time.sleep(0.01)
