"""Many calls of one session at once: each gets exactly one answer, and none holds up what need not wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import Client, hosting, put_to_sleep
from edge.server import Stage, make_server
from support.patience import PATIENCE
from understudy.stores import Address, Faults, FaultyStore, MemoryStore

CANCELLED = "Request cancelled"


async def cancel(client: Client, id: Any, **more: Any) -> None:
    call = await client.notify("notifications/cancelled", {"requestId": id, **more})
    assert (call.status, call.body) == (202, b"")


async def asleep(client: Client) -> None:
    await client.ask("ping")
    await put_to_sleep(client.runtime, client.session)


# Cancellation


@pytest.mark.parametrize("tool", ["hold", "watch", "hold_stateless"])
@pytest.mark.parametrize("id", [7, "seven", "7"])
async def test_a_running_call_is_cancelled(tool: str, id: Any) -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = client.begin_tool(tool, id=id)
        await stage.began.wait()
        await cancel(client, id, reason="changed my mind")
        assert (await call.answered()).failure["message"] == CANCELLED
        assert call.reply["id"] == id
        assert (stage.cancelled, stage.running) == (1, 0)
        assert await client.tool("increment") == 1
        stage.go_on.set()
        assert await client.tool("hold") == 1, "what it changed is undone"


async def test_a_waiting_call_is_cancelled_and_never_runs() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        running = client.begin_tool("hold")
        await stage.began.wait()
        waiting, last = client.begin_tool("hold", id="waiting"), client.begin_tool("increment")
        await client.ask("ping")
        await cancel(client, "waiting")
        stage.go_on.set()
        assert (await waiting.answered()).failure["message"] == CANCELLED
        assert (await running.answered()).value == 1
        assert (await last.answered()).value == 1
        assert stage.runs == 1


async def test_a_call_that_streams_is_cancelled_on_its_stream() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = await client.begin_tool("report", {"before": 2, "after": 0}, token="t", id=9).started()
        await stage.began.wait()
        await cancel(client, 9)
        assert (await call.answered()).kind == "text/event-stream"
        assert call.failure["message"] == CANCELLED
        assert len(call.messages) == 3


async def test_a_call_that_waits_for_its_client_is_cancelled() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        call = client.begin_tool("ask_name", id=9)
        question = await call.message("elicitation/create")
        await cancel(client, 9)
        withdrawn = await call.message("notifications/cancelled")
        assert withdrawn["params"]["requestId"] == question["id"]
        assert (await call.answered()).failure["message"] == CANCELLED
        late = await client.respond(question["id"], {"action": "accept", "content": {"name": "late"}})
        assert late.status == 202


async def test_what_is_not_there_is_not_cancelled() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = client.begin_tool("hold", id=1)
        await stage.began.wait()
        other = client.twin()
        await other.open()
        await cancel(other, 1)
        for id in (2, "one", None, True, [], {}, 1.5, -1, 10**30, "1 ", ""):
            if id != "1 ":
                await cancel(client, id)
        await client.notify("notifications/cancelled", {})
        await client.notify("notifications/cancelled")
        assert stage.cancelled == 0
        stage.go_on.set()
        assert (await call.answered()).value == 1
        await cancel(client, 1)
        assert await client.tool("count") == 0


async def test_initialize_cannot_be_cancelled() -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(), store=store) as client:
        await client.open()
        store.fail_next("create", "hang")
        opening = client.twin()
        call = opening.begin(
            "initialize",
            {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}},
            id=1,
        )
        await call.started()
        opening.session = call.header("mcp-session-id")
        notify = opening.start(body=b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}')
        store.release()
        assert "result" in (await call.answered()).reply
        await notify.answered()


async def test_a_call_that_waits_for_its_session_to_wake_is_cancelled() -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(stage := Stage()), store=store) as client:
        await client.open()
        await asleep(client)
        store.fail_next("claim", "hang")
        call = client.begin_tool("hold", id=4)
        cancellation = client.start(
            body=b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":4}}'
        )
        await hanging(store)
        store.release()
        assert (await cancellation.answered()).status == 202
        assert (await call.answered()).failure["message"] == CANCELLED
        assert stage.finished == 0
        assert await client.tool("increment") == 1


async def hanging(store: FaultyStore, times: int = 1) -> None:
    async with asyncio.timeout(PATIENCE):
        while store.hanging < times:
            await asyncio.sleep(0)


# One id, two requests


async def refused(call: HTTPCall) -> None:
    """A duplicate's answer: it must not be taken for the answer to the first."""
    await call.answered()
    assert call.status == 400
    assert call.json["id"] is None
    assert call.json["error"]["code"] == -32600
    assert "in flight already" in call.json["error"]["message"]


