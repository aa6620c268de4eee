"""`Server`: the way to one primary, found and connected anew when it breaks, by whoever calls next."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis

from ..errors import StoreError
from .errors import RedisNotPrimary, RedisRefused, RedisSettingsError, RedisUnavailable
from .replies import code_of, refusal
from .scripts import Script
from .wire import Wire, packed

__all__ = ["Outage", "Server"]

Reply = Any

SHORTEST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""Seconds between two attempts to connect."""


class Outage:
    """Why no connection can be made, and when it is time to try again; over for all who share it as soon as one has
    been made."""

    def __init__(self) -> None:
        self._failure: RedisUnavailable | None = None
        self._pause = SHORTEST_PAUSE
        self.not_before = 0.0
        """By the event loop's clock."""

    def check(self, now: float) -> None:
        """Raises `RedisUnavailable` while it is not yet time to try again."""
        if self._failure is not None and now < self.not_before:
            kind = RedisRefused if isinstance(self._failure, RedisRefused) else RedisUnavailable
            raise kind(str(self._failure), retry_after=self._failure.retry_after)

    def failed(self, failure: RedisUnavailable, now: float) -> None:
        """An attempt has failed."""
        known = self._failure is not None and now < self.not_before
        self._failure = failure
        if known:
            # Attempts of several connections at one moment are one.
            return
        self.not_before = now + self._pause * random.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def over(self) -> None:
        """An attempt has succeeded."""
        self._failure = None
        self._pause = SHORTEST_PAUSE


class Server:
    """One connection at a time. No task keeps it alive: a call that finds none makes it, and others wait for that.

    After an attempt that failed, calls raise at once, with the reason, until it is time for the next: 0.1 to 2 seconds.

    Args:
        find: Makes a connection to whatever is the primary now.
        outage: Shared with other connections to the same server.
    """

    def __init__(self, find: Callable[[], Awaitable[Wire]], outage: Outage | None = None) -> None:
        self._find = find
        self._wire: Wire | None = None
        self._connecting = asyncio.Lock()
        self._closed = False
        self._outage = outage or Outage()
        self.connections = 0
        """Made so far."""

    @property
    def connected(self) -> bool:
        """Whether a call would be sent at once."""
        return self._wire is not None and self._wire.open

    @property
    def where(self) -> str:
        """The host and port that it was connected to last."""
        return "?" if self._wire is None else self._wire.where

    async def run(self, script: Script, *args: bytes, writing: bool) -> Reply:
        """Run a script with these keys and arguments; what it returns.

        Raises:
            StoreError: What Redis answered, or that it did not, as an error of ours.
        """
        wire = self._wire
        if wire is None or not wire.open:
            wire = await self.connect()
        reply = await wire.send(
            packed(b"EVALSHA", script.sha, script.keys, *args),
            writing=writing,
        )
        if not isinstance(reply, hiredis.ReplyError):
            return reply
        if code_of(str(reply)) == "NOSCRIPT":
            # Somebody has flushed the scripts; this teaches Redis the script again.
            reply = await wire.send(
                packed(b"EVAL", script.body, script.keys, *args),
                writing=writing,
            )
            if not isinstance(reply, hiredis.ReplyError):
                return reply
        raise self.failed(wire, str(reply), writing=writing)

    async def ask(self, *words: bytes | str | int, writing: bool = False, asking: bool = False) -> Reply:
        """Send any command; its answer, or the `hiredis.ReplyError` that is its answer. `asking`: it is about keys that
        are just being moved here."""
        wire = self._wire
        if wire is None or not wire.open:
            wire = await self.connect()
        if asking:
            wire.send(packed(b"ASKING"), writing=False)
        return await wire.send(packed(*words), writing=writing)

    def failed(self, wire: Wire | None, text: str, *, writing: bool) -> StoreError:
        """The error of ours for what Redis answered; one that is no primary any more is left."""
        error = refusal(text, self.where, writing=writing)
        if isinstance(error, RedisNotPrimary) and wire is not None:
            wire.close()
        return error

    async def connect(self) -> Wire:
        """The connection, made if there is none.

        Raises:
            RedisUnavailable: There is none now.
        """
        loop = asyncio.get_running_loop()
        async with self._connecting:
            if self._closed:
                raise RedisUnavailable("the Redis store is closed")
            if self._wire is not None and self._wire.open:
                return self._wire
            self._outage.check(loop.time())
            try:
                wire = await self._found()
            except RedisUnavailable as error:
                self._outage.failed(error, loop.time())
                raise
            if self._closed:
                wire.close()
                raise RedisUnavailable("the Redis store is closed")
            self._outage.over()
            self._wire = wire
            self.connections += 1
            return wire

    async def _found(self) -> Wire:
        try:
            return await self._find()
        except RedisSettingsError as error:
            if not self.connections:
                raise
            # A file that was there at the start: it may come back, and the call is nobody's mistake.
            raise RedisRefused(str(error)) from error

    async def connect_first(self, deadline: float) -> Wire:
        """As `connect`, at a start: a server that is not there yet, or is loading, is tried until `deadline` seconds
        have passed; one that refuses us is not tried again."""
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        while True:
            try:
                return await self.connect()
            except RedisRefused:
                raise
            except RedisUnavailable:
                pause = max(self._outage.not_before - loop.time(), 0.0) + 0.01
                if loop.time() + pause >= until:
                    raise
                await asyncio.sleep(pause)

    def close(self) -> None:
        """Break the connection, and make none any more. Idempotent."""
        self._closed = True
        if self._wire is not None:
            self._wire.close()
