"""`understudy demo`: a session that outlives its server process, played step by step."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO, cast

import anyio
from mcp.client import Client
from mcp_types import CallToolResult

from .serve import bind
from .stage import HOST, SceneError, Stage

__all__ = ["play"]

STEP_DEADLINE = 30.0
"""Seconds one step may take before the demo says that it failed."""

FACT = "the show must go on"


class Shown(NamedTuple):
    """What a step found, and how to say it in a few words."""

    value: Any
    words: str


async def play(*, port: int = 0, stay: bool = True, out: TextIO | None = None) -> int:
    """Play the scene, then (with `stay`) serve until Ctrl-C. Exit code: 0, 1 if a step failed, 130 if interrupted.

    Starts server processes and makes a temporary directory, and leaves neither behind.
    """
    say = Narrator(out or sys.stdout)
    if port == 0:
        with bind(HOST, 0) as probe:
            port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="understudy-demo-") as directory, Stage(Path(directory), port) as stage:
        try:
            async with _until_interrupted() as interrupted:
                say.title("understudy demo: one conversation, two processes")
                await perform(stage, say)
                if stay:
                    say.line(f"Still serving {stage.url} (connect any MCP client; Ctrl-C ends it)")
                    await stage.watch()
            if interrupted() and not say.ended:
                say.line("interrupted")
                return 130
        except SceneError as error:
            say.failed(str(error), stage.last_words())
            return 1
    return 0


async def perform(stage: Stage, say: Narrator) -> None:
    """The scene itself.

    Raises:
        SceneError: A step failed, took too long, or showed that something was lost.
    """
    try:
        await say.step("start a server that keeps sessions in a SQLite file", lambda: start(stage))
        async with Client(stage.url, mode="legacy", read_timeout_seconds=STEP_DEADLINE) as client:
            before = (await say.step("open a session with the SDK's client", lambda: whoami(client))).value
            await say.step("increment, three times", lambda: increments(client, 3))
            await say.step(f"remember {FACT!r}", lambda: call(client, "remember", fact=FACT))
            await say.step("kill -9 the server", lambda: kill(stage))
            await say.step("start another on the same file", lambda: start(stage))
            await say.step("same client, same session: count", lambda: expect(client, "count", 3))
            await say.step("recall", lambda: expect(client, "recall", [FACT]))
            await say.step("and on it goes: increment", lambda: expect(client, "increment", 4))
            after = await say.step("still the same session, elsewhere", lambda: whoami(client))
            if after.value["session"] != before["session"]:
                raise SceneError(f"the session changed from {before['session']} to {after.value['session']}")
        say.end("Nothing was lost: the session outlived its process.")
    except* SceneError as group:
        raise _first(group) from None
    except* Exception as group:
        error = _first(group)
        raise SceneError(f"{type(error).__name__}: {error}") from error


async def start(stage: Stage) -> Shown:
    pid = await stage.raise_curtain()
    return Shown(pid, f"process {pid} at {stage.url}")


async def kill(stage: Stage) -> Shown:
    pid = stage.kill()
    return Shown(pid, f"process {pid} is gone")


async def whoami(client: Client) -> Shown:
    value = await call(client, "whoami")
    where = value.value
    return Shown(where, f"session {where['session'][:8]}... of tenant {where['tenant']} at node {where['node']}")


async def increments(client: Client, times: int) -> Shown:
    counts = [(await call(client, "increment")).value for _ in range(times)]
    if counts != list(range(1, times + 1)):
        raise SceneError(f"increments gave {counts}, not 1 to {times}")
    return Shown(counts, ", ".join(str(count) for count in counts))


async def expect(client: Client, tool: str, wanted: Any) -> Shown:
    found = await call(client, tool)
    if found.value != wanted:
        raise SceneError(f"{tool} gave {found.value!r}, not {wanted!r}")
    return found


async def call(client: Client, tool: str, **arguments: Any) -> Shown:
    result = await client.call_tool(tool, arguments)
    value: Any = result.structured_content
    if result.is_error or value is None:
        raise SceneError(f"{tool} failed: {_text(result)}")
    if set(value) == {"result"}:
        value = value["result"]
    return Shown(value, ", ".join(cast("list[str]", value)) if isinstance(value, list) else str(value))


def _text(result: CallToolResult) -> str:
    return " ".join(getattr(part, "text", "") for part in result.content) or "no content"


class Narrator:
    """Says each step in a line, with the time it took. In colour on a terminal, unless NO_COLOR is set."""

    def __init__(self, out: TextIO) -> None:
        self.ended = False
        self._out = out
        self._colour = out.isatty() and "NO_COLOR" not in os.environ

    async def step(self, label: str, action: Callable[[], Awaitable[Shown]]) -> Shown:
        """Run `action` and say how it went.

        Raises:
            SceneError: It took longer than a step may. What `action` raises comes through.
        """
        began = time.perf_counter()
        try:
            with anyio.fail_after(STEP_DEADLINE):
                shown = await action()
        except TimeoutError:
            raise SceneError(f"{label}: no answer in {STEP_DEADLINE:g} seconds") from None
        except SceneError as error:
            raise SceneError(f"{label}: {error}") from error
        took = f"{(time.perf_counter() - began) * 1000:7.1f} ms"
        self.line(f"{self._painted(took, '2')}  {label}: {self._painted(shown.words, '32')}")
        return shown

    def title(self, text: str) -> None:
        self.line(self._painted(text, "1") + "\n")

    def end(self, text: str) -> None:
        self.ended = True
        self.line("\n" + self._painted(text, "1;32"))

    def failed(self, why: str, log: str) -> None:
        self.line("\n" + self._painted(f"FAILED: {why}", "1;31"))
        if log:
            self.line(f"The server's last words:\n{log}")

    def line(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


@asynccontextmanager
async def _until_interrupted() -> AsyncGenerator[Callable[[], bool]]:
    """A block that SIGINT, SIGTERM and SIGHUP leave quietly; what it gives tells whether one did."""
    loop = asyncio.get_running_loop()
    hit: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with anyio.CancelScope() as scope:

        def leave(number: int) -> None:
            hit.append(number)
            scope.cancel()

        for number in numbers:
            loop.add_signal_handler(number, leave, number)
        try:
            yield lambda: bool(hit)
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


Group = BaseExceptionGroup[BaseException]


def _first(group: Group) -> BaseException:
    first = group.exceptions[0]
    return _first(cast("Group", first)) if isinstance(first, BaseExceptionGroup) else first
