"""`understudy bench actors`: messages a second, beside Pykka (an actor is a thread) and a bare `asyncio.Queue`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import pykka

from ..actors import Access, Actor, Cell, Envelope, MailboxFull, Registry
from ..stores import Address, MemoryStore, Record
from .measure import Effort, Progress, Side, in_flight, interleave
from .report import Report, Scenario, Series, Target, ratio

__all__ = ["bench_actors"]

FAN_OUT = 10_000
"""Actors that get one message each."""
QUICK_FAN_OUT = 20
ASKERS = 100
"""Messages in flight at one actor."""
MAILBOX = 1024
"""Messages that may wait: understudy's default, and the bound of each queue beside it."""

PYKKA_TARGET = Target("at least", 5.0)
QUEUE_TARGET = Target("at least", 0.5)


async def bench_actors(effort: Effort, progress: Progress) -> Report:
    """Measure; `effort` says how long. Four scenarios, each with the messages a second of three sides."""
    crowd = QUICK_FAN_OUT if effort.quick else FAN_OUT
    scenarios = [
        await _scenario(
            "one actor, tell", 1, lambda crowd, times: crowd.tell(times), effort, progress, judged_by_queue=True
        ),
        await _scenario("one actor, ask, one at a time", 1, lambda crowd, times: crowd.ask(times), effort, progress),
        await _scenario(
            f"one actor, ask, {ASKERS} in flight",
            1,
            lambda crowd, times: crowd.ask_at_once(times),
            effort,
            progress,
            at_once=ASKERS,
        ),
        await _scenario(
            f"{crowd:,} actors, one message to each and all answers",
            crowd,
            lambda crowd, times: crowd.fan_out(times),
            # Ten thousand messages are a slice already, and ten thousand threads a burden.
            replace(effort, slices=1),
            progress,
        ),
    ]
    return Report("actors", tuple(scenarios), effort.quick)


class AnyCrowd(Protocol):
    """What each side can do. `times` counts messages; each call returns when all have been handled."""

    async def tell(self, times: int) -> None: ...

    async def ask(self, times: int) -> None: ...

    async def ask_at_once(self, times: int) -> None: ...

    async def fan_out(self, times: int) -> None: ...


Work = Callable[[AnyCrowd, int], Awaitable[None]]


async def _scenario(
    name: str,
    size: int,
    work: Work,
    effort: Effort,
    progress: Progress,
    *,
    at_once: int | None = None,
    judged_by_queue: bool = False,
) -> Scenario:
    async with AsyncExitStack() as stack:
        progress(f"{name}: starting actors")
        crowds = [
            await stack.enter_async_context(_crowd(size)),
            await stack.enter_async_context(_pykka_crowd(size)),
            await stack.enter_async_context(_queue_crowd(size)),
        ]
        sides = [
            Side(
                side,
                partial(work, crowd),
                at_once=at_once or size,
                # Threads that have answered want the interpreter once more before they wait again.
                rest=partial(asyncio.sleep, 0.5 if size >= FAN_OUT else 0.01),
            )
            for side, crowd in zip(("understudy", "Pykka", "asyncio.Queue"), crowds, strict=True)
        ]
        seconds = await interleave(sides, effort, lambda said: progress(f"{name}: {said}"))
    understudy, pykka_, queue = (
        Series(side.name, "messages/s", tuple(1 / each for each in figures))
        for side, figures in zip(sides, seconds, strict=True)
    )
    comparisons = (
        ratio("understudy / Pykka", understudy, pykka_, PYKKA_TARGET),
        ratio("understudy / asyncio.Queue", understudy, queue, QUEUE_TARGET if judged_by_queue else None),
    )
    return Scenario(name, (understudy, pykka_, queue), comparisons)


