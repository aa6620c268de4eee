"""Fixtures for every room's tests."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from hypothesis import settings
from support import ServerProcess
from support import free_port as find_free_port

# On a developer's machine Hypothesis looks for new faults; CI repeats what is known, so that a change is judged alone.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    return find_free_port()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., ServerProcess]]:
    """Servers under test: `async with serve("file.py:attr", "--store", "memory://") as server`.

    Takes what `support.ServerProcess` takes. What a test leaves running is killed when it ends.
    """
    async with AsyncExitStack() as stack:

        def make(target: str, *args: str, **options: object) -> ServerProcess:
            server = ServerProcess(target, *args, **options)  # type: ignore[arg-type]
            stack.push_async_callback(server.__aexit__)
            return server

        yield make
