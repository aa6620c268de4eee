"""What a noisy tenant costs another over real HTTP, in processor time of the node alone: `bench noisy --http`.

Clients in processes of their own take the processor from the node that they measure, where there are not as many cores
as processes. Here they take none of its time: they write to and read from real sockets between two passes of the node's
event loop, while its clock stands still. That clock is the processor time of the passes, so it goes on as time does on
a core that is the node's alone, and it does not matter who else is busy on the machine.
"""

from __future__ import annotations

import asyncio
import gc
import random
import select
import socket
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..runtime import Runtime
from ..runtime.commands.http_servers import HTTP_SERVERS
from .asgi import ASGIApp, Refused
from .clients import HANDSHAKE_VERSION, HEADERS, INITIALIZE, INITIALIZED, PreparedCall
from .measure import Effort, Progress
from .noise import TIMES
from .noisy_loop import by_name
from .quantiles import Latencies, scenario
from .report import Scenario
from .servers import ARGUMENTS, TOOL, ten_tools

__all__ = ["noisy_http"]

HTTP = "uvicorn"
CALLS = 150
"""Calls of the quiet tenant in a slice."""
SLICES = 2
LATE = 0.1
"""Seconds of offers that are made up for, if a pass took so long."""
BARE = "an app that answers at once, with no queue"
SIDES: tuple[tuple[str, Literal["equal", "off"] | None], ...] = (
    (BARE, None),
    ("first come, first served", "off"),
    ("fair queues", "equal"),
)
_BODY = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"5"}],"isError":false}}'


@dataclass(frozen=True, slots=True)
class _Noise:
    share: float
    """Calls a second of the quiet tenant."""
    connections: int
    closed: bool = False
    """Each connection makes one call after the other; otherwise `TIMES` the share is offered, whatever comes of it."""
    judged: bool = True


NOISES = (
    _Noise(20.0, TIMES, closed=True),
    _Noise(20.0, 200),
    # Close to all that a node serves on this kind of machine: shown, and not judged, as no queue can help there.
    _Noise(50.0, 500, judged=False),
)


async def noisy_http(effort: Effort, progress: Progress) -> list[Scenario]:
    """Measure, in a thread with an event loop of its own.

    Raises:
        Refused: A call of the quiet tenant failed.
    """

    def measure() -> list[Scenario]:
        with asyncio.Runner(loop_factory=_DrivenLoop) as runner:
            return runner.run(_measure(effort, progress))

    return await asyncio.to_thread(measure)


async def _measure(effort: Effort, progress: Progress) -> list[Scenario]:
    scenarios: list[Scenario] = []
    for noise in NOISES:
        connections = 5 if effort.quick else noise.connections
        async with AsyncExitStack() as stack:
            sides = [await stack.enter_async_context(_side(name, kind, connections)) for name, kind in SIDES]
            # As `understudy serve` does: otherwise each full collection walks all that start-up has made.
            gc.collect()
            gc.freeze()
            stack.callback(gc.unfreeze)
            for number in range(effort.rounds):
                progress(f"{_title(noise)}: round {number + 1}/{effort.rounds}")
                for side in sides:
                    side.latencies.begin_round()
                for cut in range(1 if effort.quick else SLICES):
                    for place in range(len(sides)):
                        side = sides[(place + number + cut) % len(sides)]
                        await side.slice(noise, 3 if effort.quick else CALLS)
        scenarios.append(scenario(_title(noise), [side.latencies for side in sides], judged=noise.judged))
    return scenarios


def _title(noise: _Noise) -> str:
    crowd = f"{TIMES} times its connections" if noise.closed else f"{TIMES} times its calls, over {noise.connections}"
    return f"{HTTP}, processor time of the node: {noise.share:.0f} calls a second beside a tenant of {crowd}"