@pytest.mark.parametrize("tool", ["hold", "watch", "hold_stateless"])
@pytest.mark.parametrize(("first", "second"), [(7, 7), ("x", "x"), (7, "7"), ("7", 7), (0, 0), ("", "")])
async def test_a_second_request_with_an_id_in_flight_is_refused(tool: str, first: Any, second: Any) -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        call = client.begin_tool(tool, id=first)
        await stage.began.wait()
        await refused(client.begin_tool("increment", id=second))
        await refused(client.begin("ping", id=second))
        stage.go_on.set()
        assert (await call.answered()).reply["id"] == first
        assert "result" in call.reply
        assert await client.tool("increment") == 1, "the refused ones did not run"
        assert await client.tool("increment", id=second) == 2, "an id is free again when its request is answered"


async def test_a_second_request_with_the_id_of_one_that_waits_is_refused() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        running = client.begin_tool("hold", id=1)
        await stage.began.wait()
        waiting = client.begin_tool("increment", id=2)
        await client.ask("ping", id=3)
        await refused(client.begin_tool("increment", id=2))
        stage.go_on.set()
        assert (await waiting.answered()).value == 1
        assert (await running.answered()).value == 1


async def test_of_quick_requests_with_one_id_each_is_answered() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        calls = [client.begin_tool("increment", id=1) for _ in range(10)]
        for call in calls:
            await call.answered()
        answered = [call for call in calls if call.status == 200]
        assert [call.value for call in answered] == list(range(1, len(answered) + 1))
        for call in calls:
            if call not in answered:
                await refused(call)
        assert await client.tool("count") == len(answered)


async def test_a_second_request_with_the_id_of_one_whose_session_wakes_is_refused() -> None:
    store = FaultyStore(MemoryStore(), seed=1)
    async with hosting(make_server(stage := Stage()), store=store) as client:
        await client.open()
        await asleep(client)
        store.fail_next("claim", "hang")
        first, second = client.begin_tool("hold", id=1), client.begin_tool("hold", id=1)
        await hanging(store)
        store.release()
        await refused(second)
        stage.go_on.set()
        assert (await first.answered()).value == 1
        assert stage.runs == 1


# What need not wait


async def test_reads_answer_at_once_while_an_exclusive_tool_runs() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        await client.tool("increment")
        running = client.begin_tool("hold")
        await stage.began.wait()
        waiting = client.begin_tool("increment")
        for call in (
            await client.ask("ping"),
            await client.ask("tools/list"),
            await client.ask("resources/read", {"uri": "stage://data"}),
            await client.ask("prompts/list"),
        ):
            assert call.kind == "application/json"
            assert "result" in call.reply
        assert await client.tool("count") == 1, "as last saved"
        assert not running.status or not running.complete
        stage.go_on.set()
        assert (await running.answered()).value == 1
        assert (await waiting.answered()).value == 2


async def test_reads_overlap_each_other() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        calls = [client.begin_tool("watch") for _ in range(20)]
        async with asyncio.timeout(PATIENCE):
            while stage.running < 20:
                await asyncio.sleep(0)
        assert await client.tool("increment") == 1
        stage.go_on.set()
        for call in calls:
            assert (await call.answered()).value == "watched"


async def test_too_many_reads_at_once_are_refused() -> None:
    async with hosting(make_server(stage := Stage())) as client:
        await client.open()
        calls = [client.begin_tool("watch", id=f"watch {n}") for n in range(256)]
        async with asyncio.timeout(PATIENCE):
            while stage.running < 256:
                await asyncio.sleep(0)
        refusal = await client.ask("ping")
        assert refusal.status == 429
        assert int(refusal.header("retry-after") or 0) >= 1
        await client.notify("notifications/cancelled", {"requestId": "watch 0"})
        assert (await calls[0].answered()).failure["message"] == CANCELLED, "which gets through nevertheless"
        stage.go_on.set()
        for call in calls[1:]:
            assert (await call.answered()).value == "watched"


async def test_a_thousand_increments_at_once_give_a_thousand() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        calls = [client.begin_tool("increment") for _ in range(1000)]
        values = [(await call.answered()).value for call in calls]
        assert values == list(range(1, 1001))


async def test_a_thousand_increments_that_wake_a_session_give_a_thousand() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        await client.tool("increment")
        await asleep(client)
        calls = [client.begin_tool("increment") for _ in range(1000)]
        values = [(await call.answered()).value for call in calls]
        assert values == list(range(2, 1002))


async def test_a_slow_store_does_not_change_who_is_told_what() -> None:
    slow = Faults(delay=1.0, longest_delay=0.5)
    async with hosting(make_server(), store=FaultyStore(MemoryStore(), seed=3, operations={"claim": slow})) as client:
        client.session = Address.new("session").id
        for call in [client.begin("ping", id=id) for id in range(3)]:
            await call.answered()
            assert call.status == 404, "however long it took to find out"
            assert call.kind == "application/json"
