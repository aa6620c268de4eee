"""`LocalCluster`: a whole cluster on one machine, with a nats-server of its own, that leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ...actors.task_owner import TaskOwner
from ...stores import UnderstudyError
from ...stores.nats.settings import ENVIRONMENT, NatsSettings
from .finding import announced
from .local_node import Endpoint, LocalNode, Say
from .nats_options import nats_url
from .nats_server import NatsServer, NatsServerError, NatsServerOptions
from .serve import BindError, bind
from .stop_signals import OVERTIME

__all__ = ["LocalCluster", "LocalClusterError", "LocalClusterOptions"]

MOST_NODES = 64
MOST_PORT = 65_535
NATS_POLL = 0.1
NATS_PAUSE = 0.2
LONGEST_PAUSE = 5.0

_NOT_THEIRS = (
    *ENVIRONMENT,
    "UNDERSTUDY_NODE",
    "UNDERSTUDY_ADVERTISE",
    "UNDERSTUDY_TARGET",
    "UNDERSTUDY_CLUSTER",
    "UNDERSTUDY_STORE",
)
"""Variables that each node is told in its own way, or by its arguments."""

# Waits for the end of the process that started it, however it ends, and removes its directory. nats-server is ended by
# a keeper of its own, and may write until then.
_SWEEPER = """
import os, shutil, sys, time
os.read(int(sys.argv[1]), 1)
for _ in range(600):
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    if not os.path.exists(sys.argv[2]):
        break
    time.sleep(0.05)
"""


class LocalClusterError(UnderstudyError):
    """The cluster cannot run: it could not start, or all of its nodes have given up."""


@dataclass(frozen=True, slots=True)
class LocalClusterOptions:
    """What a `LocalCluster` is made of.

    `serve` are further options of `understudy serve`, the same for every node. `drain_timeout` is theirs, in seconds.
    """

    target: str
    nodes: int = 3
    base_port: int = 8000
    """Of the first node, the others' follow; 0: free ones."""
    host: str = "127.0.0.1"
    name: str = "local"
    store: str | None = None
    """None: the cluster's NATS."""
    nats: NatsSettings | None = field(default=None, repr=False)
    """None: a nats-server of its own."""
    directory: Path | None = None
    """Where that one keeps its data; None: a temporary one, which goes at the end."""
    serve: tuple[str, ...] = ()
    path: str = "/mcp"
    tls: bool = False
    drain_timeout: float = 30.0
    inherit: bool = True
    """Whether the nodes heed UNDERSTUDY_ variables of this process that concern neither NATS nor one node."""


