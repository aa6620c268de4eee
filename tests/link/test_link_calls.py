"""Forwarded calls end to end, over a wire without faults."""

from __future__ import annotations

import asyncio
import logging
from itertools import product
from typing import Any

import pytest
from link.ends import EDGE, OWNER, SEALS, Ends, Heard, a_head, answer, echo, error_of, pattern, soon, two_ends
from understudy.actors.session import TenantContext
from understudy.actors.testing import ManualClock, settle
from understudy.runtime.errors import ConfigurationError
from understudy.runtime.link import (
    OLDEST,
    VERSION,
    CallFailed,
    CallHead,
    InboundCall,
    Link,
    LinkClosed,
    NotRun,
    PeerGone,
    Unsendable,
    negotiate,
)
from understudy.runtime.link.channel import CREDIT
from understudy.runtime.link.testing import MemoryHub


async def test_a_call_arrives_as_it_was_sent_and_so_does_its_answer(clock: ManualClock) -> None:
    arrived: list[CallHead] = []

    async def handler(call: InboundCall) -> None:
        arrived.append(call.head)
        assert call.peer == EDGE
        assert await call.receive() == {"type": "http.request", "body": b"question", "more_body": False}
        await answer(call, b"answer", 201)

    async with two_ends(handler, clock=clock) as ends:
        heard = await ends.ask(b"question")
    assert arrived == [a_head()]
    assert dict(arrived[0].tenant.claims) == {"sub": "bob", "n": 1}
    assert (heard.status, heard.headers, heard.body, heard.complete) == (201, [(b"x-by", b"owner")], b"answer", True)


