"""`ChaosCluster`: real `serve` processes and real nats-servers, to be killed, hung, cut off and brought back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from chaos.proxy import Proxy
from chaos.store_servers import STORE_SERVERS
from support import ServerProcess
from support.nats import fresh_name
from support.ports import free_port
from support.server import UNDERSTUDY
from understudy.runtime.commands.nats_server import NatsServer, NatsServerOptions

__all__ = ["TARGET", "ChaosCluster", "ChaosNode"]

TARGET = "tests/chaos/server.py:server"


class ChaosNode(ServerProcess):
    """One node. Beside what `ServerProcess` can: it knows when it was killed, and it loses NATS alone (`proxy.cut`)."""

    def __init__(
        self,
        name: str,
        proxy: Proxy | None,
        target: str,
        *args: str,
        command: Sequence[str] = UNDERSTUDY,
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(target, *args, command=command, env=env, start_timeout=40, stop_timeout=40)
        self.name = name
        self.proxy = proxy
        self.killed_at: list[float] = []

    def kill(self) -> None:
        if self.running:
            self.killed_at.append(time.monotonic())
        super().kill()

    def leave(self) -> None:
        """End it, paused or not, and remove its log."""
        if self.running:
            self.resume()
        self.kill()
        self.__exit__()


class ChaosCluster:
    """`async with ChaosCluster(directory) as cluster`: all nodes are ready then; whatever happens, all is stopped.

    Args:
        directory: For the nats-servers and the store.
        nodes: How many, named `node-1`, `node-2`, ...
        store: `nats` (the cluster's own NATS, as is the default of `serve`), `sqlite` (one file of this machine), or a
            server of its own, so that the store can be judged while NATS is away: one of `STORE_SERVERS`; or the URL of
            one that is there.
        proxied: Each node reaches NATS through a proxy of its own.
        serve: Further options of `serve`, for each node; `per_node` those of one of them.
        nats: Of another cluster: use its nats-server.
        name: The cluster's name; None: a fresh one.
        target: What the nodes serve.
        command: What runs it, in place of `understudy serve`; `env` is added to its environment.
    """

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 3,
        store: str = "nats",
        lease: str = "3s",
        proxied: bool = False,
        serve: tuple[str, ...] = (),
        per_node: dict[str, tuple[str, ...]] | None = None,
        nats: NatsServer | None = None,
        nats_options: NatsServerOptions | None = None,
        name: str | None = None,
        target: str = TARGET,
        command: Sequence[str] = UNDERSTUDY,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name or fresh_name("chaos")
        self.lease = float(lease.removesuffix("s"))
        self.monitoring = free_port()
        """Port of nats-server's own pages, `/varz` among them."""
        options = nats_options or NatsServerOptions(more={"http": f"127.0.0.1:{self.monitoring}"})
        self.nats = nats or NatsServer(directory / "nats", options)
        self.nodes: list[ChaosNode] = []
        self.store_server = STORE_SERVERS[store][0](directory) if store in STORE_SERVERS else None
        self._directory = directory
        self._count = nodes
        self._store = store
        self._lease = lease
        self._proxied = proxied
        self._serve = serve
        self._target = target
        self._command = command
        self._env = env
        self._per_node = per_node or {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if not self.nats.running:
                await stack.enter_async_context(self.nats)
            if self.store_server is not None:
                stack.push_async_callback(self.store_server.stop)
                await self.store_server.start()
            for number in range(1, self._count + 1):
                self.nodes.append(self._node(f"node-{number}", stack))
            await asyncio.gather(*(node.astart() for node in self.nodes))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def _node(self, name: str, stack: AsyncExitStack) -> ChaosNode:
        proxy = None
        if self._proxied:
            proxy = Proxy(self.nats.port).start()
            stack.push_async_callback(asyncio.to_thread, proxy.stop)
        args = ["--cluster", self.name, "--nats", f"nats://127.0.0.1:{proxy.port if proxy else self.nats.port}"]
        args += ["--node", name, "--lease", self._lease, *self.store_arguments]
        args += [*self._serve, *self._per_node.get(name, ())]
        node = ChaosNode(name, proxy, self._target, *args, command=self._command, env=self._env)
        stack.push_async_callback(asyncio.to_thread, node.leave)
        return node

    @property
    def store_arguments(self) -> list[str]:
        if self.store_server is not None:
            return ["--store", self.store_server.url]
        if "://" in self._store:
            return ["--store", self._store]
        return ["--store", f"sqlite:///{self._directory}/sessions.db"] if self._store == "sqlite" else []

    def node(self, name: str) -> ChaosNode:
        return next(node for node in self.nodes if node.name == name)

    @property
    def ports(self) -> dict[str, int]:
        return {node.name: node.port for node in self.nodes}

    async def freeze_store(self, seconds: float) -> None:
        """The store takes nothing and answers nothing for so long; then it goes on with what it was sent."""
        server = self.store_server or self.nats
        server.pause()
        try:
            await asyncio.sleep(seconds)
        finally:
            server.resume()

    async def crash_store(self, away: float = 0.0) -> None:
        """The store ends as in a crash, and starts again with what it had kept after so many seconds."""
        if self.store_server is None:
            await self.crash_nats(away)
            return
        self.store_server.kill()
        await asyncio.sleep(away)
        await self.store_server.start()

    async def crash_nats(self, away: float = 0.0) -> None:
        """kill -9 nats-server, and start it again on the same port and data after so many seconds."""
        self.nats.kill()
        await asyncio.sleep(away)
        await self.nats.start()

    def complaints(self) -> list[str]:
        """What the nodes logged that nobody should ever have to read."""
        return [
            f"{node.name}: {line}"
            for node in self.nodes
            for line in node.output.splitlines()
            if "Traceback" in line or " ERROR " in line or "never awaited" in line
        ]
