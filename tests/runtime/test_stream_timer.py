"""A stream's one timer breaks its silence, and gives up on a client that takes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from understudy.actors.session.exchange import Exchange
from understudy.runtime.edge.stream_timer import StreamTimer

PATIENCE, SILENCE = 60.0, 15.0


class Clockwork:
    """The running loop's time and timers, by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.set: list[tuple[float, Callable[[], object], list[bool]]] = []
        self.count = 0

    def call_later(self, delay: float, callback: Callable[[], object]) -> Any:
        alive = [True]
        self.count += 1
        self.set.append((self.now + delay, callback, alive))

        class Handle:
            def cancel(self) -> None:
                alive[0] = False

        return Handle()

    @property
    def due(self) -> list[float]:
        return [when - self.now for when, _, alive in self.set if alive[0]]

    async def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [entry for entry in self.set if entry[2][0] and entry[0] <= until]:
            entry = min(due, key=lambda one: one[0])
            self.set.remove(entry)
            self.now = entry[0]
            entry[1]()
            for _ in range(5):
                await asyncio.sleep(0)
        self.now = until


@pytest.fixture
async def clockwork(monkeypatch: pytest.MonkeyPatch) -> Clockwork:
    made = Clockwork()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: made.now)
    monkeypatch.setattr(loop, "call_later", made.call_later)
    return made


class Client:
    """Takes what is sent, while it `reads`."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.took = 0
        self.silences = 0

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        self.took += 1

    def timer(self, silence: float | None = SILENCE) -> StreamTimer:
        return StreamTimer(self.send, patience=PATIENCE, silence=silence, on_silence=self._silent)

    def _silent(self) -> None:
        self.silences += 1


async def test_silence_is_told_of_when_it_has_lasted_since_the_last_write(clockwork: Clockwork) -> None:
    client = Client()
    async with client.timer() as timer:
        await timer.send({})
        await clockwork.advance(10)
        await timer.send({})
        await clockwork.advance(14.9)
        assert client.silences == 0
        await clockwork.advance(0.2)
        assert client.silences == 1
        await timer.send({})
        await clockwork.advance(14.9)
        assert client.silences == 1
        await clockwork.advance(0.2)
        assert client.silences == 2


async def test_a_silence_that_nobody_breaks_is_told_of_again(clockwork: Clockwork) -> None:
    client = Client()
    async with client.timer() as timer:
        await timer.send({})
        await clockwork.advance(4 * SILENCE)
        assert client.silences == 4


async def test_events_set_no_timers(clockwork: Clockwork) -> None:
    client = Client()
    async with client.timer() as timer:
        for _ in range(1000):
            await timer.send({})
        assert clockwork.count == 1


async def test_where_nobody_is_to_be_told_of_silence_there_soon_is_no_timer(clockwork: Clockwork) -> None:
    client = Client()
    async with client.timer(silence=None) as timer:
        await timer.send({})
        await clockwork.advance(PATIENCE)
        assert clockwork.due == []
        await timer.send({})
        assert clockwork.due == [PATIENCE]
    assert client.silences == 0


@pytest.mark.parametrize("silence", [SILENCE, None, 2 * PATIENCE])
@pytest.mark.parametrize("before", [0.0, 7.0, 59.0])
async def test_a_client_that_takes_nothing_is_given_up_when_its_time_is_over(
    clockwork: Clockwork, silence: float | None, before: float
) -> None:
    client = Client()
    given_up: list[bool] = []

    async def write() -> None:
        try:
            async with client.timer(silence) as timer:
                await timer.send({})
                await clockwork.advance(before)
                client.reads.clear()
                begun.set()
                await timer.send({})
        except TimeoutError:
            given_up.append(True)

    begun = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        await begun.wait()
        await clockwork.advance(PATIENCE - 0.1)
        assert given_up == []
        await clockwork.advance(0.2)
    assert given_up == [True]
    assert clockwork.due == []


async def test_a_slow_client_is_not_silence_and_is_not_given_up(clockwork: Clockwork) -> None:
    client = Client()
    async with client.timer() as timer:
        for _ in range(3):
            client.reads.clear()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(timer.send({}))
                await asyncio.sleep(0)
                await clockwork.advance(PATIENCE - 1)
                client.reads.set()
    assert client.silences == 0
    assert client.took == 3


async def test_a_cancellation_from_outside_stays_one(clockwork: Clockwork) -> None:
    client = Client()
    client.reads.clear()

    ended: list[type[BaseException]] = []

    async def write() -> None:
        try:
            async with client.timer() as timer:
                await timer.send({})
        except BaseException as error:
            ended.append(type(error))
            raise

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(write())
        await asyncio.sleep(0)
        task.cancel()
    assert ended == [asyncio.CancelledError]
    assert clockwork.due == []


async def test_silence_wakes_only_the_reader_that_is_meant() -> None:
    exchange = Exchange(1, "tools/call")
    first = exchange.attach(0)
    second = exchange.attach(0)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(exchange.next(second))
        await asyncio.sleep(0)
        exchange.break_silence(first)
        exchange.nudge()
        await asyncio.sleep(0)
        assert not reading.done(), "there is nothing to read"
        await asyncio.sleep(0)
        exchange.break_silence(second)
    assert reading.result() == []


async def test_a_message_that_comes_with_the_end_of_silence_is_read_and_no_comment() -> None:
    exchange = Exchange(1, "tools/call")
    generation = exchange.attach(0)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(exchange.next(generation))
        await asyncio.sleep(0)
        exchange.break_silence(generation)
        exchange.send({"jsonrpc": "2.0", "method": "x"})
    assert [number for number, _ in reading.result() or []] == [1]
