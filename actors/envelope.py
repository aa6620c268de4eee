"""`Envelope`: one message on its way to an actor."""

from __future__ import annotations

import asyncio
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Protocol

from ..stores import Address
from .actor import Access
from .errors import TurnCancelled

__all__ = ["AskerReply", "Envelope", "FutureReply", "Reply"]


class Reply(Protocol):
    """Where a turn's outcome goes. Exactly one of the two is called, once, on the event loop; neither may raise."""

    def resolve(self, result: Any) -> None:
        """The turn is over, what it changed is saved, and `result` is what it returned."""
        ...

    def fail(self, error: BaseException) -> None:
        """`error` is what the turn raised, one of `actors.errors`, or `asyncio.CancelledError` if it was cancelled."""
        ...


@dataclass(slots=True)
class Envelope:
    """A message, how it wants to be handled, and who waits for the outcome."""

    message: Any
    access: Access = Access.EXCLUSIVE
    reply: Reply | None = None
    deadline: float | None = None
    """Monotonic time (the registry's clock) after which the turn is not started, or is cancelled if it runs."""
    context: Context | None = None
    """Run the turn in a task of its own with this context; None: in the actor's own, which costs less."""
    cancelled: bool = False
    """Set by `cancel`: a turn that has not started never does; its reply fails with `CancelledError`."""
    inner: bool = False
    """Sent by a turn of the same actor that runs and waits for it, to save what that turn changed. So it is handled
    even while the actor only finishes its turns before it leaves; the store judges what it saves."""

    at_once: bool = False
    """If nothing else runs, the turn has come as far as its first wait when `deliver` returns. For who may be held up
    by it. Says nothing for a message with a deadline, or without a context of its own."""

    def cancel(self) -> None:
        """Withdraw the message if its turn has not started. A running turn is the actor's own to stop."""
        self.cancelled = True


class FutureReply:
    """A reply that somebody awaits."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future

    def resolve(self, result: Any) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        if self.future.done():
            return
        if isinstance(error, asyncio.CancelledError):
            self.future.cancel()
        else:
            self.future.set_exception(error)


class AskerReply(FutureReply):
    """The cancelled turn must not look as if the asker itself had been cancelled."""

    __slots__ = ("_address",)

    def __init__(self, future: asyncio.Future[Any], address: Address) -> None:
        self.future = future
        self._address = address

    def fail(self, error: BaseException) -> None:
        super().fail(TurnCancelled(self._address) if isinstance(error, asyncio.CancelledError) else error)
