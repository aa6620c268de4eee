"""`thread_limiter`: has the threads that a call starts counted as its tenant's.

The SDK runs plain functions (tools, prompts, resources, resolvers) with `anyio.to_thread.run_sync`, and so does
FastMCP, and so do authors of tools: all of them in the event loop's default limiter, of 40 threads for everybody. Here
a limiter takes its place that knows whose call is running. Code that belongs to no call meets the one that was there
before.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from .blocking_threads import BlockingThreads

_default_thread_limiter: RunVar[Any] | None
try:
    # anyio lets the limiter's size be changed, and not its kind.
    from anyio._backends._asyncio import _default_thread_limiter  # pyright: ignore[reportPrivateUsage]
except ImportError:  # pragma: no cover - no such anyio is known
    _default_thread_limiter = None

__all__ = ["THREADS", "thread_limiter"]

logger = logging.getLogger(__name__)

THREADS: ContextVar[tuple[BlockingThreads, str] | None] = ContextVar("understudy_threads", default=None)
"""Where the threads of the running call are counted, and for which tenant."""
_HELD: ContextVar[_Held | None] = ContextVar("understudy_held_thread", default=None)


@contextmanager
def thread_limiter() -> Generator[None]:
    """While inside, the default limiter of the running event loop is one that heeds `THREADS`."""
    if _default_thread_limiter is None:  # pragma: no cover - as above
        logger.warning("this version of anyio keeps its limiter elsewhere: all tenants share one pool of threads")
        yield
        return
    before = anyio.to_thread.current_default_thread_limiter()
    limiter = before if isinstance(before, _ByTenant) else _ByTenant(before)
    _default_thread_limiter.set(limiter)
    limiter.users += 1
    try:
        yield
    finally:
        limiter.users -= 1
        if not limiter.users:
            _default_thread_limiter.set(limiter.others)


class _Held:
    """One thread of a tenant. A copy of it is in the context that the thread runs in."""

    __slots__ = ("__weakref__", "outer", "tenant", "threads")

    def __init__(self, threads: BlockingThreads, tenant: str, outer: _Held | None) -> None:
        self.threads = threads
        self.tenant = tenant
        self.outer = outer
        """That of the thread whose code has called back into the event loop, and now starts this one."""


class _ByTenant(anyio.CapacityLimiter):
    """A limiter for each tenant's threads, and `others` for the rest. Its numbers are those of `others`."""

    __slots__ = ("others", "users")

    def __new__(cls, others: anyio.CapacityLimiter) -> Self:
        # The base class makes one of the backend's.
        return object.__new__(cls)

    def __init__(self, others: anyio.CapacityLimiter) -> None:
        self.others = others
        self.users = 0

    async def __aenter__(self) -> None:
        whose = THREADS.get()
        if whose is None:
            await self.others.__aenter__()
            return
        threads, tenant = whose
        await threads.acquire(tenant)
        _HELD.set(_Held(threads, tenant, _HELD.get()))

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        if THREADS.get() is None:
            await self.others.__aexit__(exc_type, exc_val, exc_tb)
            return
        held = _HELD.get()
        assert held is not None
        _HELD.set(held.outer)
        if exc_type is None or not issubclass(exc_type, asyncio.CancelledError):
            held.threads.release(held.tenant)
            return
        # A thread cannot be stopped, and still counts while it runs: who cancels his calls would have any number of
        # them otherwise. It has ended when nothing refers to the context that it ran in any more.
        held.threads.running_on += 1
        loop = asyncio.get_running_loop()
        weakref.finalize(held, _ended_soon(loop, held.threads, held.tenant)).atexit = False
        if exc_tb is not None:
            # The frame that waits for the thread refers to the context too, and who keeps the error keeps the frame.
            loop.call_soon(_empty, exc_tb.tb_frame)

    # The rest is what code of no tenant asks for.

    @property
    def total_tokens(self) -> float:
        return self.others.total_tokens

    @total_tokens.setter
    def total_tokens(self, value: float) -> None:
        self.others.total_tokens = value

    @property
    def borrowed_tokens(self) -> int:
        return self.others.borrowed_tokens

    @property
    def available_tokens(self) -> float:
        return self.others.available_tokens

    def acquire_nowait(self) -> None:
        self.others.acquire_nowait()

    def acquire_on_behalf_of_nowait(self, borrower: object) -> None:
        self.others.acquire_on_behalf_of_nowait(borrower)

    async def acquire(self) -> None:
        await self.others.acquire()

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self.others.acquire_on_behalf_of(borrower)

    def release(self) -> None:
        self.others.release()

    def release_on_behalf_of(self, borrower: object) -> None:
        self.others.release_on_behalf_of(borrower)

    def statistics(self) -> Any:
        return self.others.statistics()


def _empty(frame: FrameType) -> None:
    with suppress(RuntimeError):  # it runs still
        frame.clear()


def _ended_soon(loop: asyncio.AbstractEventLoop, threads: BlockingThreads, tenant: str) -> Callable[[], None]:
    def ended() -> None:
        threads.running_on -= 1
        threads.release(tenant)

    def ended_soon() -> None:
        # In whichever thread let go of it last.
        if not loop.is_closed():
            loop.call_soon_threadsafe(ended)

    return ended_soon
