"""The processes that `bench streams` measures: they start, answer, and say why when they do not."""

from __future__ import annotations

import pytest
from understudy.bench.asgi import Refused
from understudy.bench.host_process import host_process
from understudy.bench.http_client import open_session
from understudy.bench.stream_host import SDK, UNDERSTUDY


@pytest.mark.parametrize("side", [UNDERSTUDY, SDK])
async def test_a_host_serves_sessions_and_tells_what_it_has_used(side: str) -> None:
    async with host_process(side, "hypercorn") as host:
        before = await host.cpu()
        connection = await host.connect()
        assert (await open_session(connection)).session_id
        connection.close()
        await host.collect()
        assert await host.cpu() > before
        assert await host.resident() > 10 * 2**20


async def test_a_host_that_cannot_start_says_why() -> None:
    with pytest.raises(Refused, match="StoreURLError"):
        async with host_process(UNDERSTUDY, "hypercorn", store="nonsense://"):
            pass


async def test_a_host_that_has_ended_answers_with_a_refusal() -> None:
    async with host_process(UNDERSTUDY, "hypercorn") as host:
        host.kill()
        await host.wait()
        with pytest.raises(Refused, match="ended"):
            await host.cpu()
