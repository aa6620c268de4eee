"""`serve --reload`: which files count, and that a session stays when the code changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from mcp.client import Client
from support import ServerProcess
from support.patience import PATIENCE
from understudy.runtime.commands.reload import POLL, changed_files, source_files

SERVER = """
from mcp.server.mcpserver import MCPServer
from understudy.runtime import Session

server = MCPServer("reloaded")

@server.tool()
async def add(session: Session) -> int:
    session.state["n"] = session.state.get("n", 0) + 1
    return session.state["n"]

@server.tool()
async def version() -> str:
    return "one"
"""


def test_python_files_below_the_roots_are_watched_and_hidden_or_foreign_ones_are_not(tmp_path: Path) -> None:
    for name in ("a.py", "sub/b.py", "notes.txt", ".git/c.py", "__pycache__/d.py", "env/e.py", "node_modules/f.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    assert set(source_files([tmp_path])) == {tmp_path / "a.py", tmp_path / "sub" / "b.py"}


def test_a_new_a_changed_and_a_removed_file_are_changes(tmp_path: Path) -> None:
    for name in ("same.py", "changed.py", "removed.py"):
        (tmp_path / name).write_text("")
    before = source_files([tmp_path])
    assert changed_files(before, source_files([tmp_path])) == []
    (tmp_path / "changed.py").write_text("x = 1\n")
    (tmp_path / "removed.py").unlink()
    (tmp_path / "new.py").write_text("")
    changed = changed_files(before, source_files([tmp_path]))
    assert [path.name for path in changed] == ["changed.py", "new.py", "removed.py"]


async def test_changed_code_runs_in_the_same_session_and_broken_code_waits_for_the_next_change(
    tmp_path: Path, serve: Callable[..., ServerProcess]
) -> None:
    code = tmp_path / "reloaded.py"
    code.write_text(SERVER)
    store = f"sqlite:///{tmp_path / 'sessions.db'}"
    async with serve(f"{code}:server", "--reload", "--store", store, supervises=True) as server:
        async with Client(server.url, mode="legacy", read_timeout_seconds=PATIENCE) as client:

            async def ask(tool: str) -> object:
                result = await client.call_tool(tool)
                assert result.structured_content is not None, result.content
                return result.structured_content["result"]

            assert await ask("version") == "one"
            assert await ask("add") == 1
            code.write_text(SERVER.replace('"one"', '"broken'))
            await asyncio.to_thread(said, server, "SyntaxError", "waiting for a change")
            code.write_text(SERVER.replace('"one"', '"second"'))
            assert await ask("version") == "second"
            assert await ask("add") == 2
        assert await server.astop() == 0


async def test_a_call_in_flight_when_a_reloading_server_is_stopped_finishes(
    serve: Callable[..., ServerProcess],
) -> None:
    server = serve("understudy.runtime.demo:server", "--reload", "--store", "memory://", supervises=True)
    async with server, Client(server.url, mode="legacy", read_timeout_seconds=PATIENCE) as client:
        # The client lists the tools with the first call, which must not be when the server is gone.
        await client.list_tools()
        begun = asyncio.Event()

        async def report(*_: object) -> None:
            begun.set()

        async with asyncio.TaskGroup() as tasks:
            # Longer than the reloader takes to notice that it was asked to stop.
            arguments = {"steps": 8, "seconds": 2 * POLL}
            call = tasks.create_task(client.call_tool("countdown", arguments, progress_callback=report))
            await begun.wait()
            assert await server.astop() == 0
        assert call.result().structured_content == {"result": "lift-off"}
        # For the client, which ends its session when it leaves.
        await server.astart()


def said(server: ServerProcess, *words: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not all(word in server.output for word in words):
        assert time.monotonic() < deadline, server.output
        time.sleep(0.05)
