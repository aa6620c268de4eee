"""A process that the tests' fork server forks is as good as one that the command line starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.fork_client import ForkedProcess, ForkServer, ForkServerError
from support.fork_server import PRELOADED, REDRAWN
from support.forked_process import (
    UNBUFFERED,
    Process,
    await_stop,
    program_of,
    run_process,
    start_process,
)
from support.patience import PATIENCE
from support.server import ROOT, UNDERSTUDY

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the tests' fork server is for Linux")

PACKAGES = """
import understudy.runtime.commands.serve, understudy.runtime.runtime, understudy.runtime.cluster.cluster
import asyncpg, hypercorn.asyncio, nats.js, redis.asyncio, rich.logging, uvloop
"""

WHAT_IT_IS = """
import gc, json, locale, logging, os, resource, signal, sys, tempfile, threading, warnings
from pathlib import Path

def stream(file):
    return [file.encoding, file.errors, file.line_buffering, file.write_through, file.isatty(), file.fileno()]

status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
here = {
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "executable": sys.executable,
    "flags": [sys.flags.dev_mode, sys.flags.utf8_mode, sys.flags.optimize, sys.flags.isolated],
    "name": __name__, "file": __file__, "package": __package__, "main": vars(sys.modules["__main__"]) is globals(),
    "cwd": os.getcwd(), "environment": dict(os.environ),
    "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "descriptors": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in ("0", "1", "2")},
    "others": [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}")],
    "streams": [stream(sys.stdin), stream(sys.stdout), stream(sys.stderr)], "input": sys.stdin.read(),
    "signals": [status["SigBlk"], status["SigIgn"], status["SigCgt"]], "handler": repr(signal.getsignal(signal.SIGINT)),
    "limits": [resource.getrlimit(limit) for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)],
    "umask": status["Umask"], "threads": [threading.active_count(), threading.current_thread() is threading.main_thread()],
    "locale": locale.setlocale(locale.LC_ALL), "temporary": tempfile.gettempdir(),
    "collector": [gc.isenabled(), gc.get_threshold()],
}
of_its_packages = {
    "warnings": repr(warnings.filters), "hooks": [sys.excepthook is sys.__excepthook__, *(getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path)],
    "logging": [repr(logging.getLogger().handlers), logging.getLogger().level, logging.raiseExceptions,
                sorted(name for name, logger in logging.Logger.manager.loggerDict.items() if getattr(logger, "handlers", ())),
                sorted((n, l.level) for n, l in logging.Logger.manager.loggerDict.items() if getattr(l, "level", 0))],
}
print(json.dumps([here, of_its_packages]))
"""  # noqa: E501

DRAWS = """
import json, os, random, secrets, ssl, tempfile, uuid
from understudy.actors.session.disguise import stand_in
from nats.nuid import NUID
print(json.dumps([random.random(), secrets.token_hex(), uuid.uuid4().hex, os.urandom(8).hex(), ssl.RAND_bytes(8).hex(),
                  next(tempfile._get_candidate_names()), stand_in("hidden"), NUID().next().decode()]))
"""

DRAWN_WHILE_LOADING = """
import json, os, random, secrets, sys, uuid

found = set()

def noting(draw):
    def noted(*args):
        frame = sys._getframe(1)
        while frame and frame.f_code.co_name != "<module>":
            frame = frame.f_back
        found.add(frame.f_globals["__name__"])
        return draw(*args)
    return noted

os.urandom = noting(os.urandom)
random._urandom = noting(random._urandom)
uuid.uuid1 = noting(uuid.uuid1)
for name in ("random", "randint", "randrange", "getrandbits", "choice", "shuffle"):
    setattr(random, name, noting(getattr(random, name)))
