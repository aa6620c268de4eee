"""The servers that the clients visit, each started once."""

from collections.abc import Iterator

import pytest
from support import ServerProcess


@pytest.fixture(scope="session")
def demo() -> Iterator[ServerProcess]:
    with ServerProcess("understudy.runtime.demo:server", "--store", "memory://") as server:
        yield server


@pytest.fixture(scope="session")
def extras() -> Iterator[ServerProcess]:
    with ServerProcess("tests/clients/server.py:server", "--store", "memory://") as server:
        yield server
