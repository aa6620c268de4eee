"""`Operator`: how a command looks at a running cluster and tells its nodes what to do. Needs nats-py."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Self, cast

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from ...stores.nats.connection import close, connect, jetstream, translated
from ..cluster.control import ControlError, NobodyThere, ask
from ..cluster.errors import ClusterError
from ..cluster.key_ring import keys_in
from ..cluster.names import Names, checked_node
from ..cluster.node_news import unpack_news
from ..cluster.peers import NodeNews
from ..errors import ConfigurationError
from ..link.seals import Seals
from .finding import Found, NoCluster
from .operator_errors import OperatorError

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from ...stores.nats.client import NatsClient

__all__ = ["NodeSeen", "Operator"]

TIMEOUT: Final = 5.0
AT_ONCE: Final = 32
LEARN_EVERY: Final = 60.0
"""Seconds between two looks at the keys, which a command that lasts may outlive."""
_NODES_STREAM: Final = re.compile(r"KV_understudy_([A-Za-z0-9_-]+)_nodes")


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node's lease, and how long ago it was renewed, by the clock of NATS."""

    news: NodeNews
    age: float

    @property
    def alive(self) -> bool:
        return self.age < self.news.lease

    @property
    def condition(self) -> str:
        """In a word."""
        if not self.alive:
            return "lost"
        return "draining" if self.news.draining else "up"


class Operator:
    """One command's connection to one cluster. Whatever goes wrong is an `OperatorError`, or one of NATS'."""

    def __init__(
        self, connection: NatsClient, jetstream: JetStreamContext, names: Names, keys: Sequence[bytes]
    ) -> None:
        """`keys`: those that the cluster was given; none: it keeps its own in NATS, and changes them now and then."""
        self._connection = connection
        self._jetstream = jetstream
        self.names = names
        self._seals = Seals(names.cluster, keys)
        self._given = bool(keys)
        self._learned_at = -LEARN_EVERY

    @classmethod
    @asynccontextmanager
    async def reach(cls, found: Found) -> AsyncGenerator[Self]:
        """Connect; leaving closes the connection.

        Raises:
            NatsUnavailable: NATS does not answer, or refuses us.
            JetStreamMissing: It runs without.
            NoCluster: It is not said which cluster, and NATS knows none or several.
        """
        connection = await connect(found.settings, name="understudy operator", deadline=TIMEOUT)
        try:
            # First, as without JetStream there is no cluster to look for.
            streams = await jetstream(connection, timeout=TIMEOUT)
            name = found.name if found.name is not None else await _only_cluster(connection)
            yield cls(connection, streams, Names(name), found.keys)
        finally:
            await close(connection)

    async def nodes(self) -> list[NodeSeen]:
        """All nodes whose lease NATS still has, by their names.

        Raises:
            NoCluster: NATS does not know this cluster.
        """
        stream = f"KV_{self.names.nodes_bucket}"
        info = await _api(self._connection, f"STREAM.INFO.{stream}", {"subjects_filter": ">"})
        if info.get("error", {}).get("code") == 404:
            known = await _clusters(self._connection)
            has = f"it has {', '.join(known)}" if known else "no node has ever joined one there"
            raise NoCluster(f"NATS has no cluster {self.names.cluster!r}; {has}")
        try:
            now = datetime.fromisoformat(_to_microseconds(str(info["ts"])))
            subjects = list(cast("dict[str, int]", info["state"].get("subjects") or {}))
        except (KeyError, ValueError) as error:
            raise OperatorError(f"NATS does not describe the cluster's leases as expected: {error!r}") from error
        seen: list[NodeSeen] = []
        many = asyncio.Semaphore(AT_ONCE)

        async def look(subject: str) -> None:
            async with many:
                found = await self._lease(stream, subject, now)
            if found is not None:
                seen.append(found)

        async with asyncio.TaskGroup() as tasks:
            for subject in subjects:
                tasks.create_task(look(subject))
        return sorted(seen, key=lambda node: node.news.node)

    async def _lease(self, stream: str, subject: str, now: datetime) -> NodeSeen | None:
        try:
            message = await self._jetstream.get_msg(stream, subject=subject, direct=True)
        except NotFoundError:
            return None
        except (NatsError, OSError, TimeoutError) as error:
            raise translated(error, "reading the leases of nodes") from error
        news = unpack_news(message.data or b"")
        if news is None or message.time is None:
            return None
        return NodeSeen(news, max(0.0, (now - message.time).total_seconds()))

    async def living(self) -> list[NodeSeen]:
        """The nodes that can be asked.

        Raises:
            NoCluster: There is none.
        """
        nodes = [node for node in await self.nodes() if node.alive]
        if not nodes:
            raise NoCluster(f"no node of cluster {self.names.cluster!r} is alive")
        return nodes

    async def ask(self, node: str, op: str, *, timeout: float = TIMEOUT, **fields: Any) -> dict[str, Any]:
        """What one node answers.

        Raises:
            OperatorError: It refuses, nobody of this name is there, or can be, or it does not answer in time.
        """
        try:
            checked_node(node)
        except ConfigurationError as error:
            raise OperatorError(str(error)) from error
        await self._learn_keys()
        try:
            answer = await ask(self._connection, self.names, node, op, timeout=timeout, seals=self._seals, **fields)
        except NobodyThere as error:
            known = ", ".join(seen.news.node for seen in await self.nodes()) or "none"
            raise OperatorError(
                f"no node {node!r} answers in cluster {self.names.cluster!r}; it has {known}"
            ) from error
        except ControlError as error:
            raise OperatorError(str(error)) from error
        if not isinstance(answer, dict):
            raise OperatorError(f"node {node!r} answers {op!r} in a way that this version cannot read")
        return cast("dict[str, Any]", answer)

    async def _learn_keys(self) -> None:
        if self._given or time.monotonic() - self._learned_at < LEARN_EVERY:
            return
        self._seals.use(await _keys_of(self._jetstream, self.names))
        self._learned_at = time.monotonic()

    async def ask_all(
        self, nodes: Iterable[str], op: str, *, timeout: float = TIMEOUT, **fields: Any
    ) -> dict[str, dict[str, Any] | OperatorError]:
        """What each of several nodes answers, or why it does not."""
        answers: dict[str, dict[str, Any] | OperatorError] = {}

        async def one(node: str) -> None:
            try:
                answers[node] = await self.ask(node, op, timeout=timeout, **fields)
            except OperatorError as error:
                answers[node] = error

        async with asyncio.TaskGroup() as tasks:
            for node in nodes:
                tasks.create_task(one(node))
        return answers


