"""Messages that are handed over where they are read: which ones, and what becomes of the bytes of all others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from link.ends import EDGE, OWNER, SEALS, Heard, a_head, echo, pattern
from support.nats import fresh_name
from understudy.runtime.link import Link
from understudy.runtime.link.nats_wire import NatsWire
from understudy.stores.nats.client import NatsClient
from understudy.stores.nats.connection import close, connect
from understudy.stores.nats.settings import NatsSettings
from understudy.stores.nats.short_cut import ShortCut


class Taken:
    """A subscription with the number 7, and what it was offered."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.takes = True
        self.stats = {"in_msgs": 0, "in_bytes": 0}
        self.subscription: Any = SimpleNamespace(_id=7, _received=0)
        self.short_cut = ShortCut(self.stats)
        self.short_cut.open(self.subscription, self.take)

    def take(self, subject: bytes, payload: bytes) -> bool:
        if self.takes:
            self.messages.append((subject, payload))
        return self.takes


def message(payload: bytes, *, sid: int = 7, reply: bytes = b"") -> bytes:
    return b"MSG a.b %d %b%d\r\n%b\r\n" % (sid, reply and reply + b" ", len(payload), payload)


def test_whole_messages_are_taken_and_counted() -> None:
    taken = Taken()
    assert taken.short_cut.read(message(b"one\r\nMSG") + message(b"", reply=b"c.d")) == b""
    assert taken.messages == [(b"a.b", b"one\r\nMSG"), (b"a.b", b"")]
    assert taken.subscription._received == taken.stats["in_msgs"] == 2
    assert taken.stats["in_bytes"] == 8


@pytest.mark.parametrize(
    "rest",
    [
        b"PING\r\n",
        b"PING\r\n" + message(b"behind it"),
        message(b"of another subscription", sid=8) + message(b"behind it"),
        message(b"cut short")[:-1],
        message(b"cut short")[:9],
        b"M",
        b"HMSG a.b 7 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        b"MSG a.b 7 -1\r\n",
        b"MSG a.b 7\r\n",
        b"MSG\r\n",
        b"MSG a.b 7 c.d e.f 3\r\nabc\r\n",
    ],
)
def test_everything_else_is_left_with_all_that_is_behind_it(rest: bytes) -> None:
    taken = Taken()
    assert taken.short_cut.read(message(b"first") + rest) == rest
    assert taken.messages == [(b"a.b", b"first")]


def test_what_is_refused_is_left_with_all_that_is_behind_it() -> None:
    taken = Taken()
    taken.takes = False
    both = message(b"one") + message(b"two")
    assert taken.short_cut.read(both) == both
    assert taken.subscription._received == taken.stats["in_msgs"] == 0


def test_a_subscription_that_is_closed_is_left_alone() -> None:
    taken = Taken()
    taken.short_cut.close(taken.subscription)
    taken.short_cut.close(taken.subscription)
    assert taken.short_cut.read(message(b"one")) == message(b"one")


def test_who_fails_at_one_message_gets_the_next(caplog: pytest.LogCaptureFixture) -> None:
    taken = Taken()
    heard: list[bytes] = []

    def fails_first(_: bytes, payload: bytes) -> bool:
        heard.append(payload)
        if len(heard) == 1:
            raise RuntimeError("a bug")
        return True

    taken.short_cut.open(taken.subscription, fails_first)
    with caplog.at_level(logging.ERROR):
        assert taken.short_cut.read(message(b"one") + message(b"two")) == b""
    assert heard == [b"one", b"two"]
    assert "could not be handled" in caplog.text


@given(st.lists(st.binary(max_size=30)), st.data())
def test_however_the_bytes_come_nothing_is_lost_or_doubled(payloads: list[bytes], data: st.DataObject) -> None:
    taken = Taken()
    stream = b"".join(map(message, payloads))
    at = data.draw(st.integers(0, len(stream)))
    left = taken.short_cut.read(stream[:at])
    assert taken.short_cut.read(left + stream[at:]) == b""
    assert [payload for _, payload in taken.messages] == payloads


@asynccontextmanager
async def node(url: str, me: str, prefix: str) -> AsyncIterator[tuple[Link, NatsWire, NatsClient]]:
    client = await connect(NatsSettings.from_url(url), name=me)
    try:
        wire = NatsWire(client, prefix=prefix)
        async with Link(wire, me=me, serve=echo, seals=SEALS) as link:
            await client.flush()
            yield link, wire, client
    finally:
        await close(client)


async def test_calls_of_all_sizes_cross_a_real_server_whichever_way_they_are_read(nats_url: str) -> None:
    prefix = fresh_name("understudy.test")
    async with node(nats_url, OWNER, prefix), node(nats_url, EDGE, prefix) as (edge, wire, client):
        for size in (0, 10, 3000, 5000, 60_000, 3_000_000, 10):
            heard = Heard()
            await edge.forward(OWNER, a_head(f"/bytes/{size}"), b"", heard.send)
            assert heard.body == pattern(size)
        assert client.short_cut.taken > 0
        assert wire.dropped == 0
        await client.force_reconnect()
        while not client.is_connected:
            await asyncio.sleep(0.01)
        wire.reconnected()
        before = client.short_cut.taken
        heard = Heard()
        await edge.forward(OWNER, a_head(), b"after a reconnect", heard.send)
        assert heard.body == b"after a reconnect"
        assert client.short_cut.taken > before
        assert edge.stats()["corrupt"] == edge.stats()["foreign"] == 0
