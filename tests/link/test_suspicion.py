"""`Suspicion`: the operator is told, and not at each batch."""

from __future__ import annotations

import pytest
from understudy.actors.testing import ManualClock
from understudy.runtime.link.batch import ForgedBatch
from understudy.runtime.link.counters import LinkCounters
from understudy.runtime.link.suspicion import SUSPECT_EVERY, Suspicion


async def test_one_line_a_minute_tells_who_is_meant_and_how_many_there_were(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    counters = LinkCounters()
    suspicion = Suspicion(counters, clock)
    for _ in range(3):
        counters.forged += 1
        suspicion.note("edge-1.aa", ForgedBatch("its seal is broken"))
    counters.unsealed_refused += 2
    await clock.advance(SUSPECT_EVERY - 1.0)
    suspicion.note("edge-1.aa", ForgedBatch("its seal is broken"))
    assert len(caplog.records) == 1
    await clock.advance(1.0)
    suspicion.note("edge-2.bb", ForgedBatch("its seal is broken"))
    first, second = (record.getMessage() for record in caplog.records)
    assert "edge-1.aa: its seal is broken (so far 1 forged, 0 without a seal)" in first
    assert "edge-2.bb: its seal is broken (so far 3 forged, 2 without a seal)" in second
