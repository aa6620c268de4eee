"""`Runtime`: what its arguments may be, and where they end up."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge.server import make_server
from understudy.runtime import ConfigurationError, Runtime
from understudy.stores import EventLogBounds, MemoryStore, event_log_of


async def test_the_bounds_of_the_event_log_reach_the_store_that_a_url_names(tmp_path: Path) -> None:
    bounds = EventLogBounds(max_age=5.0, max_total_bytes=2**20)
    async with Runtime(make_server(), store=f"sqlite:///{tmp_path / 's.db'}", event_bounds=bounds) as runtime:
        log = event_log_of(runtime._node.store)
        assert log is not None
        assert log.bounds == bounds


class _SharedWithoutEvents(MemoryStore):
    shared = True
    events = None  # type: ignore[assignment]


async def test_a_shared_store_without_an_event_log_is_said_to_have_none(caplog: pytest.LogCaptureFixture) -> None:
    async with Runtime(make_server(), store=_SharedWithoutEvents()):
        assert "the store has no event log: a stream is resumed at the node that has it in memory" in caplog.text
    caplog.clear()
    async with Runtime(make_server(), store=_SharedWithoutEvents(), event_log="off"), Runtime(make_server()):
        assert "event log" not in caplog.text


def test_bounds_for_a_store_that_is_open_already_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="open yours with its bounds"):
        Runtime(make_server(), store=MemoryStore(), event_bounds=EventLogBounds())


def test_an_event_log_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'on'; it must be"):
        Runtime(make_server(), event_log="on")  # type: ignore[arg-type]
