"""Nodes of one cluster as real processes, behind a balancer that knows nothing."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Self

from .balancer import Balancer
from .nats import fresh_name
from .server import ServerProcess


class BalancedCluster:
    """`understudy serve TARGET --cluster NAME --nats URL ARGS`, `nodes` times, and a `Balancer` in front.

    Has what a test asks of a `ServerProcess` that it only visits: `url`, `output`. Sessions are kept in NATS unless the
    arguments name a store.
    """

    def __init__(
        self,
        target: str,
        *args: str,
        nats: str,
        nodes: int = 3,
        env: Mapping[str, str] | None = None,
    ) -> None:
        options = ("--cluster", fresh_name("fleet"), "--nats", nats, "--drain-timeout", "3", *args)
        self.nodes = [
            ServerProcess(target, *options, "--node", f"node-{number}", env=env) for number in range(1, nodes + 1)
        ]
        self.balancer = Balancer([(node.host, node.port) for node in self.nodes])
        self._stack = ExitStack()

    @property
    def base_url(self) -> str:
        return self.balancer.base_url

    @property
    def url(self) -> str:
        """The MCP endpoint, at the balancer."""
        return self.balancer.url

    @property
    def output(self) -> str:
        """What every node printed."""
        return "\n".join(f"--- node {number}\n{node.output}" for number, node in enumerate(self.nodes, 1))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.push(node.__exit__)
            with ThreadPoolExecutor(len(self.nodes)) as pool:
                list(pool.map(ServerProcess.start, self.nodes))
            stack.enter_context(self.balancer)
            self._stack = stack.pop_all()
        return self

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *_: object) -> None:
        # A cancelled test must not leave nodes behind.
        await asyncio.shield(asyncio.to_thread(self.__exit__))

    def __exit__(self, *_: object) -> None:
        # All at once: each waits until its sessions have somewhere to go, or nobody is left to take them.
        for node in self.nodes:
            node.terminate()
        self._stack.close()
