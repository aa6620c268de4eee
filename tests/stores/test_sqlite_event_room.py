"""How much of the disk the events of streams take in a SQLite file."""

from pathlib import Path

import pytest
from understudy.stores import Address, open_store

BYTES = 2 * 2**20


@pytest.mark.parametrize(("size", "most"), [(200, 1.3), (1_200, 1.3), (2_100, 2.1), (20_000, 1.1)])
async def test_a_file_is_not_much_larger_than_its_events(tmp_path: Path, size: int, most: float) -> None:
    path = tmp_path / "sessions.db"
    store = await open_store(f"sqlite:///{path}")
    address = Address.new("session")
    kept = 0
    for stream in range(BYTES // size // 20):
        events = [bytes(size)] * 20
        await store.events.append(address, f"call-{stream}", 1, events, head=b"head", writer="node")
        kept += 20 * size
    await store.aclose()

    assert kept > 0.9 * BYTES
    assert path.stat().st_size < most * kept
