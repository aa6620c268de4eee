"""Ports for servers under test."""

import os
import random
import re
import socket
from collections.abc import Iterator

LOWEST, HIGHEST = 16_384, 32_767
"""Below those that systems give to connections that go out: none of these takes the port of a server that is down."""
SLICES = 8


def _ports() -> Iterator[int]:
    """Those of this worker of pytest-xdist, one after the other: the others have theirs."""
    worker = re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", ""))
    number = int(worker[1]) if worker else random.randrange(SLICES)
    size = (HIGHEST - LOWEST) // SLICES
    first = LOWEST + number % SLICES * size
    port = random.randrange(size)
    while True:
        port = (port + 1) % size
        yield first + port


_next = _ports()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago, and that no other test is given for long."""
    for port in _next:
        if _free(port):
            return port
    raise AssertionError("there is always a next one")


def first_of_free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listened on a moment ago."""
    for port in _next:
        if all(_free(port + number) for number in range(count)):
            for _ in range(count - 1):
                next(_next)
            return port
    raise AssertionError("there is always a next one")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