sys.path.insert(0, sys.argv[1])
import support.fork_server
support.fork_server.preload()
print(json.dumps(sorted(found)))
"""

HARMLESS = {
    "multiprocessing.process": "the word by which the processes of a pool know each other; a node has no pool",
    "opentelemetry.baggage": "names of variables within one process",
    "opentelemetry.context": "names of variables within one process",
    "opentelemetry.trace.propagation": "names of variables within one process",
    "rich.style": "names of links on a terminal",
}
"""What modules draw that two processes may have in common."""


class Started:
    """A Python program that was started, and what it has printed."""

    def __init__(self, process: Process, output: Path) -> None:
        self.process = process
        self.output = output

    def said(self) -> str:
        """All of it, at its end."""
        self.process.wait(PATIENCE)
        return self.output.read_text()

    def begun(self) -> None:
        """Return when it has said something."""
        until = time.monotonic() + PATIENCE
        while not self.output.read_bytes():
            assert time.monotonic() < until, "nothing was said"
            assert self.process.poll() is None, "it has ended"
            time.sleep(0.01)


Start = Callable[..., Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts Python code from a file, in its folder; what still runs at the end of the test is killed."""
    started: list[Started] = []

    def begin(code: str, *before: str, fresh: bool = False, cwd: Path = tmp_path, **env: str) -> Started:
        program = tmp_path / "program.py"
        if not program.exists() or program.read_text() != code:
            # Else what was started last may be about to read it.
            program.write_text(code)
        command = [sys.executable, *(before or ["program.py"]), "an argument"]
        output = tmp_path / f"{len(started)}.txt"
        with output.open("ab") as file:
            process = start_process(command, cwd=cwd, env=environment(**env), output=file, fresh=fresh)
        started.append(Started(process, output))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait(PATIENCE)


@pytest.fixture(autouse=True)
def forks(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--fresh-starts"):
        pytest.skip("none is forked")


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("UNDERSTUDY_")} | UNBUFFERED | more


