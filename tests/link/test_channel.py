"""One call at either end, without anything around it."""

from __future__ import annotations

import pytest
from link.ends import a_head, pattern
from understudy.runtime.link import CallFailed, NotRun
from understudy.runtime.link.channel import CREDIT, CallerChannel, OwnerChannel
from understudy.runtime.link.frames import Body, Call, Failed, GrantResponse, NotRunFrame, RequestBody, Start

PART = 60_000


def sent(channel: CallerChannel) -> list[Call | RequestBody]:
    """All that may be sent now."""
    frames: list[Call | RequestBody] = []
    while not channel.request_sent and (frame := channel.next_request(a_head(), PART)) is not None:
        frames.append(frame)
    return frames


def test_a_small_request_is_one_frame() -> None:
    channel = CallerChannel(7, b"body")
    assert not channel.begun
    assert sent(channel) == [Call(7, a_head(), b"body", False)]
    assert channel.begun
    assert channel.request_sent


def test_a_request_stops_at_its_credit_and_goes_on_with_more() -> None:
    body = pattern(CREDIT * 3)
    channel = CallerChannel(1, body)
    frames = sent(channel)
    assert sum(len(frame.part) for frame in frames) == CREDIT
    assert sent(channel) == []
    channel.on_grant(1000)
    (more,) = sent(channel)
    assert (len(more.part), more.more) == (1000, True)


def test_a_grant_never_exceeds_the_credit() -> None:
    channel = CallerChannel(1, pattern(CREDIT * 3))
    channel.on_grant(2**50)
    assert sum(len(frame.part) for frame in sent(channel)) == CREDIT


def test_request_and_grants_carry_a_body_of_any_size_to_the_owner() -> None:
    body = pattern(1_000_000)
    caller = CallerChannel(1, body)
    first, *rest = sent(caller)
    assert isinstance(first, Call)
    owner = OwnerChannel(first)
    while not owner.complete:
        for frame in rest:
            assert isinstance(frame, RequestBody)
            grant = owner.on_body(frame)
            if grant is not None:
                caller.on_grant(grant.size)
        rest = sent(caller)
    assert owner.take_body() == body


def test_an_owner_does_not_take_more_than_it_allowed() -> None:
    owner = OwnerChannel(Call(1, a_head(), b"", True))
    with pytest.raises(ValueError, match="must not"):
        owner.on_body(RequestBody(1, bytes(CREDIT + 1), True))
    complete = OwnerChannel(Call(1, a_head(), b"", False))
    with pytest.raises(ValueError, match="must not"):
        complete.on_body(RequestBody(1, b"after the end", False))


def test_a_caller_does_not_take_more_than_it_allowed() -> None:
    channel = CallerChannel(1, b"")
    channel.on_response(Start(1, 200, [], bytes(CREDIT), True), "owner-1.x")
    assert channel.consumed(10) is None
    channel.on_response(Body(1, b"x", True), "owner-1.x")
    assert isinstance(channel.error, CallFailed)


def test_what_was_read_is_allowed_anew() -> None:
    channel = CallerChannel(1, b"")
    channel.on_response(Start(1, 200, [], bytes(CREDIT), True), "owner-1.x")
    grant = channel.consumed(CREDIT)
    assert grant == GrantResponse(1, CREDIT)
    channel.on_response(Body(1, bytes(CREDIT), False), "owner-1.x")
    assert channel.ended
    assert channel.error is None
    assert channel.consumed(CREDIT) is None, "nobody sends any more"


def test_a_response_begins_once_and_at_the_beginning() -> None:
    for wrong in (
        [Body(1, b"x", True)],
        [Start(1, 200, [], b"", True), Start(1, 200, [], b"", True)],
        [Start(1, 200, [], b"", True), NotRunFrame(1, "busy", {})],
    ):
        channel = CallerChannel(1, b"")
        for frame in wrong:
            channel.on_response(frame, "owner-1.x")
        assert isinstance(channel.error, CallFailed)


def test_a_call_has_exactly_one_end() -> None:
    channel = CallerChannel(1, b"")
    channel.on_response(NotRunFrame(1, "busy", {"n": 1}), "owner-1.x")
    first = channel.error
    assert isinstance(first, NotRun)
    channel.on_response(Start(1, 200, [], b"late", False), "owner-1.x")
    channel.on_response(Failed(1, "error"), "owner-1.x")
    channel.fail(CallFailed("owner-1.x", "late"))
    assert channel.error is first
    assert not channel.inbox


def test_a_response_that_was_given_up_or_whose_caller_is_gone_has_no_end_of_its_own() -> None:
    owner = OwnerChannel(Call(1, a_head()))
    assert owner.give_up("x" * 1000) == Failed(1, "x" * 256)
    assert owner.give_up("again") is None
    left = OwnerChannel(Call(1, a_head()))
    left.start(200, [])
    left.caller_gone()
    assert left.flush() is None
    assert left.give_up("error") is None
