"""The Python SDK's client and FastMCP's, each in both eras, as guests of a hosted server."""

from typing import Any

import anyio
import httpx2
import pytest
from clients.guests import NAME, ROOT, SUMMARY, Era, House, Library, visit
from support.patience import PATIENCE

pytestmark = [
    pytest.mark.parametrize("library", ["mcp", "fastmcp"]),
    pytest.mark.parametrize("era", ["handshake", "modern"]),
    # What 2026-07-28 gave up (roots, log levels, resources/subscribe) the handshake era still has.
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
]

"""Seconds; what is waited for takes a small part of one."""


async def ping(url: str, session: str) -> int:
    """The status of a `ping` in a session, sent by hand."""
    headers = {"Accept": "application/json, text/event-stream", "Mcp-Session-Id": session}
    async with httpx2.AsyncClient() as client:
        answer = await client.post(url, headers=headers, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    return answer.status_code


async def test_the_era_is_the_one_asked_for(library: Library, era: Era, demo: House) -> None:
    async with visit(library, era, demo.url) as guest:
        assert guest.revision == {"handshake": "2025-11-25", "modern": "2026-07-28"}[era]


async def test_a_session_keeps_state_from_call_to_call(library: Library, era: Era, demo: House) -> None:
    async with visit(library, era, demo.url) as guest:
        assert {"increment", "count", "echo"} <= await guest.tool_names()
        state = await guest.open_state()

        assert await guest.ask("increment", state) == 1
        assert await guest.ask("increment", state) == 2
        assert await guest.ask("remember", {"fact": "tea at four", **state}) == "noted"
        assert await guest.ask("count", state) == 2
        assert await guest.ask("recall", state) == ["tea at four"]
        assert await guest.ask("echo", {"text": "hello"}) == "hello"


async def test_two_sessions_share_nothing(library: Library, era: Era, demo: House) -> None:
    async with visit(library, era, demo.url) as one, visit(library, era, demo.url) as other:
        await one.tool_names(), await other.tool_names()
        assert await one.ask("increment", await one.open_state()) == 1
        assert await other.ask("increment", await other.open_state()) == 1


async def test_a_failing_tool_is_an_error_and_the_session_goes_on(library: Library, era: Era, demo: House) -> None:
    async with visit(library, era, demo.url) as guest:
        assert (await guest.call("fail")).is_error
        assert await guest.ask("echo", {"text": "still here"}) == "still here"


async def test_progress_is_received(library: Library, era: Era, demo: House) -> None:
    reports: list[tuple[float, float | None]] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total))

    async with visit(library, era, demo.url) as guest:
        await guest.call("countdown", {"steps": 3, "seconds": 0.3}, progress=report)

    assert reports == [(1, 3), (2, 3), (3, 3)]


async def test_an_elicitation_is_answered(library: Library, era: Era, demo: House) -> None:
    async with visit(library, era, demo.url) as guest:
        await guest.tool_names()
        assert NAME in await guest.ask("ask_name", await guest.open_state())


async def test_a_sampling_request_is_answered(library: Library, era: Era, demo: House) -> None:
    async with visit(library, era, demo.url) as guest:
        assert SUMMARY in await guest.ask("summarize", {"text": "A long story."})


async def test_a_list_change_is_received(library: Library, era: Era, extras: House) -> None:
    name = f"tool_for_{library}_{era}"
    async with visit(library, era, extras.url) as guest, guest.listening():
        assert name not in await guest.tool_names()
        with anyio.fail_after(PATIENCE):
            while not guest.tool_changes.is_set():
                # The stream for notifications opens beside the first calls, so one may be too early for it.
                await guest.ask("add_tool", {"name": name})
                with anyio.move_on_after(0.5):
                    await guest.tool_changes.wait()

        assert name in await guest.tool_names()


async def test_a_watched_resource_that_changes_is_told_of(library: Library, era: Era, extras: House) -> None:
    watched, other = (f"test://{name}/{library}/{era}" for name in ("watched", "other"))
    async with visit(library, era, extras.url) as guest, guest.listening(watched):
        with anyio.fail_after(PATIENCE):
            while not guest.resource_changes[watched].is_set():
                # As above.
                await guest.ask("touch", {"uri": other})
                await guest.ask("touch", {"uri": watched})
                with anyio.move_on_after(0.5):
                    await guest.resource_changes[watched].wait()


async def test_a_client_is_asked_for_its_roots(library: Library, era: Era, extras: House) -> None:
    async with visit(library, era, extras.url) as guest:
        assert await guest.ask("list_roots") == [ROOT]


async def test_log_messages_arrive_from_the_level_on_that_was_asked_for(
    library: Library, era: Era, extras: House
) -> None:
    async with visit(library, era, extras.url) as guest:
        await guest.quiet()
        await guest.ask("think_aloud")
    # In the modern era FastMCP's client asks for everything.
    everything = ["debug: hm"] if (library, era) == ("fastmcp", "modern") else []
    assert guest.logged == [*everything, "warning: careful", "error: ouch"]


async def test_a_stream_that_the_server_closes_early_is_resumed(library: Library, era: Era, extras: House) -> None:
    reports: list[float] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append(progress)

    async with visit(library, era, extras.url) as guest:
        with anyio.fail_after(PATIENCE):
            result = await guest.call("go_and_come_back", progress=report)
    assert result.structured_content == {"result": "you are back"}
    assert reports == [1, 2, 3]


async def test_a_cancelled_call_is_cancelled_at_the_server(library: Library, era: Era, extras: House) -> None:
    key = f"{library}-{era}"
    started = anyio.Event()

    async def report(progress: float, total: float | None, message: str | None) -> None:
        started.set()

    async with visit(library, era, extras.url) as guest:
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(guest.call, "wait", {"key": key, "seconds": 60}, report)
                await started.wait()
                tasks.cancel_scope.cancel()
            assert await guest.ask("was_cancelled", {"key": key})


async def test_an_ended_session_is_gone(library: Library, era: Era, demo: House) -> None:
    async with visit(library, era, demo.url) as guest:
        await guest.tool_names()
        state = await guest.open_state()
        session: Any = (await guest.ask("whoami", state))["session"]
        if era == "modern":
            await guest.call("close_session", state)
            assert (await guest.call("count", state)).is_error
            return
        assert await ping(demo.url, session) == 200

    # The client ends its session when it leaves.
    assert await ping(demo.url, session) == 404
