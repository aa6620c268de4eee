"""`Control`: what an operator asks neither hangs nor keeps the node from leaving."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from edge.call import PATIENCE
from understudy.actors.packing import pack, unpack
from understudy.runtime.cluster import operations as operations_module
from understudy.runtime.cluster.control import Control
from understudy.runtime.cluster.names import Names
from understudy.runtime.cluster.operations import operations
from understudy.stores import MemoryStore


class Nats:
    """A connection; questions are put to `heard`."""

    def __init__(self) -> None:
        self.heard: Any = None
        self.replies: asyncio.Queue[Any] = asyncio.Queue()

    async def subscribe(self, subject: str, cb: Any) -> Any:
        self.heard = cb
        return self

    async def unsubscribe(self) -> None:
        pass

    async def publish(self, subject: str, payload: bytes) -> None:
        self.replies.put_nowait(unpack(payload))

    async def ask(self, **question: Any) -> None:
        message = type("Msg", (), {"reply": "inbox", "data": pack(question)})
        await self.heard(message)


async def test_a_node_leaves_though_a_question_is_still_being_answered() -> None:
    began = asyncio.Event()

    async def drain(question: Mapping[str, Any]) -> None:
        began.set()
        await asyncio.Event().wait()

    nats = Nats()
    async with asyncio.timeout(PATIENCE):
        async with Control(cast("Any", nats), Names("test"), "n", {"drain": drain}):
            await nats.ask(op="drain")
            await began.wait()
    assert nats.replies.empty()


@pytest.mark.parametrize("question", [{"op": "records"}, {"op": "session", "id": "a" * 32}])
async def test_a_store_that_hangs_is_named(question: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(MemoryStore):
        async def load(self, *args: Any, **options: Any) -> Any:
            await asyncio.Event().wait()

        list = load

    monkeypatch.setattr(operations_module, "STORE_TIMEOUT", 0.01)
    cluster = type("Cluster", (), {"store": Hanging()})
    nats = Nats()
    async with Control(cast("Any", nats), Names("test"), "n", operations(cast("Any", cluster))):
        await nats.ask(**question)
        async with asyncio.timeout(PATIENCE):
            assert "the store did not answer" in (await nats.replies.get())["error"]