class LocalCluster:
    """Starts everything when entered, keeps it running while `run` is, stops everything when left.

    However this process ends, nodes and nats-server end too: they hold the other end of a pipe. What they say goes to
    `say`, line by line.
    """

    def __init__(self, options: LocalClusterOptions, say: Say) -> None:
        self.options = options
        self.nodes: list[LocalNode] = []
        self.nats: NatsServer | None = None
        """The nats-server of its own, if it has one."""
        self.nats_starts = 0
        self.settings: NatsSettings
        """How to reach its NATS, password included."""
        self._say = say
        self._stack = AsyncExitStack()
        self._hurry = False

    async def __aenter__(self) -> Self:
        """Start nats-server and the nodes, without waiting for these: see `ready`.

        Raises:
            BindError: A port is taken.
            NatsServerError: nats-server is not there, or does not start.
            NoCluster: There is no place to note which cluster runs here.
        """
        options = self.options
        if not 1 <= options.nodes <= MOST_NODES:
            raise LocalClusterError(f"a cluster on one machine has 1 to {MOST_NODES} nodes, not {options.nodes}")
        async with AsyncExitStack() as stack:
            ports = _reserved_ports(options, stack)
            self.settings = options.nats or await self._start_nats(stack)
            stack.enter_context(announced(options.name, self.settings))
            tasks = await stack.enter_async_context(TaskOwner())
            if self.nats is not None:
                stack.callback(tasks.spawn(self._keep_nats(self.nats)).cancel)
            stack.push_async_callback(self._stop_nodes)
            self.nodes = [self._node(f"node-{number}", port) for number, port in enumerate(ports, 1)]
            for node in self.nodes:
                tasks.spawn(node.keep_running())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Drain and stop the nodes, then nats-server. Cancelled, it kills them."""
        await self._stack.aclose()

    def hurry(self) -> None:
        """Do not wait for nodes to drain any longer."""
        self._hurry = True

    async def ready(self) -> None:
        """Return when every node takes new work. The caller sets the deadline.

        Raises:
            LocalClusterError: One gave up.
        """
        for node in self.nodes:
            while not await asyncio.to_thread(node.is_ready):
                if node.given_up is not None:
                    raise LocalClusterError(f"{node.name} could not start: see above")
                await asyncio.sleep(0.02)

    async def run(self) -> None:
        """Never returns.

        Raises:
            LocalClusterError: No node runs any more, nor will.
        """
        while any(node.given_up is None for node in self.nodes):  # noqa: ASYNC110 - 5 looks a second cost nothing
            await asyncio.sleep(0.2)
        raise LocalClusterError("no node could run: see above")

    # nats-server

    async def _start_nats(self, stack: AsyncExitStack) -> NatsSettings:
        directory = self.options.directory
        if directory is None:
            directory = stack.enter_context(_temporary_directory())
        # Everybody on this machine can reach its port; who may log in can read every session.
        password = secrets.token_urlsafe(24)
        options = NatsServerOptions(user="understudy", password=password)
        self.nats = nats = NatsServer(directory, options)
        await stack.enter_async_context(nats)
        self.nats_starts = 1
        return NatsSettings((nats.url,), user="understudy", password=password)

    async def _keep_nats(self, nats: NatsServer) -> None:
        pause = NATS_PAUSE
        while True:
            await asyncio.sleep(NATS_POLL)
            if nats.running:
                pause = NATS_PAUSE
                continue
            self._say("cluster", "nats-server has ended; starting it again")
            try:
                await nats.start()
                self.nats_starts += 1
            except NatsServerError as error:
                self._say("cluster", f"nats-server does not start: {error}")
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    # Nodes

    def _node(self, name: str, port: int) -> LocalNode:
        options = self.options
        args = ["serve", options.target, *options.serve, "--host", options.host, "--port", str(port), "--path"]
        args += [options.path, "--no-reload", "--cluster", options.name, "--node", name]
        if options.store is not None:
            args += ["--store", options.store]
        # Not as an argument, which everybody on this machine could read.
        environment: dict[str, str | None] = dict.fromkeys(_NOT_THEIRS)
        if not options.inherit:
            environment |= dict.fromkeys(name for name in os.environ if name.startswith("UNDERSTUDY_"))
        environment |= {"UNDERSTUDY_NATS": nats_url(self.settings), "PYTHONUNBUFFERED": "1"}
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)  # noqa: S104 - compared, not bound
        shown = f"[{host}]" if ":" in host else host
        url = f"{'https' if options.tls else 'http'}://{shown}:{port}{options.path}"
        return LocalNode(name, url, Endpoint(host, port, options.tls), args, environment, self._say)

    async def _stop_nodes(self) -> None:
        grace = self.options.drain_timeout + OVERTIME + 5.0
        async with asyncio.TaskGroup() as tasks:
            stopping = [tasks.create_task(node.stop(grace)) for node in self.nodes]
            while not all(task.done() for task in stopping):
                if self._hurry:
                    for task in stopping:
                        task.cancel()
                await asyncio.sleep(0.05)


def _reserved_ports(options: LocalClusterOptions, stack: AsyncExitStack) -> Sequence[int]:
    """The nodes' ports, seen to be free: what is taken is told before anything has started.

    Raises:
        BindError: One is taken, or the host is not this machine's.
        LocalClusterError: There are no so many ports from there on.
    """
    last = options.base_port + options.nodes - 1
    if options.base_port and last > MOST_PORT:
        raise LocalClusterError(
            f"{options.nodes} nodes from --base-port {options.base_port} on would need port {last}, and there is none "
            f"above {MOST_PORT}: take a --base-port of at most {MOST_PORT - options.nodes + 1}"
        )
    ports: list[int] = []
    with ExitStack() as probes:
        for number in range(options.nodes):
            probe = bind(options.host, options.base_port + number if options.base_port else 0, option="--base-port")
            probes.enter_context(probe)
            ports.append(probe.getsockname()[1])
    if sys.platform == "linux":
        for port in ports:
            stack.enter_context(_reservation(options.host, port))
    return ports


def _reservation(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen: while it is there, Linux gives the port to nobody who did not ask
    for it by its number, such as a client that connects while a node is being started again. A node can bind to it all
    the same, and while none has, connections are refused."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    reserved = socket.socket(family, kind, protocol)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host == "::":
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        reserved.bind(address)
    except OSError as error:
        reserved.close()
        raise BindError(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0).lower()}") from error
    return reserved


class _temporary_directory:  # noqa: N801 - used as a function
    """A directory that goes at the end of the block, and also if this process is killed."""

    def __enter__(self) -> Path:
        self._path = tempfile.mkdtemp(prefix="understudy-cluster-")
        theirs, self._lifeline = os.pipe()
        try:
            self._sweeper = subprocess.Popen(  # noqa: S603 - this interpreter
                [sys.executable, "-I", "-S", "-c", _SWEEPER, str(theirs), self._path],
                pass_fds=[theirs],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            shutil.rmtree(self._path, ignore_errors=True)
            raise
        finally:
            os.close(theirs)
        return Path(self._path)

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lifeline)
        self._sweeper.wait()