class _DrivenLoop(asyncio.SelectorEventLoop):
    """Lets clients act between its passes, and counts the processor time of the passes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.between: Callable[[], None] | None = None
        self.worked = 0.0

    def _run_once(self) -> None:
        base: Any = super()
        if self.between is None:
            base._run_once()
            return
        self.between()
        began = time.thread_time()
        base._run_once()
        self.worked += time.thread_time() - began


class _Connection:
    """Of a client: one request at a time."""

    def __init__(self, path: str, tenant: str) -> None:
        self._path = path
        self.socket = self._connect()
        self.status = 0
        self._headers = {**HEADERS, "authorization": tenant, "host": "127.0.0.1:8000"}
        self._call = PreparedCall(TOOL, ARGUMENTS)
        self._read = b""

    def _connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(self._path)
        made.setblocking(False)
        return made

    def revive(self) -> None:
        """Connect again if the node has closed it because nothing came for long. While nothing is under way."""
        try:
            if not self.socket.recv(1, socket.MSG_PEEK):
                self.socket.close()
                self.socket = self._connect()
        except BlockingIOError:
            return

    def close(self) -> None:
        self.socket.close()

    def call(self) -> None:
        """Send one."""
        self._send(self._call.body())

    def _send(self, body: bytes) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in self._headers.items())
        self.socket.send(f"POST /mcp HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body)

    def answered(self) -> bool:
        """Whether the answer is there, whose `status` is then known.

        Raises:
            Refused: The connection is closed.
        """
        try:
            read = self.socket.recv(65536)
        except BlockingIOError:
            return False
        if not read:
            raise Refused("the node has closed a connection with a call under way")
        self._read += read
        head, end, body = self._read.partition(b"\r\n\r\n")
        if not end or len(body) < int(_line(head, b"content-length") or b"0"):
            return False
        self.status = int(head[9:12])
        self._read = b""
        session = _line(head, b"mcp-session-id")
        if session is not None:
            self._headers |= {"mcp-session-id": session.decode(), "mcp-protocol-version": HANDSHAKE_VERSION}
        return True

    async def open(self) -> None:
        """Open a session."""
        for body in (INITIALIZE, INITIALIZED):
            self._send(body)
            while not self.answered():  # noqa: ASYNC110 - no reader of the loop that is measured
                await asyncio.sleep(0.001)
            if self.status >= 300:
                raise Refused(f"a session was not opened: status {self.status}")


def _line(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        found, _, value = line.partition(b":")
        if found.lower() == name:
            return value.strip()
    return None


class _Turn:
    """One tenant, or two, for so many calls of the quiet one."""

    def __init__(self, loop: _DrivenLoop, quiet: _Connection, noisy: list[_Connection], calls: int) -> None:
        self.took: list[float] = []
        self.answered = 0
        self.over = loop.create_future()
        self._loop = loop
        self._quiet = quiet
        self._calls = calls
        self._sent: float | None = None
        self._idle = deque(noisy)
        self._busy = select.epoll()
        self._by_socket = {each.socket.fileno(): each for each in noisy}
        for number in self._by_socket:
            self._busy.register(number, select.EPOLLIN)
        self._count = len(noisy)
        self._noise: _Noise | None = None
        self._pause = 0.0
        self._due = self._offer = 0.0

    async def run(self, noise: _Noise | None, pause: float) -> None:
        """`pause`: seconds between two calls of the quiet tenant, on average."""
        loop = self._loop
        self._noise, self._pause = noise, pause
        self._offer = loop.worked
        # A crowd that all begin at the same moment is this benchmark's doing.
        self._due = loop.worked + pause + (0.05 if noise is not None else 0.0)
        loop.between = self._between
        try:
            while not self.over.done():  # noqa: ASYNC110 - a loop that waits would stop the clock
                await asyncio.sleep(0)
            for _ in range(100_000):
                if len(self._idle) == self._count:
                    break
                await asyncio.sleep(0)
        finally:
            loop.between = None
            self._busy.close()

    def _between(self) -> None:
        now = self._loop.worked
        if self._sent is not None and self._quiet.answered():
            if self._quiet.status != 200:
                self._end(Refused(f"a call of the quiet tenant failed with status {self._quiet.status}"))
            self.took.append(now - self._sent)
            self._sent, self._due = None, now + random.expovariate(1 / self._pause)
            if len(self.took) >= self._calls:
                self._end(None)
        for number, _ in self._busy.poll(0):
            caller = self._by_socket[number]
            if caller.answered():
                self.answered += caller.status == 200
                self._idle.append(caller)
        if self.over.done():
            return
        if self._sent is None and now >= self._due:
            self._sent = now
            self._quiet.call()
        noise = self._noise
        if noise is None:
            return
        if noise.closed:
            while self._idle:
                self._idle.popleft().call()
            return
        self._offer = max(self._offer, now - LATE)
        while self._offer <= now:
            self._offer += 1 / (TIMES * noise.share)
            if self._idle:
                self._idle.popleft().call()

    def _end(self, error: Refused | None) -> None:
        if self.over.done():
            return
        if error is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(error)


class _Side:
    """One node, its quiet tenant and its noisy one."""

    def __init__(self, name: str, quiet: _Connection, noisy: list[_Connection]) -> None:
        self.latencies = Latencies(name)
        self._quiet = quiet
        self._noisy = noisy

    async def slice(self, noise: _Noise, calls: int) -> None:
        """A turn alone, and one beside the noisy tenant."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _DrivenLoop)
        for each in (self._quiet, *self._noisy):
            each.revive()
        # That a node notices what has just connected is not what is measured.
        await asyncio.sleep(0.05)
        # Faster than its share would have it: so much of the node's time is nobody's, and the figures are the same.
        alone = _Turn(loop, self._quiet, [], calls)
        await alone.run(None, 0.002)
        alone.over.result()
        self.latencies.alone[-1] += alone.took
        beside = _Turn(loop, self._quiet, self._noisy, calls)
        began = loop.worked
        await beside.run(noise, 0.005)
        beside.over.result()
        self.latencies.beside[-1] += beside.took
        self.latencies.noisy_calls[-1].append(beside.answered / (loop.worked - began))


@asynccontextmanager
async def _side(name: str, fairness: Literal["equal", "off"] | None, connections: int) -> AsyncGenerator[_Side]:
    async with AsyncExitStack() as stack:
        app: ASGIApp = _bare
        if fairness is not None:
            runtime = Runtime(ten_tools(sessions=True), tenants=by_name, fairness=fairness)
            app = (await stack.enter_async_context(runtime)).app
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="understudy-bench-"))
        path = str(Path(folder) / "node")
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(path)
        listening.listen(1024)
        listening.setblocking(False)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(HTTP_SERVERS[HTTP](app, listening, None, stop))
            with ExitStack() as connected:
                # The server stops by itself then, as nobody is connected any more.
                connected.callback(stop.set)
                quiet = _connect(connected, path, "quiet")
                noisy = [_connect(connected, path, "noisy") for _ in range(connections)]
                async with asyncio.timeout(30):
                    for each in (quiet, *noisy):
                        await each.open()
                yield _Side(name, quiet, noisy)


def _connect(stack: ExitStack, path: str, tenant: str) -> _Connection:
    made = _Connection(path, tenant)
    stack.callback(made.close)
    return made


async def _bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]
    headers.append((b"mcp-session-id", b"none"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})
