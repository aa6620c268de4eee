"""Forwarded calls over a bad wire; peers that hang, die, come back, are renamed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from link.ends import EDGE, OWNER, SEALS, Ends, Heard, a_head, answer, echo, error_of, pattern, soon, two_ends
from understudy.actors.testing import ManualClock, settle
from understudy.runtime.link import InboundCall, Link, PeerGone
from understudy.runtime.link.batch import encode_batch
from understudy.runtime.link.codec import encode_frame
from understudy.runtime.link.frames import Call, RequestBody
from understudy.runtime.link.head_book import HeadBook
from understudy.runtime.link.lives import Lives
from understudy.runtime.link.seals import Seal
from understudy.runtime.link.testing import MemoryHub, MemoryWire
from understudy.runtime.link.wire import Letter


class Owner:
    """A handler that waits until it may go on."""

    def __init__(self) -> None:
        self.begun = 0
        self.disconnected = 0
        self.go = asyncio.Event()

    async def __call__(self, call: InboundCall) -> None:
        self.begun += 1
        request = await call.receive()
        if call.head.path == "/stream":
            await call.send({"type": "http.response.start", "status": 200, "headers": []})
            await call.send({"type": "http.response.body", "body": b"event", "more_body": True})
            assert (await call.receive())["type"] == "http.disconnect"
            self.disconnected += 1
            return
        await self.go.wait()
        await answer(call, request["body"])


async def pass_time(clock: ManualClock, task: asyncio.Task[object], *, most: float = 120.0) -> None:
    """Until `task` is done."""
    passed = 0.0
    while not task.done():
        assert passed < most, "it never ends"
        await clock.advance(0.05)
        passed += 0.05


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    drop=st.floats(0, 0.3),
    duplicate=st.floats(0, 0.3),
    corrupt=st.floats(0, 0.2),
    spread=st.floats(0, 0.3),
)
def test_calls_complete_over_a_bad_wire(
    seed: int, drop: float, duplicate: float, corrupt: float, spread: float
) -> None:
    async def scene() -> None:
        clock = ManualClock()
        hub = MemoryHub(clock, seed=seed)
        ran: list[str] = []

        async def handler(call: InboundCall) -> None:
            ran.append(call.head.trace)
            await echo(call)

        async with two_ends(handler, clock=clock, hub=hub) as ends, asyncio.TaskGroup() as group:
            hub.drop, hub.duplicate, hub.corrupt, hub.delay = drop, duplicate, corrupt, (0.0, spread)
            bodies = [pattern(size) for size in (0, 10, 1000, 50_000, 200_000)]
            asked = [group.create_task(ends.ask(body, trace=str(n), budget=None)) for n, body in enumerate(bodies)]
            for task in asked:
                await pass_time(clock, task)
            hub.drop = hub.duplicate = hub.corrupt = 0.0
        assert [task.result().body for task in asked] == bodies
        assert sorted(ran) == ["0", "1", "2", "3", "4"], "never-run-twice"

    asyncio.run(scene())


async def test_corrupt_and_foreign_batches_are_counted_and_dropped(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        await ends.ask()
        ends.owner.on_payload(EDGE, b"not one of ours")
        ends.owner.on_payload(EDGE, b"us\x09" + bytes(10))
        ends.owner.on_payload(EDGE, encode_batch(4, 1, 9, 0, [b"\xc1"], Seal(SEALS, EDGE, OWNER)))
        assert (await ends.ask()).body == b"ping"
        stats = ends.owner.stats()
    assert (stats["foreign"], stats["corrupt"]) == (2, 1)


async def test_a_lost_batch_costs_a_fifth_of_a_second(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends, asyncio.TaskGroup() as group:
        await ends.ask()
        ends.hub.drop = 1.0
        task = group.create_task(ends.ask())
        await settle()
        ends.hub.drop = 0.0
        await clock.advance(0.19)
        assert not task.done()
        await clock.advance(0.02)
        assert task.result().body == b"ping"
        assert ends.edge.stats()["retransmitted"] == 1


async def test_a_peer_that_hangs_does_not_swallow_a_call(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        owner.go.set()
        await ends.ask()
        await clock.advance(1.0)
        ends.hub.freeze(OWNER)
        error = group.create_task(error_of(ends.ask()))
        await clock.advance(2.0)
        assert not error.done()
        ends.edge.peer_gone(OWNER)
        await settle()
        gone = error.result()
        assert isinstance(gone, PeerGone)
        assert not gone.maybe_ran, "it only knocked"
        ends.hub.thaw(OWNER)
        await settle()
    assert owner.begun == 1


async def test_a_call_that_a_hung_peer_may_have_is_in_doubt_when_the_peer_is_given_up(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        error = group.create_task(error_of(ends.ask()))
        await soon(lambda: owner.begun)
        ends.edge.peer_gone(OWNER)
        await settle()
    gone = error.result()
    assert isinstance(gone, PeerGone)
    assert gone.maybe_ran


async def test_a_call_to_a_peer_that_has_recovered_leaves_then(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends, asyncio.TaskGroup() as group:
        ends.hub.freeze(OWNER)
        task = group.create_task(ends.ask())
        await clock.advance(1.0)
        assert ends.edge.stats()["pings"] == 5, "one at once, then every quarter of a second"
        ends.hub.thaw(OWNER)
        await settle()
        assert task.result().body == b"ping"


async def test_a_peer_that_was_just_heard_is_not_asked(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        await ends.ask()
        pings = ends.edge.stats()["pings"]
        await clock.advance(0.09)
        await ends.ask()
        assert ends.edge.stats()["pings"] == pings == 1
        await clock.advance(0.2)
        await ends.ask()
        assert ends.edge.stats()["pings"] == 2


async def test_while_calls_wait_a_silent_peer_is_asked_once_for_all_of_them(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(ends.ask())
        await soon(lambda: owner.begun == 20)
        before = ends.edge.stats()["pings"]
        await clock.advance(10.0)
        assert 38 <= ends.edge.stats()["pings"] - before <= 41
        owner.go.set()


async def test_a_peer_that_answers_nothing_is_given_up_in_the_end(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock, patience=30.0) as ends, asyncio.TaskGroup() as group:
        ran = group.create_task(error_of(ends.ask()))
        await soon(lambda: owner.begun)
        await clock.advance(1.0)
        ends.hub.part(EDGE, OWNER)
        await clock.advance(1.0)
        knocking = group.create_task(error_of(ends.ask()))
        await clock.advance(27.0)
        assert not ran.done()
        await clock.advance(3.0)
        owner.go.set()
    first, second = ran.result(), knocking.result()
    assert isinstance(first, PeerGone)
    assert isinstance(second, PeerGone)
    assert (first.maybe_ran, second.maybe_ran) == (True, False)


async def test_no_responders_ends_a_first_call_at_once_and_surely(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        with pytest.raises(PeerGone) as gone:
            await ends.edge.forward("nobody-1.zz", a_head(), b"", Heard().send)
    assert not gone.value.maybe_ran


async def test_no_responders_says_what_may_have_run_and_what_cannot(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        earlier = group.create_task(error_of(ends.ask()))
        await soon(lambda: owner.begun)
        ends.hub.cut(OWNER)
        # The peer was heard a moment ago, so this one is not preceded by a ping.
        later = group.create_task(error_of(ends.ask()))
        await settle()
        owner.go.set()
    first, second = earlier.result(), later.result()
    assert isinstance(first, PeerGone)
    assert isinstance(second, PeerGone)
    assert (first.maybe_ran, second.maybe_ran) == (True, False)
    assert owner.begun == 1


async def test_a_large_call_of_which_some_batches_arrived_cannot_have_run(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        owner.go.set()
        await ends.ask()
        task = group.create_task(error_of(ends.ask(pattern(4_000_000))))
        await soon(lambda: ends.owner.stats()["assembling_bytes"])
        ends.hub.cut(OWNER)
        await soon(task.done)
    gone = task.result()
    assert isinstance(gone, PeerGone)
    assert not gone.maybe_ran
    assert owner.begun == 1


async def test_a_response_that_has_come_whole_survives_the_death_of_its_owner(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends, asyncio.TaskGroup() as group:
        heard = Heard()
        heard.open.clear()
        group.create_task(ends.edge.forward(OWNER, a_head("/bytes/200000"), b"", heard.send))
        await settle(100)
        ends.edge.peer_gone(OWNER)
        heard.open.set()
    assert heard.body == pattern(200_000)
    assert heard.complete


async def test_what_is_told_never_to_have_left_does_not_leave_later(clock: ManualClock) -> None:
    # never-run-twice: its caller may have it run elsewhere.
    owner = Owner()
    owner.go.set()
    hub = MemoryHub(clock)
    armed = False

    class Hesitant(MemoryWire):
        def publish_at_once(self, letters: Sequence[Letter]) -> bool:
            return False

        async def publish(self, peer: str, payload: bytes, tag: str) -> bool:
            nonlocal armed
            taken = await super().publish(peer, payload, tag)
            await asyncio.sleep(0)
            if armed and len(payload) > 10_000:
                armed = False
                edge.peer_gone(OWNER)
            return taken

    async with (
        Link(hub.wire(), me=OWNER, serve=owner, seals=SEALS, clock=clock) as there,
        Link(Hesitant(hub), me=EDGE, serve=echo, seals=SEALS, clock=clock) as edge,
    ):
        ends = Ends(hub, edge, there)
        await ends.ask()
        armed = True
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(error_of(ends.ask())) for _ in range(300)]
        await settle()
        # What was answered before it was known that the peer is gone is answered.
        gone = [error for task in asked if (error := task.result()) is not None]
        assert all(isinstance(error, PeerGone) for error in gone)
        surely_not = [error for error in gone if isinstance(error, PeerGone) and not error.maybe_ran]
        assert 0 < len(surely_not) < 300
        assert owner.begun - 1 <= 300 - len(surely_not)


async def test_a_stream_ends_when_membership_says_that_its_owner_is_gone(clock: ManualClock) -> None:
    async with two_ends(Owner(), clock=clock) as ends, asyncio.TaskGroup() as group:
        heard = Heard()
        task = group.create_task(error_of(ends.edge.forward(OWNER, a_head("/stream"), b"", heard.send)))
        await soon(lambda: heard.body)
        await clock.advance(100.0)
        assert not task.done()
        ends.edge.peer_gone(OWNER)
        await settle()
    gone = task.result()
    assert isinstance(gone, PeerGone)
    assert gone.maybe_ran
    assert (heard.body, heard.complete) == (b"event", False)


async def test_when_the_edge_is_gone_its_calls_see_a_disconnect_and_go_on(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        heard = Heard()
        task = group.create_task(error_of(ends.edge.forward(OWNER, a_head("/stream"), b"", heard.send)))
        waiting = group.create_task(error_of(ends.ask()))
        await soon(lambda: heard.body and owner.begun == 2)
        ends.owner.peer_gone(EDGE)
        await soon(lambda: owner.disconnected)
        owner.go.set()
        await soon(lambda: ends.owner.stats()["serving"] == 0)
        await clock.advance(5.0)
        assert ends.owner.stats()["cancelled"] == 2
        # The edge lives all the same, and learns with its next word that the owner has given up on it.
        assert isinstance(waiting.result(), PeerGone)
        assert isinstance(task.result(), PeerGone)
        assert (await ends.ask()).body == b"ping"


async def test_a_peer_that_was_cut_off_for_a_moment_is_reached_again(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        heard = Heard()
        stream = group.create_task(error_of(ends.edge.forward(OWNER, a_head("/stream"), b"", heard.send)))
        await soon(lambda: heard.body)
        ends.hub.cut(OWNER)
        assert isinstance(await error_of(ends.ask()), PeerGone)
        assert isinstance(stream.result(), PeerGone)
        ends.hub.mend(OWNER)
        owner.go.set()
        assert (await ends.ask()).body == b"ping"
        await settle()
        assert owner.disconnected == 1, "the owner has learned that the stream's path is over"
        back = Heard()
        await ends.owner.forward(EDGE, a_head(), b"back", back.send)
        assert back.body == b"back"


async def test_after_a_reconnect_calls_go_on_even_if_the_peer_is_not_there_yet(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        running = group.create_task(ends.ask(b"running"))
        await soon(lambda: owner.begun)
        ends.hub.cut(EDGE, OWNER)
        during = group.create_task(ends.ask(b"during"))
        owner.go.set()
        await clock.advance(2.0)
        ends.hub.mend(EDGE)
        await clock.advance(1.0)
        assert not running.done()
        ends.hub.mend(OWNER)
        await clock.advance(0.5)
        assert (running.result().body, during.result().body) == (b"running", b"during")
    assert owner.begun == 2


async def test_a_peer_that_does_not_come_back_after_a_reconnect_is_gone(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock, regroup=3.0) as ends, asyncio.TaskGroup() as group:
        error = group.create_task(error_of(ends.ask()))
        await soon(lambda: owner.begun)
        ends.hub.cut(EDGE, OWNER)
        await clock.advance(1.0)
        ends.hub.mend(EDGE)
        await clock.advance(2.5)
        assert not error.done()
        await clock.advance(1.0)
        assert isinstance(error.result(), PeerGone)
        owner.go.set()


async def test_streams_survive_an_interruption_of_the_wire(clock: ManualClock) -> None:
    more = asyncio.Event()

    async def handler(call: InboundCall) -> None:
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        await call.send({"type": "http.response.body", "body": b"before ", "more_body": True})
        await more.wait()
        await call.send({"type": "http.response.body", "body": b"during", "more_body": False})

    async with two_ends(handler, clock=clock) as ends, asyncio.TaskGroup() as group:
        heard = Heard()
        group.create_task(ends.edge.forward(OWNER, a_head(), b"", heard.send))
        await soon(lambda: heard.body)
        ends.hub.cut(EDGE, OWNER)
        more.set()
        await clock.advance(5.0)
        ends.hub.mend(OWNER, EDGE)
        await clock.advance(0.3)
    assert heard.body == b"before during"


async def test_a_stream_that_was_given_up_while_its_reader_was_cut_off_ends_with_the_reconnect(
    clock: ManualClock,
) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        heard = Heard()
        stream = group.create_task(error_of(ends.edge.forward(OWNER, a_head("/stream"), b"", heard.send)))
        await soon(lambda: heard.body)
        # What the edge has sent is acknowledged, so that it would have no reason to speak.
        await clock.advance(5.0)
        ends.hub.cut(EDGE)
        assert isinstance(await error_of(ends.owner.forward(EDGE, a_head(), b"", Heard().send)), PeerGone)
        await settle()
        assert owner.disconnected == 1
        assert not stream.done()
        ends.hub.mend(EDGE)
        await soon(stream.done)
        gone = stream.result()
        assert isinstance(gone, PeerGone)
        assert gone.maybe_ran


async def test_a_stream_whose_peer_says_nothing_after_a_reconnect_ends_in_time(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        heard = Heard()
        stream = group.create_task(error_of(ends.edge.forward(OWNER, a_head("/stream"), b"", heard.send)))
        await soon(lambda: heard.body)
        await clock.advance(60.0)
        assert not stream.done(), "a silent stream is none of a dead peer"
        ends.hub.cut(EDGE)
        ends.hub.part(EDGE, OWNER)
        ends.hub.mend(EDGE)
        await pass_time(clock, stream)
        assert isinstance(stream.result(), PeerGone)


async def test_a_new_name_ends_what_the_old_one_did_in_both_directions(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        heard = Heard()
        stream = group.create_task(error_of(ends.edge.forward(OWNER, a_head("/stream"), b"", heard.send)))
        await soon(lambda: heard.body)
        ends.edge.rename("edge-1.new")
        assert ends.edge.renaming
        await settle()
        assert not ends.edge.renaming
        gone = stream.result()
        assert isinstance(gone, PeerGone)
        assert gone.maybe_ran
        assert owner.disconnected == 1, "the peer was told"
        owner.go.set()
        assert (await ends.ask()).body == b"ping"
        with pytest.raises(PeerGone) as nobody:
            await ends.owner.forward(EDGE, a_head(), b"", Heard().send)
        assert not nobody.value.maybe_ran
        back = Heard()
        await ends.owner.forward("edge-1.new", a_head(), b"back", back.send)
        assert back.body == b"back"


async def test_what_still_comes_to_the_old_name_begins_nothing(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        await ends.ask()
        ends.edge.rename("edge-1.new")
        late = [encode_frame(Call(1, a_head()), 4, HeadBook())]
        ends.edge.on_payload(OWNER, encode_batch(4, 1, 3, 0, late, Seal(SEALS, OWNER, EDGE)))
        ends.edge.on_no_responders(OWNER, "1-1")
        assert ends.edge.stats()["paths"] == 0
        assert ends.edge.stats()["serving"] == 0


async def test_a_call_that_has_not_left_goes_over_the_path_that_replaces_its_own(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        await ends.ask()
        ends.owner.peer_gone(EDGE)
        await clock.advance(10.0)
        # It knocks, and hears that the path is over: the peer lives, so this is no news of a death.
        assert (await ends.ask()).body == b"ping"
        assert ends.edge.stats()["gone"] == 0


async def test_calls_forwarded_in_the_moment_of_renaming_go_out_under_the_new_name(clock: ManualClock) -> None:
    callers: list[str] = []

    async def handler(call: InboundCall) -> None:
        callers.append(call.peer)
        await answer(call, b"")

    async with two_ends(handler, clock=clock) as ends:
        await ends.ask()
        ends.edge.rename("edge-1.new")
        await ends.ask()
        assert callers == [EDGE, "edge-1.new"]
        assert ends.edge.stats()["no_responders"] == 0


async def test_batches_of_a_life_that_is_over_do_nothing_but_tell_their_sender(clock: ManualClock) -> None:
    owner = Owner()
    owner.go.set()
    async with two_ends(owner, clock=clock) as ends:
        await ends.ask()
        frame = encode_frame(Call(9, a_head()), 4, HeadBook())
        late = encode_batch(4, 1, 4, 0, [frame], Seal(SEALS, EDGE, OWNER))
        ends.owner.peer_gone(EDGE)
        ends.owner.on_payload(EDGE, late)
        await settle()
        assert owner.begun == 1
        assert ends.owner.stats()["stale"] == 1
        assert ends.edge.stats()["paths_lost"] == 1
        assert (await ends.ask()).body == b"ping"


async def test_both_ends_may_give_up_on_each_other_at_the_same_time(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        for _ in range(5):
            await ends.ask()
            ends.edge.peer_gone(OWNER)
            ends.owner.peer_gone(EDGE)
        assert (await ends.ask()).body == b"ping"


async def test_two_that_call_each_other_first_at_the_same_time_meet_on_one_path(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        async with asyncio.TaskGroup() as group:
            there = group.create_task(ends.ask(b"there"))
            back = Heard()
            group.create_task(ends.owner.forward(EDGE, a_head(), b"back", back.send))
        assert (there.result().body, back.body) == (b"there", b"back")
        assert ends.edge.stats()["paths_lost"] == ends.owner.stats()["paths_lost"] == 0


async def test_a_peer_that_breaks_the_rules_loses_its_path_and_nothing_else(clock: ManualClock) -> None:
    hub = MemoryHub(clock)
    wire = hub.wire()

    class Ears:
        def on_payload(self, peer: str, payload: bytes) -> None: ...
        def on_no_responders(self, peer: str, tag: str) -> None: ...
        def on_reconnect(self) -> None: ...

    async with two_ends(clock=clock, hub=hub) as ends:
        await wire.listen("rogue-1.zz", Ears())
        seal = Seal(SEALS, "rogue-1.zz", OWNER)
        call = encode_frame(Call(1, a_head(), b"", True), 4, HeadBook())
        flood = encode_frame(RequestBody(1, bytes(300_000), True), 4, HeadBook())
        for path, frames in enumerate(([call, call], [call, flood]), 1):
            ends.owner.on_payload("rogue-1.zz", encode_batch(4, path, 1, 0, frames, seal))
            assert ends.owner.stats()["paths_lost"] == path
            assert ends.owner.stats()["assembling_bytes"] == 0
        assert (await ends.ask()).body == b"ping"


async def test_the_owner_that_ends_a_stream_twice_over_a_dead_path_harms_nobody(clock: ManualClock) -> None:
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        group.create_task(error_of(ends.ask()))
        await soon(lambda: owner.begun)
        ends.owner.peer_gone(EDGE)
        ends.owner.peer_gone(EDGE)
        owner.go.set()
        await settle()
        await clock.advance(5.0)
        assert ends.owner.stats()["backlog_bytes"] == 0


async def test_paths_are_bounded_and_the_idle_go_first(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.link.link.MAX_PATHS", 3)
    owner = Owner()
    async with two_ends(owner, clock=clock) as ends, asyncio.TaskGroup() as group:
        heard = Heard()
        stream = group.create_task(error_of(ends.edge.forward(OWNER, a_head("/stream"), b"", heard.send)))
        await soon(lambda: heard.body)
        for number in range(5):
            async with Link(ends.hub.wire(), me=f"other-{number}.aa", serve=echo, seals=SEALS, clock=clock) as other:
                reply = Heard()
                await other.forward(EDGE, a_head(), b"hello", reply.send)
                assert reply.body == b"hello"
                assert ends.edge.stats()["paths"] <= 3
        assert not stream.done()
        stream.cancel()
        await settle()


def test_lives_go_up_even_for_peers_that_were_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.link.lives.MAX_REMEMBERED", 2)
    lives = Lives()
    assert lives.next("a-1.x") == 1
    lives.over("a-1.x", 4)
    assert lives.next("a-1.x") == 5
    lives.over("a-1.x", 2)
    assert lives.next("a-1.x") == 5, "an older end changes nothing"
    lives.over("b-1.x", 1)
    lives.over("c-1.x", 1)
    assert lives.next("a-1.x") >= 5
    assert lives.next("never heard of") >= 5


async def test_a_handlers_tasks_end_with_the_link(clock: ManualClock) -> None:
    cancelled = asyncio.Event()

    async def handler(call: InboundCall) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with asyncio.TaskGroup() as group:
        async with two_ends(handler, clock=clock) as ends:
            assert isinstance(ends, Ends)
            task = group.create_task(error_of(ends.ask()))
            await soon(lambda: ends.owner.stats()["serving"])
        assert cancelled.is_set()
        await soon(task.done)
    assert isinstance(task.result(), Exception)