async def test_a_small_call_takes_one_batch_each_way(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        await ends.ask()
        ends.hub.sent.clear()
        await ends.ask()
        assert [sender for sender, _, _ in ends.hub.sent] == [EDGE, OWNER]


async def test_a_response_whose_body_comes_later_begins_at_once(clock: ManualClock) -> None:
    go = asyncio.Event()

    async def handler(call: InboundCall) -> None:
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        await go.wait()
        await call.send({"type": "http.response.body", "body": b"later"})

    async with two_ends(handler, clock=clock) as ends, asyncio.TaskGroup() as group:
        heard = Heard()
        group.create_task(ends.edge.forward(OWNER, a_head(), b"", heard.send))
        await soon(lambda: heard.status)
        assert not heard.complete
        go.set()
    assert heard.body == b"later"


@pytest.mark.parametrize("size", [0, 1, 65_375, 65_376, 65_377, CREDIT, 8 * 1024 * 1024])
async def test_a_response_of_any_size_arrives_intact(clock: ManualClock, size: int) -> None:
    async with two_ends(clock=clock) as ends:
        heard = await ends.ask(path=f"/bytes/{size}")
    assert heard.body == pattern(size)


@pytest.mark.parametrize("size", [0, 65_376, 65_377, CREDIT + 1, 4 * 1024 * 1024])
async def test_a_request_of_any_size_arrives_intact(clock: ManualClock, size: int) -> None:
    async with two_ends(clock=clock) as ends:
        heard = await ends.ask(pattern(size))
    assert heard.body == pattern(size)


async def test_a_small_max_payload_carries_large_bodies(clock: ManualClock) -> None:
    async with two_ends(hub=MemoryHub(clock, max_payload=16 * 1024), clock=clock) as ends:
        assert (await ends.ask(pattern(300_000))).body == pattern(300_000)
        assert max(size for _, _, size in ends.hub.sent) <= 16 * 1024


async def test_ten_large_responses_leave_room_for_small_calls(clock: ManualClock) -> None:
    small_ones = 0
    async with two_ends(clock=clock) as ends, asyncio.TaskGroup() as group:
        await ends.ask()
        large = [group.create_task(ends.ask(path=f"/bytes/{8 * 1024 * 1024}")) for _ in range(10)]
        while not any(task.done() for task in large):
            await ends.ask(pattern(100))
            small_ones += 1
    assert all(task.result().body == pattern(8 * 1024 * 1024) for task in large)
    # 640 batches of bulk: were small calls to queue behind it, hardly one would have come through.
    assert small_ones > 20


async def test_many_calls_at_once_are_all_answered(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends, asyncio.TaskGroup() as group:
        asked = [group.create_task(ends.ask(str(number).encode())) for number in range(1000)]
    assert [task.result().body for task in asked] == [str(number).encode() for number in range(1000)]
    assert ends.edge.stats()["forwarding"] == ends.owner.stats()["serving"] == 0


async def test_a_slow_reader_stops_its_own_call_and_no_other(clock: ManualClock) -> None:
    sent = 0

    async def handler(call: InboundCall) -> None:
        nonlocal sent
        if call.head.path != "/endless":
            await echo(call)
            return
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await call.send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
            sent += 1
        await call.send({"type": "http.response.body", "body": b""})

    async with two_ends(handler, clock=clock) as ends, asyncio.TaskGroup() as group:
        slow = Heard()
        slow.open.clear()
        group.create_task(ends.edge.forward(OWNER, a_head("/endless"), b"", slow.send))
        await settle(200)
        assert 0 < sent * 10_000 <= CREDIT, "the handler runs on though nobody reads"
        assert (await ends.ask(path="/bytes/1000000")).body == pattern(1_000_000)
        assert sent * 10_000 <= CREDIT
        slow.open.set()
    assert len(slow.body) == 1_000_000
    assert slow.complete


async def test_the_owners_handler_hears_that_the_caller_is_gone_and_goes_on(clock: ManualClock) -> None:
    events: list[str] = []

    async def handler(call: InboundCall) -> None:
        await call.receive()
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        await call.send({"type": "http.response.body", "body": b"first", "more_body": True})
        events.append((await call.receive())["type"])
        assert call.over
        for _ in range(100):
            await call.send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        events.append("went on")

    async with two_ends(handler, clock=clock) as ends:
        heard = Heard()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(ends.edge.forward(OWNER, a_head(), b"", heard.send))
            await soon(lambda: heard.body)
            task.cancel()
        await soon(lambda: len(events) == 2)
        assert events == ["http.disconnect", "went on"]
        assert ends.owner.stats()["cancelled"] == 1


async def test_a_call_that_is_cancelled_before_its_body_is_complete_never_runs(clock: ManualClock) -> None:
    served: list[str] = []

    async def handler(call: InboundCall) -> None:
        served.append(call.head.path)
        await answer(call, b"")

    async with two_ends(handler, clock=clock) as ends:
        await ends.ask(path="/first")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(ends.ask(pattern(10_000_000), path="/cancelled"))
            await soon(lambda: ends.owner.stats()["assembling_bytes"])
            task.cancel()
        await ends.ask(path="/last")
        assert served == ["/first", "/last"]
        assert ends.owner.stats()["assembling_bytes"] == 0
        assert ends.edge.stats()["backlog_bytes"] == 0


async def test_an_error_of_the_client_ends_the_call_at_the_owner_too(clock: ManualClock) -> None:
    gone = asyncio.Event()

    async def handler(call: InboundCall) -> None:
        await call.receive()
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        await call.send({"type": "http.response.body", "body": b"x", "more_body": True})
        await call.receive()
        gone.set()

    async def broken(_: Any) -> None:
        raise ConnectionResetError

    async with two_ends(handler, clock=clock) as ends:
        with pytest.raises(ConnectionResetError):
            await ends.edge.forward(OWNER, a_head(), b"", broken)
        await soon(gone.is_set)


async def test_receive_tells_of_the_end_of_a_response_that_is_complete(clock: ManualClock) -> None:
    after: list[dict[str, Any]] = []

    async def handler(call: InboundCall) -> None:
        await echo(call)
        after.append(await call.receive())
        await call.send({"type": "http.response.body", "body": b"after the end"})

    async with two_ends(handler, clock=clock) as ends:
        assert (await ends.ask()).body == b"ping"
        await soon(lambda: after)
    assert after == [{"type": "http.disconnect"}]


async def test_a_refusal_reaches_the_caller_with_its_data(clock: ManualClock) -> None:
    async def handler(call: InboundCall) -> None:
        call.refuse("elsewhere", {"owner": "node-3.zz", "epoch": 7})

    async with two_ends(handler, clock=clock) as ends:
        with pytest.raises(NotRun) as refused:
            await ends.ask()
        assert (refused.value.reason, refused.value.data) == ("elsewhere", {"owner": "node-3.zz", "epoch": 7})
        assert (ends.edge.stats()["not_run"], ends.owner.stats()["refused"]) == (1, 1)


async def test_a_refusal_that_cannot_be_sent_leaves_the_call_to_be_answered(clock: ManualClock) -> None:
    async def handler(call: InboundCall) -> None:
        with pytest.raises(Unsendable):
            call.refuse("elsewhere", {"of": object()})
        with pytest.raises(Unsendable):
            call.refuse("elsewhere", {"large": "x" * 200_000})
        await answer(call, b"after all")

    async with two_ends(handler, clock=clock) as ends:
        assert (await ends.ask()).body == b"after all"


async def test_what_was_answered_cannot_be_refused_any_more(clock: ManualClock) -> None:
    async def handler(call: InboundCall) -> None:
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        with pytest.raises(RuntimeError, match="cannot be refused"):
            call.refuse("busy")
        await call.send({"type": "http.response.body", "body": b"answered"})

    async with two_ends(handler, clock=clock) as ends:
        assert (await ends.ask()).body == b"answered"


async def test_a_handler_that_raises_or_answers_half_fails_its_call(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(call: InboundCall) -> None:
        if call.head.path == "/raise":
            raise ZeroDivisionError
        if call.head.path == "/half":
            await call.send({"type": "http.response.start", "status": 200, "headers": []})
            await call.send({"type": "http.response.body", "body": b"half", "more_body": True})

    caplog.set_level(logging.CRITICAL)
    async with two_ends(handler, clock=clock) as ends:
        for path, reason in (("/raise", "error"), ("/nothing", "incomplete")):
            with pytest.raises(CallFailed) as failed:
                await ends.ask(path=path)
            assert failed.value.reason == reason
        heard = Heard()
        with pytest.raises(CallFailed):
            await ends.edge.forward(OWNER, a_head("/half"), b"", heard.send)
        assert (heard.status, heard.body, heard.complete) == (200, b"half", False)
        assert (ends.edge.stats()["failed"], ends.owner.stats()["given_up"]) == (3, 3)


async def test_wrong_messages_of_a_handler_are_its_own_errors(clock: ManualClock) -> None:
    async def handler(call: InboundCall) -> None:
        with pytest.raises(RuntimeError, match="must begin"):
            await call.send({"type": "http.response.body", "body": b"x"})
        with pytest.raises(ValueError, match=r"http\.response\.trailers"):
            await call.send({"type": "http.response.trailers"})
        with pytest.raises(ValueError, match="status"):
            await call.send({"type": "http.response.start", "status": 42})
        with pytest.raises(Unsendable, match="response headers"):
            await call.send({"type": "http.response.start", "status": 200, "headers": [(b"x", bytes(70_000))]})
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        with pytest.raises(RuntimeError, match="begun already"):
            await call.send({"type": "http.response.start", "status": 200, "headers": []})
        await call.send({"type": "http.response.body", "body": bytearray(b"fine"), "more_body": True})
        await call.send({"type": "http.response.body", "body": memoryview(b", still")})

    async with two_ends(handler, clock=clock) as ends:
        assert (await ends.ask()).body == b"fine, still"


async def test_beyond_max_calls_calls_are_refused_as_busy_at_either_end(clock: ManualClock) -> None:
    go = asyncio.Event()

    async def handler(call: InboundCall) -> None:
        await go.wait()
        await echo(call)

    async with two_ends(handler, clock=clock, max_calls=2) as ends, asyncio.TaskGroup() as group:
        waiting = [group.create_task(ends.ask()) for _ in range(2)]
        await soon(lambda: ends.owner.stats()["serving"] == 2)
        with pytest.raises(NotRun) as here:
            await ends.ask()
        assert (here.value.reason, here.value.data) == ("busy", {"forwarding": 2})
        async with Link(ends.hub.wire(), me="edge-2.cc", serve=echo, seals=SEALS, clock=clock) as other:
            with pytest.raises(NotRun) as there:
                await other.forward(OWNER, a_head(), b"", Heard().send)
            assert (there.value.reason, there.value.peer) == ("busy", OWNER)
        go.set()
    assert all(task.result().complete for task in waiting)


async def test_of_the_calls_that_may_be_under_way_one_tenant_has_not_all(clock: ManualClock) -> None:
    go = asyncio.Event()

    async def handler(call: InboundCall) -> None:
        await go.wait()
        await echo(call)

    loud, quiet = TenantContext("loud", "a"), TenantContext("quiet", "a")
    async with two_ends(handler, clock=clock, max_calls=8, fair=True) as ends, asyncio.TaskGroup() as group:
        waiting = [group.create_task(ends.ask(tenant=loud)) for _ in range(6)]
        await soon(lambda: ends.owner.stats()["serving"] == 6)
        with pytest.raises(NotRun) as here:
            await ends.ask(tenant=loud)
        assert (here.value.reason, here.value.data) == ("busy", {"forwarding": 6})
        async with Link(ends.hub.wire(), me="edge-2.cc", serve=echo, seals=SEALS, clock=clock) as other:
            with pytest.raises(NotRun) as there:
                await other.forward(OWNER, a_head(tenant=loud), b"", Heard().send)
            assert (there.value.reason, there.value.peer) == ("busy", OWNER)
        waiting.append(group.create_task(ends.ask(tenant=quiet)))
        await soon(lambda: ends.owner.stats()["serving"] == 7)
        go.set()
    assert all(task.result().complete for task in waiting)
    assert ends.edge.stats()["forwarding"] == 0


async def test_a_body_that_is_too_large_is_refused_while_it_arrives(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        with pytest.raises(NotRun) as refused:
            await ends.ask(bytes(16 * 1024 * 1024 + 1))
        assert refused.value.reason == "too_large"
        assert ends.owner.stats()["assembling_bytes"] == 0
        assert (await ends.ask(bytes(16 * 1024 * 1024))).complete


async def test_unfinished_bodies_are_bounded_for_all_peers_together(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.runtime.link.serving.MAX_ASSEMBLING", 200_000)
    async with two_ends(clock=clock) as ends:
        with pytest.raises(NotRun) as refused:
            await ends.ask(bytes(300_000))
        assert refused.value.reason == "busy"
        assert ends.owner.stats()["assembling_bytes"] == 0
        assert (await ends.ask(bytes(150_000))).complete


async def test_the_budget_shrinks_while_the_call_waits(clock: ManualClock) -> None:
    budgets: list[float | None] = []

    async def handler(call: InboundCall) -> None:
        budgets.append(call.head.budget)
        await answer(call, b"")

    async with two_ends(handler, clock=clock) as ends, asyncio.TaskGroup() as group:
        ends.hub.freeze(OWNER)
        group.create_task(ends.ask(budget=3.0))
        group.create_task(ends.ask(budget=None))
        lapsed = group.create_task(error_of(ends.ask(budget=0.5)))
        await clock.advance(1.0)
        ends.hub.thaw(OWNER)
    refused = lapsed.result()
    assert isinstance(refused, NotRun)
    assert refused.reason == "deadline"
    assert sorted(budgets, key=str) == [2.0, None]


async def test_the_budget_shrinks_while_the_body_arrives(clock: ManualClock) -> None:
    budgets: list[float | None] = []

    async def handler(call: InboundCall) -> None:
        budgets.append(call.head.budget)
        await answer(call, b"")

    async with two_ends(handler, clock=clock) as ends, asyncio.TaskGroup() as group:
        await ends.ask(budget=None)
        group.create_task(ends.ask(bytes(1_000_000), budget=3.0))
        await soon(lambda: ends.owner.stats()["assembling_bytes"])
        ends.hub.freeze(OWNER)
        await settle()
        await clock.advance(1.0)
        ends.hub.thaw(OWNER)
        await clock.advance(3.0)
    assert budgets[1] is not None
    assert 1.9 <= budgets[1] <= 2.0


async def test_a_head_that_cannot_be_sent_is_refused_before_anything_leaves(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        await ends.ask()
        ends.hub.sent.clear()
        with pytest.raises(Unsendable, match="head of a call"):
            await ends.ask(headers=[(b"cookie", bytes(200_000))])
        await clock.advance(5)
        assert [sender for sender, _, _ in ends.hub.sent if sender == EDGE] in ([], [EDGE])
        assert (await ends.ask()).body == b"ping"


@pytest.mark.parametrize("versions", list(product([(1, 1), (1, 2), (1, 3), (1, 4)], repeat=2)))
@pytest.mark.parametrize("announced", [True, False])
async def test_nodes_of_adjacent_versions_understand_each_other(
    clock: ManualClock, versions: tuple[tuple[int, int], tuple[int, int]], announced: bool
) -> None:
    common = negotiate(*versions)
    assert common is not None
    hub = MemoryHub(clock)
    traces: list[str] = []

    async def handler(call: InboundCall) -> None:
        traces.append(call.head.trace)
        await echo(call)

    async with (
        Link(hub.wire(), me=OWNER, serve=handler, seals=SEALS, clock=clock, versions=versions[1]) as owner,
        Link(hub.wire(), me=EDGE, serve=echo, seals=SEALS, clock=clock, versions=versions[0]) as edge,
    ):
        if announced:
            edge.set_peer_versions(OWNER, versions[1])
            owner.set_peer_versions(EDGE, versions[0])
        ends = Ends(hub, edge, owner)
        assert (await ends.ask(pattern(500_000))).body == pattern(500_000)
        assert (await ends.ask(path="/bytes/500000")).body == pattern(500_000)
        heard = Heard()
        await owner.forward(EDGE, a_head(), b"back", heard.send)
        assert heard.body == b"back"
        assert edge.stats()["foreign"] == owner.stats()["foreign"] == 0
    assert traces == (["trace-1"] * 2 if announced and common > 1 else [""] * 2)


@pytest.mark.parametrize(("deaf", "path"), [(OWNER, "/mcp"), (EDGE, "/bytes/200000")])
async def test_what_waits_for_a_deaf_peer_is_bounded(clock: ManualClock, deaf: str, path: str) -> None:
    request = b"" if deaf == EDGE else pattern(200_000)
    async with two_ends(clock=clock) as ends, asyncio.TaskGroup() as group:
        await ends.ask()
        if deaf == OWNER:
            ends.hub.freeze(OWNER)
        asked = [group.create_task(ends.ask(request, path=path)) for _ in range(100)]
        if deaf == EDGE:
            await soon(lambda: ends.owner.stats()["serving"])
            ends.hub.freeze(EDGE)
        await settle(100)
        stats = ends.owner.stats() if deaf == EDGE else ends.edge.stats()
        assert 500_000 < stats["backlog_bytes"] < 1_300_000
        assert stats["unacknowledged_bytes"] < 700_000
        ends.hub.thaw(deaf)
        await clock.advance(5.0)
    assert all(len(task.result().body) == 200_000 for task in asked)


async def test_a_version_that_becomes_known_later_is_spoken_from_then_on(clock: ManualClock) -> None:
    traces: list[str] = []

    async def handler(call: InboundCall) -> None:
        traces.append(call.head.trace)
        await answer(call, b"")

    hub = MemoryHub(clock)
    async with (
        Link(hub.wire(), me=OWNER, serve=handler, seals=SEALS, clock=clock, versions=(OLDEST, VERSION)) as owner,
        Link(hub.wire(), me=EDGE, serve=echo, seals=SEALS, clock=clock, versions=(OLDEST, VERSION)) as edge,
    ):
        ends = Ends(hub, edge, owner)
        await ends.ask()
        edge.set_peer_versions(OWNER, (OLDEST, VERSION))
        await ends.ask()
    assert traces == ["", "trace-1"]


async def test_a_peer_without_a_common_version_gets_no_call(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        ends.edge.set_peer_versions("other-1.zz", (5, 6))
        with pytest.raises(NotRun) as refused:
            await ends.edge.forward("other-1.zz", a_head(), b"", Heard().send)
        assert (refused.value.reason, refused.value.data["theirs"]) == ("version", [5, 6])


async def test_a_link_that_does_not_run_says_so(clock: ManualClock) -> None:
    link = Link(MemoryHub(clock).wire(), me=EDGE, serve=echo, seals=SEALS, clock=clock)
    with pytest.raises(LinkClosed):
        await link.forward(OWNER, a_head(), b"", Heard().send)
    async with link:
        pass
    with pytest.raises(LinkClosed):
        await link.forward(OWNER, a_head(), b"", Heard().send)


async def test_leaving_a_link_ends_its_calls_in_both_directions(clock: ManualClock) -> None:
    async def handler(call: InboundCall) -> None:
        await call.receive()
        await asyncio.Event().wait()

    async with two_ends(handler, clock=clock) as ends, asyncio.TaskGroup() as group:
        third = Link(ends.hub.wire(), me="third-1.cc", serve=handler, seals=SEALS, clock=clock)
        async with third:
            there = group.create_task(error_of(ends.edge.forward("third-1.cc", a_head(), b"", Heard().send)))
            back = group.create_task(error_of(third.forward(OWNER, a_head(), b"", Heard().send)))
            await soon(lambda: third.stats()["serving"] == 1 and ends.owner.stats()["serving"] == 1)
        await soon(lambda: ends.owner.stats()["cancelled"] == 1)
    assert isinstance(there.result(), CallFailed)
    lost = back.result()
    assert isinstance(lost, PeerGone)
    assert lost.maybe_ran


async def test_a_link_refuses_what_it_cannot_work_with(clock: ManualClock) -> None:
    hub = MemoryHub(clock)
    with pytest.raises(ConfigurationError, match="incarnation"):
        Link(hub.wire(), me="no dot", serve=echo, seals=SEALS)
    with pytest.raises(ConfigurationError, match="max_calls"):
        Link(hub.wire(), me=EDGE, serve=echo, seals=SEALS, max_calls=0)
    with pytest.raises(ConfigurationError, match="max_payload"):
        async with Link(MemoryHub(clock, max_payload=1000).wire(), me=EDGE, serve=echo, seals=SEALS):
            pass
    async with Link(hub.wire(), me=EDGE, serve=echo, seals=SEALS, clock=clock) as link:
        with pytest.raises(Unsendable, match="this node"):
            await link.forward(EDGE, a_head(), b"", Heard().send)
        with pytest.raises(ConfigurationError, match="incarnation"):
            await link.forward("*.>", a_head(), b"", Heard().send)
        with pytest.raises(ConfigurationError, match="incarnation"):
            link.rename("nothing")


async def test_an_idle_stream_causes_no_messages_and_no_timers(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # quiet-cluster, idle-is-free
    rung: list[float] = []

    def unexpected(when: float, _: object) -> None:
        rung.append(when)
        raise AssertionError("a timer was set")

    async def handler(call: InboundCall) -> None:
        await call.receive()
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        await call.send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
        await call.receive()

    async with two_ends(handler, clock=clock) as ends:
        streams = [Heard() for _ in range(50)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ends.edge.forward(OWNER, a_head(), b"", heard.send)) for heard in streams]
            await soon(lambda: all(heard.body for heard in streams))
            await clock.advance(1.0)
            ends.hub.sent.clear()
            with monkeypatch.context() as patched:
                patched.setattr(clock, "call_at", unexpected)
                await clock.advance(3600.0)
            assert ends.hub.sent == []
            assert clock.timers == 0
            assert rung == []
            for task in tasks:
                task.cancel()
