"""The noisy tenant of `understudy bench noisy`, in a process of its own: `python -m understudy.bench.noise JSON`.

It answers each line of its standard input with one of JSON: `start` and `stop` with null, `counts` with how many calls
were answered, refused (429, 503), and not made because all connections were in use. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from typing import Any

from .asgi import Refused
from .clients import PreparedCall
from .http_client import HttpConnection, RemoteSession, open_session

__all__ = ["TIMES"]

TIMES = 50
"""How many times its share the noisy tenant takes."""
_AT_ONCE = 20
_NICE = 5
"""On a machine of its own the tenant would not take the processor from whoever is measured, either."""


class Noise:
    """Calls over many connections, each with a session of its own."""

    def __init__(self, port: int, connections: int, rate: float | None, call: PreparedCall) -> None:
        """`rate` in calls a second, whatever becomes of them (an open loop); None: each connection makes one call after
        the other.
        """
        self._port = port
        self._headers = {"authorization": "noisy"}
        self._count = connections
        self._rate = rate
        self._callers: list[tuple[HttpConnection, RemoteSession]] = []
        self._call = call
        self._running = False
        self.answered = 0
        self.refused = 0
        self.not_made = 0

    async def connect(self) -> None:
        """Open all sessions."""

        async def some(count: int) -> None:
            for _ in range(count):
                connection = await HttpConnection.open("127.0.0.1", self._port)
                self._callers.append((connection, await open_session(connection, self._headers)))

        async with asyncio.TaskGroup() as tasks:
            for start in range(_AT_ONCE):
                tasks.create_task(some(len(range(start, self._count, _AT_ONCE))))

    async def run(self) -> None:
        """Until `stop`; ends when the last call has been answered."""
        self._running = True
        async with asyncio.TaskGroup() as tasks:
            if self._rate is None:
                for connection, session in self._callers:
                    tasks.create_task(self._one_after_the_other(connection, session))
            else:
                await self._offer(self._rate, tasks)

    def stop(self) -> None:
        self._running = False

    async def _one_after_the_other(self, connection: HttpConnection, session: RemoteSession) -> None:
        while self._running:
            await self._once(connection, session)

    async def _offer(self, rate: float, tasks: asyncio.TaskGroup) -> None:
        free = deque(self._callers)
        clock = asyncio.get_running_loop().time
        due = clock()

        async def once(caller: tuple[HttpConnection, RemoteSession]) -> None:
            try:
                await self._once(*caller)
            finally:
                free.append(caller)

        while self._running:
            await asyncio.sleep(0.001)
            # What could not be offered while this process had to wait itself is not made up for.
            due = max(due, clock() - 0.1)
            while due <= clock():
                due += 1 / rate
                if free:
                    tasks.create_task(once(free.popleft()))
                else:
                    self.not_made += 1

    async def _once(self, connection: HttpConnection, session: RemoteSession) -> None:
        answer = await connection.send(session.request(self._call.body()))
        if answer.status == 200:
            self.answered += 1
        elif answer.status in (429, 503):
            self.refused += 1
            await asyncio.sleep(0.01)
        else:
            raise Refused(f"a noisy call failed with status {answer.status}: {answer.body[:300]!r}")


async def main(port: int, connections: int, rate: float | None, tool: str, arguments: dict[str, Any]) -> None:
    os.nice(_NICE)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    noise = Noise(port, connections, rate, PreparedCall(tool, arguments))
    await noise.connect()
    _say(None)
    async with asyncio.TaskGroup() as tasks:
        running: asyncio.Task[None] | None = None
        while command := (await commands.readline()).strip():
            if command == b"start":
                running = tasks.create_task(noise.run())
            elif command == b"stop" and running is not None:
                noise.stop()
                await running
            _say([noise.answered, noise.refused, noise.not_made] if command == b"counts" else None)
        noise.stop()


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
