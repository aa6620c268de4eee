"""Each database pattern of the guide, as it stands there, in both eras and for two tenants."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from edge.client import Client, ModernClient, connected
from edge.test_session_ids import by_bearer
from support.guide_databases import FENCE, GUIDE, PATTERNS, SECTIONS, blocks, operating
from support.postgres import PostgresServer
from understudy.runtime import Runtime


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_the_pattern_of_the_guide_keeps_tenants_apart(
    pattern: str,
    postgres_server: PostgresServer,
    postgres_database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with operating(postgres_server, postgres_database) as operator:
        await operator.set_up(pattern, "acme", "evil")
        monkeypatch.setitem(os.environ, "DATABASE_URL", operator.url())
        await keeps_apart(pattern, tmp_path, monkeypatch)


async def keeps_apart(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.py").write_text(blocks(GUIDE, "python")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, Any] = {"resolver": by_bearer}
    try:
        exec(compile(blocks(SECTIONS[pattern], "python")[0], "guide", "exec"), names)
    finally:
        sys.modules.pop("shop", None)
    runtime: Runtime = names["runtime"]
    async with runtime:
        for kind in (Client, ModernClient):
            async with connected(runtime.app, kind) as client:
                for tenant in ("acme", "evil"):
                    caller = client.twin(authorization=f"Bearer {tenant}/ann")
                    if kind is Client:
                        await caller.open()
                    before = await caller.tool("orders")
                    assert all(tenant in item for item in before)
                    assert await caller.tool("order", {"item": f"of {tenant} by {kind.__name__}"}) == len(before) + 1
                    failed = await caller.begin_tool("order", {"item": None}).answered()
                    assert failed.result["isError"]
        assert runtime.stats()["tenant_database_transactions_total"] == 8
        assert runtime.stats()["tenant_database_discarded_total"] == 0


def test_the_guide_shows_each_pattern_and_nothing_that_is_not_run() -> None:
    assert set(PATTERNS) <= SECTIONS.keys()
    assert {language for language, _ in FENCE.findall(GUIDE)} == {"python", "sql"}
    assert len(FENCE.findall(GUIDE)) == 1 + 2 + 2 + 3
