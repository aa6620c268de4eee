"""A tool may fail its own call, and ends nothing else: not its session, not its node."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
from edge.client import hosting, hosting_modern
from mcp.server.mcpserver import MCPServer
from understudy.actors.foreign_errors import came_by_signal, ends_the_task
from understudy.runtime import Session
from understudy.runtime.commands.run_through import run_through

ERRORS: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit("a secret word"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "BaseException": lambda: BaseException("a secret word"),
}


def make_server() -> MCPServer:
    server = MCPServer("nasty")

    @server.tool()
    async def leave(what: str, session: Session) -> str:
        session.state["n"] = 100
        raise ERRORS[what]()

    @server.tool()
    def leave_in_thread(what: str) -> str:
        raise ERRORS[what]()

    @server.tool()
    async def command_line() -> str:
        sys.exit(3)

    @server.resource("nasty://{what}")
    async def leave_in_resource(what: str) -> str:
        raise ERRORS[what]()

    @server.tool()
    async def increment(session: Session) -> int:
        session.state["n"] = session.state.get("n", 0) + 1
        return session.state["n"]

    return server


@pytest.mark.parametrize("what", ERRORS)
async def test_a_tool_that_exits_gets_a_tool_error_and_ends_nothing_else(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        assert await client.tool("increment") == 1
        for tool in ("leave", "leave_in_thread"):
            call = await client.begin_tool(tool, {"what": what}).answered()
            assert call.result["isError"]
            assert call.result["content"][0]["text"] == f"The handler raised {what}, which ends programs, not calls"
        read = await client.ask("resources/read", {"uri": f"nasty://{what}"})
        assert what in read.reply["error"]["message"]
        assert "tried to end the process" in caplog.text
        assert await client.tool("increment") == 2


async def test_so_it_does_in_the_modern_era() -> None:
    async with hosting_modern(make_server()) as client:
        call = await client.begin_tool("command_line").answered()
        assert call.result["isError"]
        assert "SystemExit" in call.result["content"][0]["text"]
        handle = await client.handle()
        call = await client.begin_tool("leave", {"session": handle, "what": "KeyboardInterrupt"}).answered()
        assert call.result["isError"]
        assert await client.tool("increment", {"session": handle}) == 1


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_task_or_callback_of_a_tools_own_ends_no_node(error: type[BaseException]) -> None:
    def fail() -> None:
        raise error

    async def failing() -> None:
        fail()

    async def main() -> str:
        async with asyncio.TaskGroup() as tasks:
            beside = tasks.create_task(asyncio.sleep(0.01, "done"))
            with pytest.raises(error):
                await asyncio.get_running_loop().create_task(failing())
            asyncio.get_running_loop().call_soon(fail)
        return await beside

    assert run_through(main()) == "done"


def test_what_the_node_itself_raises_ends_it() -> None:
    async def main() -> None:
        raise SystemExit(4)

    with pytest.raises(SystemExit) as caught:
        run_through(main())
    assert caught.value.code == 4


def caught_by(raise_it: Callable[[], Any]) -> KeyboardInterrupt:
    with pytest.raises(KeyboardInterrupt) as caught:
        raise_it()
    return caught.value


def test_ctrl_c_is_told_from_a_keyboard_interrupt_that_code_raises() -> None:
    def raised() -> None:
        raise KeyboardInterrupt

    def handler(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    assert not came_by_signal(caught_by(raised))
    assert not ends_the_task(caught_by(raised))
    before = signal.getsignal(signal.SIGINT)
    try:
        for each in (signal.default_int_handler, handler):
            signal.signal(signal.SIGINT, each)
            error = caught_by(lambda: signal.raise_signal(signal.SIGINT))
            assert came_by_signal(error)
            assert ends_the_task(error)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_event_loop_as_ever() -> None:
    before = signal.getsignal(signal.SIGINT)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        await asyncio.sleep(10.0)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_through(main())
    finally:
        signal.signal(signal.SIGINT, before)
