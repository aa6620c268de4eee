"""The bounded queue of an actor."""

import asyncio

from support.counting import count, envelope
from understudy.actors.mailbox import Mailbox


async def test_envelopes_come_out_in_the_order_they_went_in():
    mailbox = Mailbox(3)
    sent = [envelope(count)[0] for _ in range(3)]
    assert all(mailbox.put(message) for message in sent)
    assert [mailbox.popleft() is message for message in sent] == [True] * 3


async def test_a_full_mailbox_takes_no_more_and_keeps_what_it_has():
    mailbox = Mailbox(2)
    for _ in range(2):
        mailbox.put(envelope(count)[0])
    assert not mailbox.put(envelope(count)[0])
    assert len(mailbox) == 2


async def test_withdrawn_envelopes_are_answered_when_their_room_is_needed():
    mailbox = Mailbox(3)
    sent = [envelope(count) for _ in range(4)]
    for message, _ in sent[:3]:
        mailbox.put(message)
    sent[0][0].cancel()
    sent[2][0].cancel()
    await asyncio.sleep(0)
    assert not sent[0][1].done()
    assert mailbox.put(sent[3][0])
    assert [outcome.cancelled() for _, outcome in sent] == [True, False, True, False]
    assert [message is expected for message, expected in zip(mailbox, (sent[1][0], sent[3][0]), strict=True)]
