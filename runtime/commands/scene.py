"""`understudy demo`: a session that outlives the nodes it lives on, played step by step."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TextIO, cast
from urllib.parse import urlsplit

import anyio
from mcp.client import Client
from mcp_types import CallToolResult

from ...stores import UnderstudyError
from .stage import SceneError, Stage

__all__ = ["play"]

STEP_DEADLINE = 45.0
"""Seconds one step may take before the demo says that it failed."""

FACT = "the show must go on"


class Shown(NamedTuple):
    """What a step found, and how to say it in a few words."""

    value: Any
    words: str


async def play(*, port: int = 0, stay: bool = True, out: TextIO | None = None) -> int:
    """Play the scene, then (with `stay`) serve until Ctrl-C. Exit code: 0, 1 if a step failed, 130 if interrupted.

    Starts processes and makes a temporary directory, and leaves neither behind.
    """
    say = Narrator(out or sys.stdout)
    async with Stage(port) as stage:
        try:
            async with _until_interrupted() as interrupted:
                say.title("understudy demo: one conversation, three nodes")
                urls = await perform(stage, say)
                if stay:
                    say.line(f"Still serving (connect any MCP client; Ctrl-C ends it): {' '.join(urls)}")
                    say.line("In another terminal: understudy nodes, understudy sessions, understudy top")
                    await stage.watch()
            if interrupted() and not say.ended:
                say.line("interrupted")
                return 130
        except (SceneError, UnderstudyError) as error:
            say.failed(str(error), stage.last_words())
            return 1
    return 0


async def perform(stage: Stage, say: Narrator) -> list[str]:
    """The scene itself; the nodes' URLs.

    Raises:
        SceneError: A step failed, took too long, or showed that something was lost.
    """
    try:
        nodes = (await say.step("start three nodes and a nats-server", lambda: start(stage))).value
        names = [node.name for node in nodes]
        first = nodes[0]
        async with Client(first.url, mode="legacy", read_timeout_seconds=STEP_DEADLINE) as client:
            opened = await say.step(f"open a session at {first.name} with the SDK's client", lambda: whoami(client))
            session = opened.value["session"]
            await say.step("increment, three times", lambda: increments(client, 3))
            await say.step(f"remember {FACT!r}", lambda: call(client, "remember", fact=FACT))
            await say.step("ask each node for the count", lambda: ask_all(stage, names, session, "count", 3))
            await say.step("ask each node who answers", lambda: ask_all(stage, names, session, "whoami", opened.value))
            await say.step(f"drain {first.name}: its session moves", lambda: drain(stage, first.name))
            moved = await say.step(f"the client stays at {first.name}, which forwards", lambda: whoami(client))
            owner = _elsewhere(moved, opened.value["node"])
            await say.step(f"kill -9 {owner}", lambda: kill(stage, owner))
            await say.step("same client, same session: count", lambda: expect(client, "count", 3))
            await say.step("recall", lambda: expect(client, "recall", [FACT]))
            await say.step("and on it goes: increment", lambda: expect(client, "increment", 4))
            taken = await say.step("another node has taken the part", lambda: whoami(client))
            successor = _elsewhere(taken, owner)
            await say.step(f"have {first.name} take sessions again", lambda: undrain(stage, first.name))
            await say.step(
                f"stop {successor} in order, calling all the while", lambda: stop(stage, successor, client, 4)
            )
            last = await say.step("the session has moved before", lambda: whoami(client))
            _elsewhere(last, successor)
            if last.value["session"] != session:
                raise SceneError(f"the session changed from {session} to {last.value['session']}")
            await say.step("what was stopped or killed is back", lambda: back(stage))
        say.end("Nothing was lost: the session outlived two of its nodes, and its client had to wait for a moment.")
        return [node.url for node in nodes]
    except* SceneError as group:
        raise _first(group) from None
    except* Exception as group:
        error = _first(group)
        raise SceneError(f"{type(error).__name__}: {error}") from error


def _elsewhere(shown: Shown, before: str) -> str:
    """The node that answered, which must not be the one `before`."""
    node: str = shown.value["node"]
    if node == before:
        raise SceneError(f"{node} still answers for the session, which should have moved")
    return node


async def start(stage: Stage) -> Shown:
    nodes = await stage.raise_curtain()
    return Shown(nodes, ", ".join(f"{node.name} at :{urlsplit(node.url).port}" for node in nodes))


async def kill(stage: Stage, node: str) -> Shown:
    pid = stage.node(node).kill()
    return Shown(pid, f"process {pid}, which had the session in memory, is gone")


async def ask_all(stage: Stage, nodes: Sequence[str], session: str, tool: str, wanted: Any) -> Shown:
    for node in nodes:
        found = await stage.call_at(node, session, tool)
        if found != wanted:
            raise SceneError(f"{tool} at {node} gave {found!r}, not {wanted!r}")
    shown = (
        f"{wanted['node']} at each of them" if isinstance(wanted, dict) else ", ".join(f"{n}: {wanted}" for n in nodes)
    )
    return Shown(wanted, shown)


async def drain(stage: Stage, node: str) -> Shown:
    answer = await stage.ask(node, "drain")
    if answer["left"]:
        raise SceneError(f"{node} still has {answer['left']} sessions")
    return Shown(answer, f"{node} has none left")


async def undrain(stage: Stage, node: str) -> Shown:
    answer = await stage.ask(node, "undrain")
    return Shown(answer, "it does")


async def stop(stage: Stage, name: str, client: Client, count: int) -> Shown:
    """Ask the node's process to end, and count on in the session until it has."""
    node = stage.node(name)
    pid = node.terminate()
    calls = 0
    while node.pid == pid:
        calls += 1
        await expect(client, "increment", count + calls)
    return Shown(calls, f"process {pid} has ended; {calls} calls meanwhile, none failed")


async def back(stage: Stage) -> Shown:
    await stage.all_ready()
    return Shown(None, "three nodes are ready")


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
            self.line(f"The nodes' last words:\n{log}")

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
