"""`serving`: a TCP server of a test, which leaves no connection behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, *, port: int = 0, limit: int = 2**16) -> AsyncGenerator[int]:
    """Have `handler` answer each connection to the port of 127.0.0.1 that this gives; it is closed when `handler` ends.

    What is open in the end is broken, and its handlers are cancelled: `asyncio.Server` would leave both to whichever
    test runs when they are collected.
    """
    open_ones: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones[task] = writer
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass  # The other end has gone, as clients may.
        except asyncio.CancelledError:
            if not ending:
                raise
        finally:
            writer.close()
            del open_ones[task]

    ending = False
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=limit)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        ending = True
        server.close()
        await asyncio.sleep(0)  # a connection that has just been taken gets its handler
        while open_ones:
            for task, writer in open_ones.items():
                writer.transport.abort()
                task.cancel()
            await asyncio.wait(open_ones)
        await asyncio.sleep(0)  # and the last transports learn that they are closed