@pytest.mark.parametrize("words", [["program.py"], ["-P", "program.py"], ["-m", "program"]])
def test_it_is_in_all_that_it_can_see_of_itself_what_the_command_line_starts(start: Start, words: Sequence[str]):
    code = WHAT_IT_IS if "-m" in words or "-P" in words else PACKAGES + WHAT_IT_IS
    forked = start(code, *words, UNDERSTUDY_COLOUR="blue")
    fresh = start(code, *words, fresh=True, UNDERSTUDY_COLOUR="blue")
    assert isinstance(forked.process, ForkedProcess)
    assert isinstance(fresh.process, subprocess.Popen)
    seen, seen_of_packages = json.loads(forked.said())
    expected, expected_of_packages = json.loads(fresh.said())
    for one, run in ((seen, forked), (expected, fresh)):
        assert one["descriptors"].pop("1") == one["descriptors"].pop("2") == str(run.output)
    assert seen == expected
    assert seen["environment"]["UNDERSTUDY_COLOUR"] == "blue"
    assert (seen["others"], seen["leads"]) == ([], [True, True])
    if code != WHAT_IT_IS:
        assert seen_of_packages == expected_of_packages


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_it_ignores_the_signals_that_are_ignored_where_it_is_started(start: Start, handler: signal.Handlers):
    """Which changes from test to test: a test that starts in the background has SIGINT ignored until one handles it."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1)
    code = f"import signal; print(*(signal.getsignal(number) for number in {[*map(int, numbers)]}))"
    before = [signal.signal(number, handler) for number in numbers]
    try:
        forked, fresh = start(code), start(code, fresh=True)
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)
    assert isinstance(forked.process, ForkedProcess)
    assert forked.said() == fresh.said()
    assert (str(signal.SIG_IGN) in forked.said()) == (handler == signal.SIG_IGN)


def test_no_two_draw_the_same(start: Start):
    first, second = (json.loads(start(DRAWS).said()) for _ in range(2))
    assert len(first) == len(second) == 8
    assert not set(first) & set(second)


def test_nothing_else_is_drawn_by_lot_while_the_packages_load():
    command = [sys.executable, "-c", DRAWN_WHILE_LOADING, str(ROOT / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert set(json.loads(done.stdout)) - HARMLESS.keys() == {module for module, _ in REDRAWN}


def test_only_libraries_and_the_node_are_loaded_beforehand_and_nothing_that_a_test_serves():
    assert not [name for name in PRELOADED if name.startswith(("understudy.runtime.demo", "tests"))]


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        ("print('end')", 0, "end"),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('because')", 1, "because"),
        ("raise ValueError('spoilt')", 1, "ValueError: spoilt"),
        ("import os; os._exit(7)", 7, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
        (
            # What is started in the background may inherit that it is ignored.
            "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
            "os.kill(os.getpid(), signal.SIGINT)",
            -signal.SIGINT,
            "KeyboardInterrupt",
        ),
        ("import atexit; atexit.register(print, 'left')", 0, "left"),
        (
            "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('last'))).start()",
            0,
            "last",
        ),
    ],
)
def test_it_ends_as_any_program_does(start: Start, code: str, exit_code: int, words: str):
    program = start(code)
    assert words in program.said()
    assert isinstance(program.process, ForkedProcess)
    assert (program.process.wait(), program.process.poll(), program.process.returncode) == (exit_code,) * 3


def test_it_can_be_killed_with_its_children_and_is_gone_at_once(start: Start):
    child = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid); time.sleep(60)"
    program = start(child)
    program.begun()
    with pytest.raises(subprocess.TimeoutExpired):
        program.process.wait(0.01)
    os.killpg(program.process.pid, signal.SIGKILL)
    assert program.process.wait(PATIENCE) == -signal.SIGKILL
    assert not Path(f"/proc/{program.process.pid}").exists()
    assert ended(int(program.said()))


def test_it_stands_still_and_goes_on(start: Start):
    program = start("import time; print('here'); time.sleep(60)")
    program.begun()
    os.kill(program.process.pid, signal.SIGSTOP)
    await_stop(program.process)
    assert state(program.process.pid) == "T"
    assert program.process.poll() is None
    os.kill(program.process.pid, signal.SIGCONT)
    os.kill(program.process.pid, signal.SIGTERM)
    assert program.process.wait(PATIENCE) == -signal.SIGTERM


@pytest.mark.parametrize("variable", ["PYTHONHASHSEED", "PYTHONWARNINGS", "LC_ALL", "SOMETHING_ELSE"])
def test_an_environment_that_may_matter_at_the_start_gets_a_fresh_one(start: Start, variable: str):
    program = start(f"import os; print(os.environ[{variable!r}])", **{variable: "0"})
    assert isinstance(program.process, subprocess.Popen)
    assert "0" in program.said()


def test_it_is_forked_for_nodes_and_not_for_other_programs():
    assert program_of([*UNDERSTUDY, "demo"], ROOT) is not None
    for command in (["/bin/sleep", "1"], [sys.executable], [sys.executable, "-c", "1"], [sys.executable, "-I", "a.py"]):
        assert program_of(command, ROOT) is None


async def test_a_command_is_run_to_its_end_with_what_it_says_on_each_stream(tmp_path: Path):
    (tmp_path / "program.py").write_text("import sys; print('out'); print('err', file=sys.stderr); sys.exit(4)")
    command = [sys.executable, "program.py"]
    assert await run_process(command, cwd=tmp_path, env=environment()) == (4, "out\n", "err\n")


def test_a_folder_that_is_not_there_is_refused_and_the_next_start_works(start: Start, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        start("", cwd=tmp_path / "nowhere")
    assert start("print('here')").said() == "here\n"


def test_that_the_server_has_ended_is_said_and_its_children_are_not_waited_for_in_vain(tmp_path: Path):
    script = tmp_path / "waiting.py"
    script.write_text("import time; time.sleep(60)")
    command = [sys.executable, str(script)]
    program = program_of(command, ROOT)
    assert program is not None
    with closing(ForkServer(environment(), preloaded=())) as server, tempfile.TemporaryFile() as output:
        process = server.fork(command, program, ROOT, environment(), output)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ForkServerError, match=rf"how process {process.pid} ended is lost .*\(exit code -9\)"):
            process.wait(PATIENCE)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ForkServerError, match="exit code -9"):
            server.fork(command, program, ROOT, environment(), output)
        assert not server.running


def test_nothing_that_was_forked_outlives_the_tests(tmp_path: Path):
    script = tmp_path / "waiting.py"
    script.write_text("import time; time.sleep(60)")
    parent = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.forked_process import ForkServer, program_of
server = ForkServer(os.environ, preloaded=())
command = [sys.executable, sys.argv[2]]
with open(os.devnull, "ab") as output:
    process = server.fork(command, program_of(command, Path.cwd()), Path.cwd(), os.environ, output)
print(process.pid, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", parent, str(ROOT / "tests"), str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        assert state(pid) in ("R", "S")
        tests.kill()
    until = time.monotonic() + PATIENCE
    while not ended(pid):
        assert time.monotonic() < until, f"process {pid} lives on"
        time.sleep(0.01)


def ended(pid: int) -> bool:
    return state(pid) in ("", "Z")


def state(pid: int) -> Any:
    """The kernel's letter for it; nothing if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""