class Adder:
    """An actor that adds up what it is told."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0

    async def receive(self, message: Any, access: Access) -> int:
        self.total += message
        return self.total

    def snapshot(self) -> None:
        return None

    def saved(self) -> None: ...

    def rollback(self) -> None: ...

    async def close(self) -> None: ...


class Adders:
    """The kind of `Adder`s: not durable, as nothing beside them is."""

    name = "adder"
    durable = False
    ttl = 3600.0

    async def create(self, cell: Cell, seed: Any) -> Actor:
        return Adder()

    async def rehydrate(self, cell: Cell, record: Record) -> Actor:
        return Adder()


class Crowd(NamedTuple):
    """Live actors of a registry."""

    registry: Registry
    addresses: list[Address]

    async def tell(self, times: int) -> None:
        """Tell the first as fast as its mailbox takes it, and wait until it has come to the last."""
        registry, address = self.registry, self.addresses[0]
        for _ in range(times):
            while True:
                try:
                    registry.tell(address, 1)
                    break
                except MailboxFull:
                    await asyncio.sleep(0)
        while True:
            try:
                await registry.ask(address, 0)
                return
            except MailboxFull:
                await asyncio.sleep(0)

    async def ask(self, times: int) -> None:
        """Ask the first, one after the other."""
        registry, address = self.registry, self.addresses[0]
        for _ in range(times):
            await registry.ask(address, 1)

    async def ask_at_once(self, times: int) -> None:
        """Many who ask the first, each one after the other."""
        registry, address = self.registry, self.addresses[0]
        await in_flight([lambda: registry.ask(address, 1)] * ASKERS)(times)

    async def fan_out(self, times: int) -> None:
        """One message to each, then all answers."""
        registry = self.registry
        for _ in range(times // len(self.addresses)):
            answers = Answers(len(self.addresses))
            for address in self.addresses:
                registry.deliver(address, Envelope(1, reply=answers))
            await answers.all


class Answers:
    """A reply for many: done when all have answered."""

    __slots__ = ("_missing", "all")

    def __init__(self, expected: int) -> None:
        self.all: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._missing = expected

    def resolve(self, result: Any) -> None:
        self._missing -= 1
        if not self._missing:
            self.all.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self.all.done():
            self.all.set_exception(error)


@asynccontextmanager
async def _crowd(size: int) -> AsyncGenerator[Crowd]:
    async with Registry(store=MemoryStore(), kinds=[Adders()], mailbox_size=MAILBOX, idle_after=3600) as registry:
        crowd = Crowd(registry, [Address.new("adder") for _ in range(size)])
        await crowd.fan_out(size)
        yield crowd


class PykkaAdder(pykka.ThreadingActor):
    """The same in Pykka."""

    use_daemon_thread = True

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def on_receive(self, message: Any) -> int:
        self.total += message
        return self.total


class PykkaCrowd(NamedTuple):
    """Running Pykka actors. They have threads of their own, so blocking the event loop costs them nothing."""

    actors: list[pykka.ActorRef[PykkaAdder]]

    async def tell(self, times: int) -> None:
        actor = self.actors[0]
        for _ in range(times):
            actor.tell(1)
        actor.ask(0)

    async def ask(self, times: int) -> None:
        actor = self.actors[0]
        for _ in range(times):
            actor.ask(1)

    async def ask_at_once(self, times: int) -> None:
        actor = self.actors[0]
        for _ in range(times // ASKERS):
            pykka.get_all([actor.ask(1, block=False) for _ in range(ASKERS)])

    async def fan_out(self, times: int) -> None:
        for _ in range(times // len(self.actors)):
            pykka.get_all([actor.ask(1, block=False) for actor in self.actors])


@asynccontextmanager
async def _pykka_crowd(size: int) -> AsyncGenerator[PykkaCrowd]:
    crowd = PykkaCrowd([PykkaAdder.start() for _ in range(size)])
    try:
        yield crowd
    finally:
        for actor in crowd.actors:
            actor.stop(block=False)


class QueueCrowd(NamedTuple):
    """Bare loops around a queue: what an actor costs when it is only a mailbox."""

    queues: list[asyncio.Queue[Any]]
    """Of messages with the function to answer them."""
    told: asyncio.Queue[int]
    """Of messages alone."""

    async def tell(self, times: int) -> None:
        queue = self.told
        for _ in range(times):
            await queue.put(1)
        await queue.join()

    async def ask_once(self) -> None:
        answer = asyncio.get_running_loop().create_future()
        await self.queues[0].put((1, answer.set_result))
        await answer

    async def ask(self, times: int) -> None:
        for _ in range(times):
            await self.ask_once()

    async def ask_at_once(self, times: int) -> None:
        await in_flight([self.ask_once] * ASKERS)(times)

    async def fan_out(self, times: int) -> None:
        for _ in range(times // len(self.queues)):
            answers = Answers(len(self.queues))
            for queue in self.queues:
                await queue.put((1, answers.resolve))
            await answers.all


@asynccontextmanager
async def _queue_crowd(size: int) -> AsyncGenerator[QueueCrowd]:
    crowd = QueueCrowd([asyncio.Queue(MAILBOX) for _ in range(size)], asyncio.Queue(MAILBOX))
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_answer(queue)) for queue in crowd.queues]
        running.append(tasks.create_task(_add(crowd.told)))
        try:
            yield crowd
        finally:
            for task in running:
                task.cancel()


async def _add(queue: asyncio.Queue[int]) -> None:
    total = 0
    while True:
        total += await queue.get()
        queue.task_done()


async def _answer(queue: asyncio.Queue[Any]) -> None:
    total = 0
    while True:
        message, answer = await queue.get()
        total += message
        answer(total)
