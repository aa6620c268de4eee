"""Nodes that do nothing but be members: what a cluster costs when nobody uses it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import NamedTuple

from nats.aio.client import Client

from ..actors.clock import SystemClock
from ..actors.task_owner import TaskOwner
from ..runtime.cluster.buckets import Buckets
from ..runtime.cluster.membership import Membership
from ..runtime.cluster.names import Names
from ..runtime.cluster.ownership import Ownership
from ..runtime.cluster.peers import NodeNews
from ..runtime.commands.nats_server import NatsServer
from ..stores import Address
from ..stores.nats.connection import jetstream
from .asgi import Refused
from .cpu_time import cpu_seconds
from .local_nats import connected
from .node_tables import news_of

__all__ = ["Quiet", "watch_quiet_nodes"]


class Quiet(NamedTuple):
    """What so many members caused, per second."""

    published: float
    """Messages that all of them sent."""
    delivered: float
    """Messages that all of them got."""
    node_cpu: float
    """Seconds of processor time of one of them."""
    nats_cpu: float
    """Seconds of processor time of nats-server."""


class _Member:
    """The events of a node that has nothing to lose."""

    async def renamed(self, incarnation: str) -> None: ...

    def lapsed(self, held: list[Address]) -> None: ...

    def peer_news(self, news: NodeNews) -> None: ...

    def peer_dead(self, incarnation: str) -> None: ...


async def watch_quiet_nodes(
    server: NatsServer, nodes: int, *, lease: float, windows: int, seconds: float
) -> list[Quiet]:
    """Run `nodes` real `Membership`s in this process, each on a connection of its own, and count for `windows` times
    `seconds` what they cause.

    Raises:
        Refused: They have not all heard of each other.
    """
    names = Names(f"quiet-{nodes}")
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(TaskOwner())
        clients: list[Client] = []
        members: list[Ownership] = []
        for number in range(nodes):
            client = await stack.enter_async_context(connected(server.url))
            buckets = Buckets(await jetstream(client, timeout=5.0), names, lease=lease, ttl=86_400.0, replicas=1)
            ownership = Ownership(f"node-{number:04}.none", lease=lease)
            membership = Membership(
                client,
                buckets.nodes,
                names,
                ownership,
                node=f"node-{number:04}",
                news=partial(_news, number, lease),
                events=_Member(),
                clock=SystemClock(),
            )
            await membership.join(lambda: None)
            stack.push_async_callback(membership.leave)
            for work in (membership.renew_forever(), membership.watch_forever()):
                stack.callback(tasks.spawn(work).cancel)
            clients.append(client)
            members.append(ownership)
        await asyncio.sleep(lease)
        found = [await _window(server, clients, seconds) for _ in range(windows)]
        knows = {sum(1 for _ in each.peers.alive(time.monotonic())) for each in members}
        if knows != {nodes - 1}:
            raise Refused(f"of {nodes} simulated nodes each should know {nodes - 1} others, but they know {knows}")
        return found


async def _window(server: NatsServer, clients: Sequence[Client], seconds: float) -> Quiet:
    began = time.monotonic()
    sent, got, own, theirs = _counts(server, clients)
    await asyncio.sleep(seconds)
    sent_now, got_now, own_now, theirs_now = _counts(server, clients)
    passed = time.monotonic() - began
    return Quiet(
        (sent_now - sent) / passed,
        (got_now - got) / passed,
        (own_now - own) / passed / len(clients),
        (theirs_now - theirs) / passed,
    )


def _counts(server: NatsServer, clients: Sequence[Client]) -> tuple[int, int, float, float]:
    sent = sum(client.stats["out_msgs"] for client in clients)
    got = sum(client.stats["in_msgs"] for client in clients)
    return sent, got, time.process_time(), cpu_seconds(server.pid)


def _news(number: int, lease: float, incarnation: str, serial: int) -> NodeNews:
    usual = news_of(number)
    return NodeNews(
        incarnation,
        lease,
        url=usual.url,
        pid=usual.pid,
        host=usual.host,
        sessions=usual.sessions,
        capacity=usual.capacity,
        versions=usual.versions,
        serial=serial,
        build=usual.build,
        store=usual.store,
    )
