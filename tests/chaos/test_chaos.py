"""The scenes, small (`CHAOS=full` for full size). `make chaos` plays them at full size and prints the numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.cluster import ChaosCluster
from chaos.scale import chosen
from chaos.scenes import CALM, SCENES, Verdict, calm_cluster
from support.nats import nats_missing

pytestmark = pytest.mark.skipif(nats_missing() is not None, reason=nats_missing() or "")

STORMY = ["same-instant", "storm", "rolling-two-versions"]
"""The others are variations of these, or, as `switching` is, in the suite in one process: `tests/moving/`."""


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosCluster]:
    cluster = calm_cluster(tmp_path_factory.mktemp("calm"))
    asyncio.run(cluster.__aenter__())
    yield cluster
    asyncio.run(cluster.__aexit__())


def judge(verdict: Verdict) -> None:
    print(verdict.numbers)
    assert verdict.faults == [], verdict.numbers


@pytest.mark.parametrize("name", CALM)
async def test_three_nodes_keep_what_they_promise_in(name: str, calm: ChaosCluster):
    judge(await CALM[name](calm, chosen()))
    assert calm.complaints() == []


@pytest.mark.parametrize("name", STORMY)
async def test_three_nodes_that_suffer_keep_what_they_promise_in(name: str, tmp_path: Path):
    judge(await SCENES[name](tmp_path, chosen()))
