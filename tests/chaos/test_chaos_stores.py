"""A cluster whose sessions are in each of the servers that can hold them; that server crashes too.

`make chaos ARGS="--store redis"` plays all scenes at full size.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from chaos.scale import SMALL, chosen
from chaos.scenes import SCENES
from chaos.store_servers import STORE_SERVERS, store_missing
from support.nats import nats_missing

pytestmark = pytest.mark.skipif(nats_missing() is not None, reason=nats_missing() or "")

SOME = replace(SMALL, sessions=30, faults={"kill": 1})
"""And, with them, a crash of the store."""

STORES = [name for name in STORE_SERVERS if name != "nats-apart"]


@pytest.mark.parametrize("store", STORES)
async def test_acknowledged_updates_are_there_once_when_nodes_and_the_store_crash(store: str, tmp_path: Path):
    if (reason := store_missing(store)) is not None:
        pytest.skip(reason)
    scale = chosen() if chosen() is not SMALL else SOME
    verdict = await SCENES["storm"](tmp_path, replace(scale, store=store))
    print(verdict.numbers)
    assert verdict.faults == [], verdict.numbers
    assert any(name.startswith("store") for name in verdict.numbers)
