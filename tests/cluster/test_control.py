"""`Control`: what an operator asks neither hangs nor keeps the node from leaving."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from cluster.household import household
from edge.client import put_to_sleep
from support.patience import PATIENCE
from understudy.actors.packing import pack, unpack
from understudy.runtime.cluster import operations as operations_module
from understudy.runtime.cluster.control import Control, ControlError
from understudy.runtime.cluster.names import Names
from understudy.runtime.cluster.operations import operations
from understudy.runtime.cluster.orders import Orders
from understudy.runtime.link import Seals
from understudy.runtime.streams.streams import STANDALONE
from understudy.stores import Address, MemoryStore, event_log_of


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


def orders() -> Orders:
    return Orders(Seals("test", [b"k" * 32]), "n")


async def test_a_node_leaves_though_a_question_is_still_being_answered() -> None:
    began = asyncio.Event()

    async def drain(question: Mapping[str, Any]) -> None:
        began.set()
        await asyncio.Event().wait()

    nats = Nats()
    async with asyncio.timeout(PATIENCE):
        async with Control(cast("Any", nats), Names("test"), "n", {"drain": drain}, orders()):
            await nats.heard(type("Msg", (), {"reply": "inbox", "data": orders().question({"op": "drain"})[0]}))
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
    async with Control(
        cast("Any", nats), Names("test"), "n", operations(cast("Any", cluster)), orders(), takes_plain=True
    ):
        await nats.ask(**question)
        async with asyncio.timeout(PATIENCE):
            assert "the store did not answer" in (await nats.replies.get())["error"]


async def test_a_session_that_is_ended_in_its_sleep_takes_its_events_along(nats_url: str) -> None:
    async with household(nats_url, 1) as (node,):
        client = node.client()
        await client.open()
        await node.runtime.session(client.session or "").notify_tools_changed()
        cluster, address = node.runtime.cluster, Address("session", client.session or "")
        assert cluster is not None
        log: Any = event_log_of(cluster.store)
        assert await log.read(address, STANDALONE) is not None
        await put_to_sleep(node.runtime, client.session)
        node.streams.close_standing(address)
        async with asyncio.timeout(PATIENCE):
            while cluster.ownership.holds(address):
                await asyncio.sleep(0.01)
            while True:
                try:
                    assert await operations(cluster)["end"]({"id": address.id}) == {"ended": True}
                    break
                except ControlError as error:
                    assert "try again in a moment" in str(error)  # noqa: PT017 - the others are faults
                    await asyncio.sleep(0.01)
            while await log.read(address, STANDALONE) is not None:
                await asyncio.sleep(0.01)
