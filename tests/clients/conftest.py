"""The servers that the clients visit, each started once: as one node, and as three behind a balancer."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from clients.guests import House
from support import BalancedCluster, ServerProcess

Open = Callable[[str, dict[str, str]], House]


@pytest.fixture(scope="session", params=["one node", "three nodes behind a balancer"])
def open_house(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Starts a server in the way that the parameter says."""
    with ExitStack() as stack:

        def start(target: str, env: dict[str, str]) -> House:
            if request.param == "one node":
                return stack.enter_context(ServerProcess(target, "--store", "memory://", env=env))
            nats = request.getfixturevalue("nats_server").url
            return stack.enter_context(BalancedCluster(target, nats=nats, env=env))

        yield start


@pytest.fixture(scope="session")
def demo(open_house: Open) -> House:
    return open_house("understudy.runtime.demo:server", {})


@pytest.fixture(scope="session")
def extras(open_house: Open, tmp_path_factory: pytest.TempPathFactory) -> House:
    folder: Path = tmp_path_factory.mktemp("extras")
    return open_house("tests/clients/server.py:server", {"EXTRAS_FOLDER": str(folder)})
