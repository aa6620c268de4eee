"""`PeerSession` over a network that drops, repeats, reorders and delays: exactly once, in order, or broken."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link.ends import EDGE, OWNER, SEALS, a_head
from understudy.runtime.link import OLDEST, VERSION
from understudy.runtime.link.batch import Batch, decode_batch, encode_batch
from understudy.runtime.link.codec import encode_frame
from understudy.runtime.link.counters import LinkCounters
from understudy.runtime.link.errors import Unsendable
from understudy.runtime.link.frames import Body, Call, Cancel, Frame, Ping, Pong, RequestBody, Start
from understudy.runtime.link.head_book import HeadBook
from understudy.runtime.link.inbox import ACK_DELAY
from understudy.runtime.link.outbox import SMALL_BATCH
from understudy.runtime.link.seals import Seal
from understudy.runtime.link.session import BURST, RETRY_MIN, WINDOW, PeerSession, Sending

PART = 60_000
SEAL = Seal(SEALS, EDGE, OWNER)
"""Of both ends: who is who makes no difference here."""


def a_session(**options: float) -> PeerSession:
    return PeerSession(path=1, version=VERSION, seal=SEAL, max_payload=1024 * 1024, **options)


def payloads(session: PeerSession, now: float = 0.0) -> list[bytes]:
    return [payload for _, payload in handed(session, now)]


def handed(session: PeerSession, now: float = 0.0) -> list[Sending]:
    sendings = session.take_batches(now)
    for sending in sendings:
        session.on_handed(sending.seq)
    return sendings


def batches(session: PeerSession, now: float = 0.0) -> list[Batch]:
    return [decode_batch(payload, (OLDEST, VERSION), HeadBook(), SEAL) for payload in payloads(session, now)]


def deliver(to: PeerSession, sent: Iterable[Batch], now: float = 0.0) -> list[Frame]:
    return [frame for batch in sent for frame in to.on_batch(batch, now)]


@dataclass
class Network:
    """Two sessions and a discrete-event network between them."""

    seed: int
    drop: float
    duplicate: float
    spread: float
    random: random.Random = field(init=False)
    now: float = 0.0
    give_up: float = 1000.0
    ends: list[PeerSession] = field(init=False)
    heard: list[list[Frame]] = field(default_factory=lambda: [[], []])
    _events: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.ends = [a_session(give_up=self.give_up), a_session(give_up=self.give_up)]

    def flush(self) -> None:
        for end, session in enumerate(self.ends):
            for payload in payloads(session, self.now):
                copies = 2 if self.random.random() < self.duplicate else 1
                for _ in range(0 if self.random.random() < self.drop else copies):
                    at = self.now + 0.001 + self.random.random() * self.spread
                    heapq.heappush(self._events, (at, next(self._order), 1 - end, payload))

    def step(self) -> bool:
        """Let the next thing happen; False if nothing will."""
        self.flush()
        deadlines = [deadline for session in self.ends if (deadline := session.next_deadline()) is not None]
        arrival = self._events[0][0] if self._events else None
        when = min([*deadlines, *([] if arrival is None else [arrival])], default=None)
        if when is None:
            return False
        self.now = max(self.now, when)
        while self._events and self._events[0][0] <= self.now:
            _, _, end, payload = heapq.heappop(self._events)
            self.heard[end] += self.ends[end].on_batch(
                decode_batch(payload, (OLDEST, VERSION), HeadBook(), SEAL), self.now
            )
        for session in self.ends:
            session.on_timer(self.now)
        return not any(session.broken for session in self.ends)

    def lose_all(self) -> None:
        """The connection of one end breaks and comes back."""
        self._events.clear()
        for session in self.ends:
            session.on_reconnect(self.now)


def a_body(source: random.Random, channel: int, number: int) -> RequestBody | Body:
    size = source.choice((0, 10, 300, 5_000, PART))
    part = number.to_bytes(4, "big") + bytes(size)
    return RequestBody(channel, part, True) if source.random() < 0.5 else Body(channel, part, True)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    drop=st.floats(0, 0.4),
    duplicate=st.floats(0, 0.5),
    spread=st.floats(0, 0.5),
    frames=st.integers(0, 60),
    interruptions=st.integers(0, 3),
)
def test_every_frame_arrives_exactly_once_and_in_order(
    seed: int, drop: float, duplicate: float, spread: float, frames: int, interruptions: int
) -> None:
    network = Network(seed, drop, duplicate, spread)
    source = random.Random(seed)
    sent: list[list[RequestBody | Body]] = [[], []]
    for number in range(frames):
        end = source.randrange(2)
        frame = a_body(source, source.randrange(1, 5), number)
        network.ends[end].send(frame)
        sent[end].append(frame)
        for _ in range(source.randrange(3)):
            network.step()
        if interruptions and source.random() < 0.05:
            interruptions -= 1
            network.lose_all()
    for _ in range(20_000):
        if not network.step():
            break
    assert not any(session.broken for session in network.ends)
    assert network.now < 1000
    for end in range(2):
        heard = network.heard[1 - end]
        assert sorted(map(repr, heard)) == sorted(map(repr, sent[end]))
        for kind in (RequestBody, Body):
            for channel in range(1, 5):
                lane = [frame for frame in heard if isinstance(frame, kind) and frame.channel == channel]
                assert all(one.part[:4] < other.part[:4] for one, other in pairwise(lane))
    assert all(session.in_flight == 0 and session.backlog == 0 for session in network.ends)
    assert all(session.next_deadline() is None for session in network.ends), "an idle session wants to be woken"


def test_a_wire_that_carries_nothing_breaks_the_session_in_time() -> None:
    network = Network(1, 1.0, 0.0, 0.0, give_up=30.0)
    network.ends[0].send(Cancel(1))
    for _ in range(1000):
        if not network.step():
            break
    assert network.ends[0].broken is not None
    assert "not acknowledged" in network.ends[0].broken
    assert 30 <= network.now < 33


def test_frames_of_one_iteration_share_a_batch() -> None:
    session = a_session()
    for channel in range(1, 11):
        session.send(Call(channel, a_head()))
    (batch,) = batches(session)
    assert [frame.channel for frame in batch.frames if isinstance(frame, Call)] == list(range(1, 11))


def test_many_small_frames_are_split_so_that_both_ends_can_work_at_once() -> None:
    session = a_session()
    for channel in range(SMALL_BATCH + 1):
        session.send(Cancel(channel + 1))
    assert [len(batch.frames) for batch in batches(session)] == [SMALL_BATCH, 1]


def test_an_acknowledgement_rides_on_what_goes_the_other_way() -> None:
    one, other = a_session(), a_session()
    one.send(Call(1, a_head()))
    deliver(other, batches(one))
    other.send(Start(1, 200, []))
    (answer,) = batches(other)
    assert answer.ack == 1
    deliver(one, [answer])
    assert one.in_flight == 0
    assert other.next_deadline() is not None
    assert batches(other, 0.1) == []


def test_without_anything_the_other_way_an_acknowledgement_goes_alone_after_a_while() -> None:
    one, other = a_session(), a_session()
    one.send(Cancel(1))
    deliver(other, batches(one), 5.0)
    assert batches(other, 5.0) == []
    assert other.next_deadline() == 5.0 + ACK_DELAY
    other.on_timer(5.0 + ACK_DELAY)
    (alone,) = batches(other, 5.0 + ACK_DELAY)
    assert (alone.seq, alone.ack, alone.frames) == (0, 1, [])
    deliver(one, [alone], 5.1)
    assert one.next_deadline() is None
    assert other.next_deadline() is None


def test_the_oldest_batch_goes_again_when_its_time_is_over_and_that_time_doubles() -> None:
    session = a_session()
    session.send(Cancel(1))
    (first,) = payloads(session)
    gaps: list[float] = []
    now = 0.0
    for _ in range(6):
        deadline = session.next_deadline()
        assert deadline is not None
        session.on_timer(deadline)
        assert payloads(session, deadline) == [first]
        gaps.append(round(deadline - now, 3))
        now = deadline
    assert gaps == [RETRY_MIN, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_holes_are_filled_one_after_the_other_without_waiting_for_a_timer() -> None:
    one, other = a_session(), a_session()
    sent: list[Batch] = []
    for channel in range(1, 7):
        one.send(Cancel(channel))
        sent += batches(one)
    lost = {2, 4, 6}
    arrived = deliver(other, [batch for batch in sent if batch.seq not in lost])
    assert len(arrived) == 1
    deliver(one, batches(other))
    one.on_timer(RETRY_MIN)
    for _ in lost:
        again = batches(one, RETRY_MIN)
        assert len(again) == 1
        arrived += deliver(other, again, RETRY_MIN)
        deliver(one, batches(other, RETRY_MIN), RETRY_MIN)
    assert [frame.channel for frame in arrived if isinstance(frame, Cancel)] == [1, 2, 3, 4, 5, 6]
    other.on_timer(RETRY_MIN + ACK_DELAY)
    deliver(one, batches(other, RETRY_MIN + ACK_DELAY), RETRY_MIN + ACK_DELAY)
    assert one.in_flight == 0


def test_after_a_reconnect_everything_unacknowledged_goes_again_at_once() -> None:
    session = a_session()
    for channel in range(1, 4):
        session.send(Cancel(channel))
        batches(session)
    session.on_reconnect(0.05)
    assert [batch.seq for batch in batches(session, 0.05)] == [1, 2, 3]


def test_bulk_stops_at_the_window_and_small_frames_go_past_it() -> None:
    session = a_session()
    for channel in range(1, 21):
        session.send(Body(channel, bytes(PART), True))
    taken = 0
    while sent := payloads(session):
        taken += sum(map(len, sent))
        assert sum(map(len, sent)) <= BURST + 128 * 1024
        assert session.more_now == (session.in_flight < WINDOW)
    assert WINDOW <= taken < WINDOW + 128 * 1024
    session.send(Call(99, a_head()))
    (batch,) = batches(session)
    assert [type(frame) for frame in batch.frames] == [Call]


def test_bulk_of_different_channels_takes_turns() -> None:
    session = a_session()
    for channel in (1, 2, 3):
        for _ in range(3):
            session.send(Body(channel, bytes(PART), True))
    turns = [frame.channel for batch in batches(session) for frame in batch.frames if isinstance(frame, Body)]
    assert turns == [1, 2, 3, 1][: len(turns)]
    assert len(turns) >= 2


def test_a_small_part_does_not_overtake_the_bulk_of_its_own_channel() -> None:
    session = a_session()
    session.send(Body(1, bytes(PART), True))
    session.send(Body(1, b"the end", False))
    session.send(Cancel(7))
    frames = [frame for batch in batches(session) for frame in batch.frames]
    assert [type(frame) for frame in frames] == [Cancel, Body, Body]
    assert frames[-1] == Body(1, b"the end", False)


def test_what_waits_of_a_cancelled_call_does_not_leave() -> None:
    session = a_session()
    session.send(Call(1, a_head(), bytes(PART), True))
    session.send(RequestBody(1, bytes(PART), False))
    session.send(RequestBody(2, bytes(PART), False))
    assert session.drop(1), "the call itself was among it"
    assert not session.drop(2)
    assert not session.drop(3)
    assert session.backlog == 0
    assert batches(session) == []


def test_a_frame_that_fits_no_batch_is_refused_and_harms_nothing() -> None:
    session = PeerSession(path=1, version=VERSION, seal=SEAL, max_payload=20_000)
    with pytest.raises(Unsendable, match="the head of a call takes"):
        session.send(Call(1, a_head(path="/" * 20_000)))
    session.send(Call(1, a_head()))
    assert len(batches(session)) == 1


@pytest.mark.parametrize("room", [16_384, 65_536, 1024 * 1024])
def test_no_batch_is_larger_than_what_the_wire_carries(room: int) -> None:
    session = PeerSession(path=1, version=VERSION, seal=SEAL, max_payload=room)
    for channel in range(1, 40):
        session.send(Body(channel, bytes(channel * 150), True))
        session.send(Call(channel, a_head()))
    sizes = [len(payload) for payload in payloads(session)]
    assert sizes
    assert max(sizes) <= min(room, 128 * 1024)


def test_repeated_batches_are_counted_and_change_nothing() -> None:
    one, other = a_session(), a_session()
    one.send(Cancel(1))
    sent = batches(one)
    assert len(deliver(other, sent * 3)) == 1
    assert [batch.ack for batch in batches(other)] == [1], "the sender seems not to have heard"
    counters = LinkCounters()
    other.count_into(counters)
    assert (counters.duplicates, counters.reordered) == (2, 0)


def test_what_comes_too_early_is_kept_within_bounds() -> None:
    one, other = a_session(), a_session()
    encoded = encode_frame(Body(1, bytes(PART), True), 2, HeadBook())
    for seq in range(2, 100):
        assert (
            other.on_batch(
                decode_batch(encode_batch(2, 1, seq, 0, [encoded]), (OLDEST, VERSION), HeadBook(), SEAL), 0.0
            )
            == []
        )
    one.send(Body(1, bytes(PART), True))
    frames = deliver(other, batches(one))
    assert 10 < len(frames) < 25


def test_an_acknowledgement_of_what_was_never_sent_breaks_the_session() -> None:
    session = a_session()
    session.on_batch(decode_batch(encode_batch(2, 1, 0, 4, []), (OLDEST, VERSION), HeadBook(), SEAL), 0.0)
    assert session.broken is not None
    assert "acknowledges batch 4" in session.broken


def test_pings_are_not_repeated() -> None:
    one, other = a_session(), a_session()
    one.send(Ping(3))
    one.send(Pong(4))
    (batch,) = batches(one)
    assert (batch.seq, batch.frames) == (0, [Ping(3), Pong(4)])
    assert deliver(other, [batch]) == [Ping(3), Pong(4)]
    assert one.next_deadline() is None
    assert other.next_deadline() is None


def test_another_version_holds_for_what_has_not_left_yet() -> None:
    session = PeerSession(path=1, version=1, seal=SEAL, max_payload=1024 * 1024)
    session.send(Call(1, a_head(trace="lost in version 1")))
    session.send(Call(2, a_head(trace="bulk"), bytes(PART)))
    session.speak(2)
    frames = [frame for batch in batches(session) for frame in batch.frames]
    assert [frame.head.trace for frame in frames if isinstance(frame, Call)] == ["lost in version 1", "bulk"]


def completed(session: PeerSession, *channels: int) -> list[int]:
    """Send one whole call in a batch of its own for each channel; the sequence numbers."""
    seqs: list[int] = []
    for channel in channels:
        session.send(Call(channel, a_head()))
        seqs += [sending.seq for sending in handed(session)]
    return seqs


def test_only_calls_behind_a_batch_that_surely_reached_nobody_are_sure_not_to_have_run() -> None:
    session = a_session()
    _, second, _ = completed(session, 1, 2, 3)
    assert session.undelivered() == set()
    session.on_undelivered(second, 0.0)
    assert session.undelivered() == {2, 3}, "frames are acted on in order: without the second, the third did nothing"
    session.send(Call(4, a_head()))
    assert session.undelivered() == {2, 3, 4}


def test_a_batch_of_which_one_transmission_may_have_arrived_is_not_sure() -> None:
    session = a_session()
    (first,) = completed(session, 1)
    session.on_reconnect(0.1)
    payloads(session, 0.1)
    session.on_undelivered(first, 0.2)
    assert session.undelivered() == set()
    session.on_undelivered(first, 0.3)
    assert session.undelivered() == {1}


def test_a_batch_that_the_wire_did_not_take_has_not_arrived() -> None:
    session = a_session()
    (first,) = completed(session, 1)
    session.on_unsent(first)
    assert session.undelivered() == {1}


def test_a_call_whose_body_is_not_complete_has_no_say() -> None:
    session = a_session()
    session.send(Call(1, a_head(), b"first", True))
    (sending,) = handed(session)
    session.on_undelivered(sending.seq, 0.0)
    assert session.undelivered() == set(), "its driver knows that it was never complete"


def test_what_reached_nobody_goes_again_soon() -> None:
    session = a_session()
    (first,) = completed(session, 1)
    session.on_undelivered(first, 0.0)
    assert session.next_deadline() == pytest.approx(0.05)
    session.on_timer(0.05)
    assert [sending.seq for sending in handed(session, 0.05)] == [first]


def test_a_batch_that_was_never_handed_to_the_wire_has_not_arrived() -> None:
    session = a_session()
    completed(session, 1)
    session.send(Call(2, a_head()))
    session.take_batches(0.0)
    assert session.undelivered() == {2}
