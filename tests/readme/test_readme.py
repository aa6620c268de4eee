"""Every code block of README.md, runtime/README.md and runtime/MIGRATING.md is run here."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.client.client import Client
from support.demo import assert_the_scene_was_played, environment, left_in, processes_of
from support.forked_popen import forked_popen
from support.guide_databases import PATTERNS, operating
from support.patience import PATIENCE
from support.ports import first_of_free_ports
from support.postgres import PostgresServer
from understudy.runtime import StateConflict

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: str, language: str) -> list[str]:
    found = FENCE.findall((ROOT / path).read_text())
    assert found, f"{path} has no code blocks"
    return [code for kind, code in found if kind == language]


def run_python(codes: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run blocks one after the other as one program; a block that names its file becomes that module first."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    names: dict[str, Any] = {"__name__": "readme"}
    for code in codes:
        if match := re.match(r"# (\w+\.py)\n", code):
            (folder / match[1]).write_text(code)
        exec(compile(code, "README", "exec"), names)
    return names


def test_only_languages_that_are_run_are_used() -> None:
    for path in ("README.md", "runtime/README.md", "runtime/MIGRATING.md"):
        languages = {language for language, _ in FENCE.findall((ROOT / path).read_text())}
        assert languages <= {"python", "bash", "text"}, path


def test_readme_stays_under_250_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 250


async def test_the_python_of_readme_runs_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nats_url: str
) -> None:
    monkeypatch.setenv("UNDERSTUDY_NATS", nats_url)
    names = run_python([code for code in blocks("README.md", "python") if "desk" not in code], tmp_path, monkeypatch)
    monkeypatch.delitem(sys.modules, "notes", raising=False)
    app = names["app"]
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            assert (await http.get("/readyz")).status_code == 200
            assert (await http.post("/mcp", json=INITIALIZE, headers=ACCEPT)).status_code == 200
    # The cluster's block made one node of many: another, made the same way, knows the session that it opens.
    node = names["node"]
    other = names["Runtime"](
        names["server"],
        store=f"{nats_url}/shop-sessions",
        cluster=names["ClusterOptions"]("shop", nats=nats_url),
    )
    async with (
        node,
        other,
        httpx.AsyncClient(transport=httpx.ASGITransport(node.app), base_url="http://localhost") as here,
        httpx.AsyncClient(transport=httpx.ASGITransport(other.app), base_url="http://localhost") as there,
    ):
        opened = await here.post("/mcp", json=INITIALIZE, headers=ACCEPT)
        session = {**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
        await there.post("/mcp", json=call("remember", fact="tea at four"), headers=session)
        recalled = await here.post("/mcp", json=call("recall"), headers=session)
        assert recalled.json()["result"]["structuredContent"] == {"result": ["tea at four"]}
        assert other.stats()["cluster_forwards"] == 1


@pytest.mark.parametrize(("pattern", "name"), list(zip(PATTERNS, ("rows", "schemas", "databases"), strict=True)))
async def test_what_readme_shows_of_tenants_keeps_them_apart(
    pattern: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_server: PostgresServer,
    postgres_database: str,
) -> None:
    async with operating(postgres_server, postgres_database) as operator:
        await operator.set_up(pattern, "acme")
        monkeypatch.setenv("DATABASE_URL", operator.url())
        monkeypatch.delitem(sys.modules, "desk", raising=False)
        names = run_python([code for code in blocks("README.md", "python") if "desk" in code], tmp_path, monkeypatch)
        desk: Any = sys.modules.pop("desk")
        async with desk.runtime, talking(desk.runtime) as http:
            assert (await http.post("/mcp", json=INITIALIZE, headers=ACCEPT)).status_code == 401
            ada, bob = [await opened_with(http, key) for key in (desk.ada, desk.bob)]
            for who, tenant in ((ada, "acme"), (bob, "zenith")):
                noted = await http.post("/mcp", json=call("note", text="buy tea"), headers=who)
                assert reply(noted)["result"]["structuredContent"] == {"result": f"kept for {tenant}"}
            hidden, never = [
                (await http.post("/mcp", json=call(tool, item="tea"), headers=bob)).text.replace(tool, "")
                for tool in ("order", "no_such_tool")
            ]
            assert hidden == never
        async with names[name] as runtime, talking(runtime) as http:
            ada = await opened_with(http, desk.ada)
            ordered = await http.post("/mcp", json=call("order", item="tea"), headers=ada)
            assert reply(ordered)["result"]["structuredContent"] == {"result": 1}


def reply(response: httpx.Response) -> Any:
    """The outcome of a call: on a busy machine, or with a connection to make first, it comes as an event."""
    if response.headers["content-type"] == "application/json":
        return response.json()
    return json.loads([line for line in response.text.splitlines() if line.startswith("data: {")][-1][6:])


def talking(runtime: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(runtime.app), base_url="http://localhost")


async def opened_with(http: httpx.AsyncClient, key: str) -> dict[str, str]:
    """The headers of a session that is opened with an API key."""
    known = {**ACCEPT, "authorization": f"Bearer {key}"}
    opened = await http.post("/mcp", json=INITIALIZE, headers=known)
    return {**known, "mcp-session-id": opened.headers["mcp-session-id"]}


async def test_the_python_of_the_runtime_guide_runs_and_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_python(blocks("runtime/README.md", "python"), tmp_path, monkeypatch)
    app = names["app"]
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost/assistant") as http:
            opened = await http.post("/mcp", json=INITIALIZE, headers=ACCEPT)
            session = {**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
            ordered = await http.post("/mcp", json=call("order", item="tea"), headers=session)
            assert reply(ordered)["result"]["structuredContent"] == {"result": 1}
            looked = await http.post("/mcp", json=call("look", url="x"), headers=session)
            assert looked.json()["result"]["content"][0]["text"] == "x seen with Browser"
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            for session_id, status in ((session["mcp-session-id"], 200), ("A" * 32, 404)):
                told = await http.post("/prices-changed", params={"session_id": session_id})
                assert told.status_code == status
            id = session["mcp-session-id"]
            for _ in range(2):
                paid = await http.post(f"/payments/{id}", params={"event_id": "evt_1", "cents": 500})
                assert paid.json() == {"cents": 500}
            assert (await http.post(f"/payments/{'A' * 32}", params={"event_id": "e", "cents": 1})).status_code == 404
            for agent in ("ada", "bob"):
                assert (await http.post(f"/claims/{id}", params={"agent": agent})).json() == "ada"
            assert (await http.get("/carts")).json() == {id: 0}
    watched = names["watched"]
    async with watched:
        created = await watched.sessions.create()
        assert await watched.sessions.delete(created.id)
    assert names["seen"] == ["opened", "anonymous/anonymous ended a session opened by handle"]
    runtime = names["with_helpers"]
    async with (
        runtime,
        httpx.AsyncClient(transport=httpx.ASGITransport(runtime.app), base_url="http://localhost") as http,
    ):
        known = {**ACCEPT, "authorization": f"Bearer {names['key']}"}
        opened = await http.post("/mcp", json=INITIALIZE, headers=known)
        session = {**known, "mcp-session-id": opened.headers["mcp-session-id"]}
        reported = await http.post("/mcp", json=call("report", name="july"), headers=session)
        uri = reported.json()["result"]["structuredContent"]["result"]
        assert uri == "resource://tenant-space/acme/reports/july"
        read = {"jsonrpc": "2.0", "id": 3, "method": "resources/read", "params": {"uri": uri}}
        contents = (await http.post("/mcp", json=read, headers=session)).json()["result"]["contents"]
        assert contents[0]["text"] == "2 rates, 1 header"


async def test_the_python_of_the_guide_to_moving_here_runs_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastmcp")
    names = run_python(blocks("runtime/MIGRATING.md", "python"), tmp_path, monkeypatch)
    runtime = names["runtime"]
    async with names["app"].router.lifespan_context(names["app"]), talking(runtime) as http:
        opened = await http.post("/mcp", json=INITIALIZE, headers=ACCEPT)
        id = opened.headers["mcp-session-id"]
        session = {**ACCEPT, "mcp-session-id": id}
        for expected in (1, 2):
            added = await http.post("/mcp", json=call("add_to_cart", item="tea"), headers=session)
            assert added.json()["result"]["structuredContent"] == {"result": expected}
        assert await names["empty_cart"](id)
        assert not await names["empty_cart"]("A" * 32)
        visited = await http.post("/mcp", json=call("count_visit"), headers=session)
        assert visited.json()["result"]["structuredContent"] == {"result": 1}
        for _ in range(2):
            assert await names["add_credit"](runtime, id, "evt_1", 500) == 500
        await names["take_ticket"](runtime, id, "ada")
        with pytest.raises(StateConflict):
            await names["take_ticket"](runtime, id, "bob")
        state = (await runtime.sessions.read(id)).state
        assert state == {"cart": [], "visits": 1, "credit": 500, "agent": "ada"}
    assert names["opened"] == [id]
    moved = names["moved"]
    async with moved, talking(moved) as http:
        opened = await http.post("/mcp", json=INITIALIZE, headers=ACCEPT)
        session = {**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
        await http.post("/mcp", json=call("remember", fact="tea at four"), headers=session)
        told = await http.post("/mcp", json=call("remember", fact="no milk"), headers=session)
        assert told.json()["result"]["structuredContent"] == {"result": ["tea at four", "no milk"]}


def test_links_between_the_guides_lead_somewhere() -> None:
    text = (ROOT / "runtime" / "MIGRATING.md").read_text()
    for path, anchor in re.findall(r"\]\(([^)#:]*)#?([^)]*)\)", text):
        target = ROOT / "runtime" / (path or "MIGRATING.md")
        assert target.is_file(), path
        titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, (path, anchor)


async def test_the_serve_command_of_readme_serves_the_file_of_readme(tmp_path: Path, free_port: int) -> None:
    (command,) = [line for line in shell_lines() if line.startswith("understudy serve")]
    (notes,) = [code for code in blocks("README.md", "python") if code.startswith("# notes.py")]
    (tmp_path / "notes.py").write_text(notes)
    words = shlex.split(command.replace("8000", str(free_port)))
    with forked_popen():
        process = subprocess.Popen(  # noqa: ASYNC220 - starting it blocks for a moment that nobody waits for
            [sys.executable, "-m", "understudy.runtime", *words[1:], "--store", "sqlite:///notes.db"],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        await until_ready(f"http://127.0.0.1:{free_port}")
        async with Client(f"http://127.0.0.1:{free_port}/mcp", mode="legacy") as client:
            await client.call_tool("remember", {"fact": "tea at four"})
            recalled = await client.call_tool("recall", {})
            assert recalled.structured_content == {"result": ["tea at four"]}
    finally:
        process.terminate()
        assert process.wait(timeout=PATIENCE) == 0


async def test_the_cluster_command_of_readme_serves_the_file_of_readme_on_every_node(
    tmp_path: Path, nats_server: object
) -> None:
    (command,) = [line for line in shell_lines() if line.startswith("understudy cluster")]
    (notes,) = [code for code in blocks("README.md", "python") if code.startswith("# notes.py")]
    (tmp_path / "notes.py").write_text(notes)
    base = first_of_free_ports(3)
    words = shlex.split(command.replace("8000", str(base)))
    with forked_popen(supervises=True):
        process = subprocess.Popen(  # noqa: ASYNC220 - starting it blocks for a moment that nobody waits for
            [sys.executable, "-m", "understudy.runtime", *words[1:]],
            cwd=tmp_path,
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        for port in range(base, base + 3):
            await until_ready(f"http://127.0.0.1:{port}")
        async with httpx.AsyncClient() as http:
            urls = [f"http://127.0.0.1:{port}/mcp" for port in range(base, base + 3)]
            opened = await http.post(urls[0], json=INITIALIZE, headers=ACCEPT)
            session = {**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
            await http.post(urls[1], json=call("remember", fact="tea at four"), headers=session)
            recalled = await http.post(urls[2], json=call("recall"), headers=session)
            # A plain body, or an event if it took long.
            answer = json.loads(recalled.text[recalled.text.index("{") :].split("\n", 1)[0])
            assert answer["result"]["structuredContent"] == {"result": ["tea at four"]}
    finally:
        process.terminate()
        assert process.wait(timeout=PATIENCE) == 0


def test_the_demo_command_of_readme_plays_its_scene_and_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    assert "make demo" in shell_lines()
    # `make demo` may have to install first; where CI has done so, the command itself is run.
    ready = (ROOT / ".venv" / ".ready-dev").exists() and str(ROOT / ".venv") in sys.prefix
    command = (
        ["make", "demo", "ARGS=--exit"] if ready else [sys.executable, "-m", "understudy.runtime", "demo", "--exit"]
    )
    done = subprocess.run(
        command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ready or done.stderr == ""
    assert_the_scene_was_played(done.stdout)
    assert left_in(tmp_path) == []
    assert not processes_of(tmp_path)


def test_the_test_command_of_readme_is_what_ci_runs() -> None:
    assert "make test" in shell_lines()
    assert re.search(r"\bmake test\b", (ROOT / ".ci" / "run").read_text())


def shell_lines() -> list[str]:
    return [line for block in blocks("README.md", "bash") for line in block.splitlines()]


async def until_ready(base: str) -> None:
    async with httpx.AsyncClient() as http:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if (await http.get(f"{base}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError("the server of README did not become ready")


ACCEPT = {"accept": "application/json, text/event-stream"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


def call(tool: str, **arguments: object) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