async def _keys_of(jetstream: JetStreamContext, names: Names) -> list[bytes]:
    """The keys that the cluster keeps in NATS, if it does."""
    try:
        return await keys_in(await jetstream.key_value(names.settings_bucket))
    except NotFoundError:
        return []
    except ClusterError as error:
        raise OperatorError(str(error)) from error
    except (NatsError, OSError, TimeoutError) as error:
        raise translated(error, "reading the cluster's keys") from error


async def _only_cluster(connection: NatsClient) -> str:
    names = await _clusters(connection)
    if len(names) == 1:
        return names[0]
    if not names:
        raise NoCluster("no node of any cluster has ever joined at this NATS server")
    raise NoCluster(f"this NATS server has the clusters {', '.join(names)}: say which with --cluster NAME")


async def _clusters(connection: NatsClient) -> list[str]:
    answer = await _api(connection, "STREAM.NAMES", {})
    streams = cast("list[str]", answer.get("streams") or [])
    return sorted(match[1] for stream in streams if (match := _NODES_STREAM.fullmatch(stream)))


async def _api(connection: NatsClient, what: str, question: dict[str, Any]) -> dict[str, Any]:
    try:
        reply = await connection.request(f"$JS.API.{what}", json.dumps(question).encode(), timeout=TIMEOUT)
        answer: Any = json.loads(reply.data)
    except (NatsError, OSError, TimeoutError) as error:
        raise translated(error, "asking NATS about the cluster") from error
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise OperatorError("NATS gives an answer that is no JSON object")
    return cast("dict[str, Any]", answer)


def _to_microseconds(time: str) -> str:
    """An RFC 3339 time as Python reads it: NATS counts nanoseconds."""
    return re.sub(r"(\.\d{6})\d+", r"\1", time)
