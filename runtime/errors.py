"""What a runtime refuses before it serves anything."""

from __future__ import annotations

from ..stores import UnderstudyError

__all__ = ["ConfigurationError", "NotStarted"]


class ConfigurationError(UnderstudyError, ValueError):
    """An option of `Runtime` is out of range; the message names it, its value and what is possible."""


class NotStarted(UnderstudyError, RuntimeError):
    """The runtime was used before it was started, or after it was stopped."""

    def __init__(self) -> None:
        super().__init__(
            "the runtime is not running: enter `async with runtime:`, or give your application "
            "`lifespan=runtime.lifespan` (Starlette and FastAPI do not run the lifespan of a mounted app)"
        )
