"""`NatsWire`: the link's wire over a connected nats-py client. Needs the extra `cluster`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ...stores.nats.client import NatsClient
from .incarnation import checked_incarnation, from_token, to_token
from .wire import Letter, WireEvents

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

__all__ = ["NatsWire"]

logger = logging.getLogger(__name__)

PENDING_MESSAGES: Final = 64 * 1024
PENDING_BYTES: Final = 64 * 1024 * 1024
"""What nats-py keeps for us before it drops; what it drops comes again."""
CROWDED: Final = 1024 * 1024
"""Unflushed bytes from which a publish may have to wait for the socket."""
FLUSH_TIMEOUT: Final = 5.0
ROUND_TRIP_TIMEOUT: Final = 1.0
MAX_SUBJECTS: Final = 4096
"""Of peers, remembered each way."""
LARGE: Final = 4096
"""Bytes of a batch that holds many calls, or many answers."""
NO_RESPONDERS: Final = "503"


class NatsWire:
    """Each incarnation subscribes once, to `<prefix>.link.<me>.>`.

    A batch is published to `<prefix>.link.<peer>.<me>` with the reply subject `<prefix>.link.<me>.<peer>.<tag>`: if
    nobody listens, the server says so to that subject, and so on the same subscription, with peer and batch.

    Who owns the connection calls `reconnected` from its `reconnected_cb`. Where nobody does, a reconnect is noticed
    with the next publish.
    """

    def __init__(self, client: Client, *, prefix: str) -> None:
        """`prefix` of subjects, the cluster's own: `understudy.<cluster>`."""
        self._client = client
        self._prefix = f"{prefix}.link."
        self._events: WireEvents | None = None
        self._subscription: Subscription | None = None
        self._from_peers = ""
        self._me_token = ""
        self._heard = 0
        self._dropped_before = 0
        self._reconnects: int = client.stats["reconnects"]
        self._busy = False
        """A message is being handled, and the next ones must wait for it."""
        self._subjects: dict[str, tuple[str, str]] = {}
        """By peer: where to publish to, and the beginning of the reply subject."""
        self._peers: dict[bytes, str] = {}
        """By subject: who publishes there."""

    @property
    def max_payload(self) -> int:
        """What the server takes at once."""
        return self._client.max_payload

    @property
    def crowded(self) -> bool:
        """Whether so much waits for the socket that a publish may have to wait too."""
        return self._client.pending_data_size >= CROWDED

    @property
    def dropped(self) -> int:
        """Messages that nats-py dropped because this process was too slow for them."""
        subscription = self._subscription
        if subscription is None:
            return self._dropped_before
        return self._dropped_before + max(subscription.delivered - self._heard - subscription.pending_msgs, 0)

    async def listen(self, me: str, events: WireEvents) -> None:
        """As `Wire.listen`. A server that cannot be reached now gets the subscription when it is there again."""
        await self._unsubscribe()
        self._events = events
        self._me_token = to_token(checked_incarnation(me))
        self._from_peers = f"{self._prefix}{self._me_token}."
        self._subjects.clear()
        self._peers.clear()
        client: Any = self._client  # nats-py leaves a type argument out
        subscription = self._subscription = await client.subscribe(
            f"{self._from_peers}>",
            cb=self._on_message,
            pending_msgs_limit=PENDING_MESSAGES,
            pending_bytes_limit=PENDING_BYTES,
        )
        if isinstance(self._client, NatsClient):
            self._client.short_cut.open(subscription, self._take)

    def _take(self, subject: bytes, payload: bytes) -> bool:
        subscription = self._subscription
        if self._busy or len(payload) > LARGE or subscription is None or subscription.pending_msgs:
            return False
        self._heard += 1
        peer = self._peers.get(subject)
        if peer is None:
            self._hear(subject.decode(), payload)
        elif self._events is not None:
            self._events.on_payload(peer, payload)
        return True

    async def publish(self, peer: str, payload: bytes, tag: str) -> bool:
        """As `Wire.publish`. Without a connection nothing is kept: the link sends it again."""
        client = self._client
        if client.stats["reconnects"] != self._reconnects:
            self.reconnected()
        if not client.is_connected:
            return False
        subject, answers = self._subjects_of(peer)
        reply = answers + tag
        try:
            if not self.crowded:
                await client.publish(subject, payload, reply=reply)
            else:
                async with asyncio.timeout(FLUSH_TIMEOUT):
                    await client.publish(subject, payload, reply=reply)
        except TimeoutError:
            logger.warning("NATS has not taken anything for %g s", FLUSH_TIMEOUT)
        except Exception as error:
            # Closed, draining, or its buffer full: all the same to us, and nothing that must end the link.
            logger.debug("NATS did not take a batch for %s: %r", peer, error)
            return False
        return True

    def publish_at_once(self, letters: Sequence[Letter]) -> bool:
        """As `Wire.publish_at_once`."""
        client = self._client
        if not isinstance(client, NatsClient):
            return False
        if client.stats["reconnects"] != self._reconnects:
            self.reconnected()
        messages: list[tuple[str, bytes, str]] = []
        for peer, payload, tag in letters:
            subject, answers = self._subjects.get(peer) or self._subjects_of(peer)
            messages.append((subject, payload, answers + tag))
        return client.publish_at_once(messages)

    def _subjects_of(self, peer: str) -> tuple[str, str]:
        if len(self._subjects) >= MAX_SUBJECTS:
            self._subjects.clear()
        token = to_token(peer)
        subjects = self._subjects[peer] = (f"{self._prefix}{token}.{self._me_token}", f"{self._from_peers}{token}.")
        return subjects

    def reconnected(self) -> None:
        """The client has a new connection."""
        reconnects = self._client.stats["reconnects"]
        if reconnects != self._reconnects:
            self._reconnects = reconnects
            if self._events is not None:
                self._events.on_reconnect()

    async def catch_up(self) -> None:
        """As `Wire.catch_up`."""
        subscription = self._subscription
        if subscription is None or not self._client.is_connected:
            return
        try:
            async with asyncio.timeout(ROUND_TRIP_TIMEOUT):
                await self._client.flush()
                for _ in range(PENDING_MESSAGES):
                    if not subscription.pending_msgs and not self._busy:
                        break
                    await asyncio.sleep(0)
        except Exception as error:
            logger.debug("NATS did not tell what became of what was published: %r", error)

    async def drain(self) -> None:
        """As `Wire.drain`."""
        subscription = self._subscription
        if subscription is None or not self._client.is_connected:
            return
        client: Any = self._client
        try:
            # Not the subscription's own `drain`: what the server is handing over to us while it forgets us comes after
            # its answer, and would be dropped.
            async with asyncio.timeout(ROUND_TRIP_TIMEOUT):
                await client._send_unsubscribe(subscription._id)  # pyright: ignore[reportPrivateUsage]
                for _ in range(2):
                    await self.catch_up()
        except Exception as error:
            logger.debug("NATS did not end a subscription: %r", error)

    async def close(self) -> None:
        """As `Wire.close`. The client stays open, it is somebody else's."""
        self._events = None
        await self._unsubscribe()

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        self._dropped_before += max(subscription.delivered - self._heard - subscription.pending_msgs, 0)
        self._heard = 0
        if isinstance(self._client, NatsClient):
            self._client.short_cut.close(subscription)
        try:
            await subscription.unsubscribe()
        except Exception as error:
            # The client is closed, or draining: nothing arrives any more.
            logger.debug("NATS did not end a subscription: %r", error)

    async def _on_message(self, message: Msg) -> None:
        self._busy = True
        try:
            self._heard += 1
            status = None if message.headers is None else message.headers.get("Status")
            self._hear(message.subject, message.data, status)
            if len(message.data) > LARGE:
                # What it has caused shall be under way before the next one is looked at, else both ends take turns at
                # working: the first turn of the loop runs the calls that it brought, the second publishes answers.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        finally:
            self._busy = False

    def _hear(self, subject: str, payload: bytes, status: str | None = None) -> None:
        events = self._events
        if events is None or not subject.startswith(self._from_peers):
            # A late word to an earlier incarnation.
            return
        token, _, tag = subject[len(self._from_peers) :].partition(".")
        peer = from_token(token)
        if peer is None:
            return
        if not tag:
            if len(self._peers) >= MAX_SUBJECTS:
                self._peers.clear()
            self._peers[subject.encode()] = peer
            events.on_payload(peer, payload)
        elif status == NO_RESPONDERS:
            events.on_no_responders(peer, tag)
