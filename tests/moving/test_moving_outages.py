"""A node between two stores, one of which is down, or hangs: what needs it is told to come again, all else goes on."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from edge.call import HTTPCall
from edge.client import Client, hosting, initialize_params
from edge.server import Stage, make_server
from support.patience import PATIENCE
from understudy.runtime import Runtime
from understudy.stores import MemoryStore, StoreUnavailable

CALLS = ("create", "adopt", "claim", "load", "save", "touch", "delete", "list", "expire", "ping")


class Shared(MemoryStore):
    """One that outlives its node, and that can be out of reach."""

    shared = True

    def __init__(self, identity: str) -> None:
        super().__init__()
        self.identity = identity
        self.fault: Literal["", "refuses", "hangs"] = ""

    def __getattribute__(self, name: str) -> Any:
        if name in CALLS and (fault := object.__getattribute__(self, "__dict__").get("fault")):

            async def out_of_reach(*_: object, **__: object) -> None:
                if fault == "hangs":
                    await asyncio.Event().wait()
                raise StoreUnavailable("out of reach", outcome_unknown=False)

            return out_of_reach
        return super().__getattribute__(name)

    async def aclose(self) -> None:
        """It stays, with what is in it."""


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> tuple[Shared, Shared]:
    monkeypatch.setattr("understudy.runtime.node._READY_TIMEOUT", 0.05)
    return Shared("old"), Shared("new")


async def counted_to(value: int, store: Shared) -> tuple[str, str]:
    """A session in `store`, asleep: its id, and the revision."""
    async with hosting(make_server(Stage()), store=store) as client:
        await client.open()
        for expected in range(1, value + 1):
            assert await client.tool("increment") == expected
        assert client.session is not None
        assert client.revision is not None
        return client.session, client.revision


def going_on(client: Client, session: tuple[str, str]) -> Client:
    client.session, client.revision = session
    return client


async def ready(client: Client) -> int:
    return (await client.send("GET", path="/readyz")).status


def told_to_come_again(answer: HTTPCall, fault: str) -> None:
    assert answer.failure["code"] == -32000
    if fault == "refuses":
        assert "nothing was changed" in answer.failure["message"]
        assert answer.status == 503
        assert int(answer.header("retry-after") or 0) >= 1


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
async def test_before_anything_moves_sessions_are_served_while_the_next_store_is_away(
    stores: tuple[Shared, Shared], fault: Literal["refuses", "hangs"]
) -> None:
    old, new = stores
    session = await counted_to(2, old)
    async with hosting(make_server(Stage()), store=old, next_store=new, store_timeout=0.1) as client:
        new.fault = fault
        # Were it not, a balancer would take every node of the cluster out at once.
        assert await ready(client) == 200
        assert await going_on(client, session).tool("increment") == 3
        assert await client.tool("increment") == 4
        told_to_come_again(await client.twin().ask("initialize", initialize_params()), fault)
        new.fault = ""
        await client.twin().open()
    assert (await new.list()).records == ()


async def test_a_next_store_that_is_not_there_is_told_when_a_node_starts(stores: tuple[Shared, Shared]) -> None:
    old, new = stores
    new.fault = "refuses"
    with pytest.raises(StoreUnavailable):
        async with Runtime(make_server(Stage()), store=old, next_store=new):
            pass


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
@pytest.mark.parametrize("away", [0, 1], ids=["old", "new"])
async def test_nothing_is_lost_while_a_store_is_away_in_the_move(
    stores: tuple[Shared, Shared], away: int, fault: Literal["refuses", "hangs"]
) -> None:
    old, new = stores
    session = await counted_to(2, old)
    async with hosting(make_server(Stage()), store=new, former_store=old, store_timeout=0.1) as client:
        stores[away].fault = fault
        assert await ready(client) == 503
        told_to_come_again(await going_on(client, session).begin_tool("increment").answered(), fault)
        stores[away].fault = ""
        # The address is refused for a moment more, as after any failed activation.
        async with asyncio.timeout(PATIENCE):
            while (answer := await client.begin_tool("increment").answered()).status == 503:
                await asyncio.sleep(0.05)
        assert answer.value == 3
    assert (await old.list()).records == ()
    assert len((await new.list()).records) == 1
