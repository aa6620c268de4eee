"""The garbage collector at the start of a node: off while modules load, and then without them."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["collector_paused", "start_is_over"]


@contextmanager
def collector_paused() -> Generator[None]:
    """Until the end of the block, or `start_is_over`, no garbage is collected.

    Hundreds of thousands of objects are made while modules load, nearly all to stay; walking them again and again is a
    tenth of a cold start.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def start_is_over() -> None:
    """Collect garbage from here on, and leave out what is there: what the start has made stays for good, and no full
    collection need walk it again.

    Without a collection before: it would walk all of it for a few thousand objects, while the first call waits.
    """
    gc.freeze()
    gc.enable()
