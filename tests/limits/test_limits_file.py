"""`serve --limits FILE`: limits by plan, from TOML or JSON."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
from limits.nodes import Node, node
from understudy.actors.testing import ManualClock
from understudy.runtime import ConfigurationError, Limits, LimitsFile, SessionLimits, TenantContext
from understudy.runtime.commands.config import ServeOptions
from understudy.runtime.commands.serve import make_runtime
from understudy.runtime.commands.target import load_target
from understudy.runtime.limits import MemoryCounters, limits_file
from understudy.runtime.limits.limits_file import read_limits

TOML = """
[default]
calls_per_minute = 60
sessions = 10

[default.per_session]
calls_per_minute = 30

[plans.pro]
calls_per_minute = 600

[plans."free of charge"]
"""
EXPECTED = {
    None: Limits(calls_per_minute=60, sessions=10, per_session=SessionLimits(calls_per_minute=30)),
    "pro": Limits(calls_per_minute=600),
    "free of charge": Limits(),
}


def test_both_formats_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text(TOML)
    assert read_limits(tmp_path / "limits.toml") == EXPECTED
    tables = {
        "default": {"calls_per_minute": 60, "sessions": 10, "per_session": {"calls_per_minute": 30}},
        "plans": {"pro": {"calls_per_minute": 600}, "free of charge": {}},
    }
    (tmp_path / "limits.json").write_text(json.dumps(tables))
    assert read_limits(tmp_path / "limits.json") == EXPECTED


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no table `default`"),
        ("[default", "is no TOML"),
        ("default = 3", "default is int; it must be a table"),
        ("[default]\n[plan.pro]", r"says 'plan'; it may say default, plans"),
        ("[default]\ncalls = 3", "default says 'calls'; it may say calls_in_flight, calls_per_minute"),
        ("[default]\ncalls_per_minute = -3", "default: Limits.calls_per_minute is -3"),
        ("[default]\nsessions = 1.5", "default: Limits.sessions is 1.5"),
        ("[default]\n[default.per_session]\nsessions = 1", "per_session says 'sessions'"),
        ("[default]\n[default.per_session]\nstreams = true", "default: SessionLimits.streams is True"),
        ("[default]\n[plans.pro]\nper_session = 3", r"plans.pro.per_session is int"),
        ("\xff", "is no TOML"),
    ],
)
def test_a_file_that_says_something_else_is_refused_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "limits.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        ServeOptions(limits=file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_or_far_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_limits(tmp_path / "none.toml")
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(ConfigurationError, match="larger than 1 MiB"):
        read_limits(large)


def test_serve_hands_them_to_the_runtime(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(TOML)
    options = ServeOptions(limits=file, when_counters_fail="closed")
    runtime = make_runtime(load_target("understudy.runtime.demo:server"), "memory://", options, 8000)
    made = runtime._options.limits
    assert made is not None
    assert made.when_counters_fail == "closed"
    assert made.limits_of(TenantContext("acme", "ada", plan="pro")) == EXPECTED["pro"]
    assert made.limits_of(TenantContext("acme", "ada", plan="unheard of")) == EXPECTED[None]


async def until(node: Node, clock: ManualClock, name: str, count: int) -> None:
    """Seconds of the node's, until it has noticed something."""
    async with asyncio.timeout(10):
        while node.limiter.stats()[name] < count:
            await clock.advance(1.0)
            await asyncio.sleep(0.02)


async def test_a_file_that_changes_holds_from_the_next_call_on(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("[default]\ncalls_per_minute = 2")
    clock = ManualClock()
    async with node("a.1", LimitsFile(file), MemoryCounters(), clock) as it:
        assert [await it.call() for _ in range(3)].count(None) == 2
        file.write_text("[default]\ncalls_per_minute = 2\n[plans.pro]\ncalls_per_minute = 5")
        await until(it, clock, "limits_file_reloads_total", 1)
        assert [await it.call() for _ in range(2)].count(None) == 0
        assert [await it.call(TenantContext("acme", "ada", plan="pro")) for _ in range(9)].count(None) == 3


async def test_a_file_that_cannot_be_used_changes_nothing_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("[default]\ncalls_per_minute = 2")
    clock = ManualClock()
    async with node("a.1", LimitsFile(file), MemoryCounters(), clock) as it:
        assert await it.call() is None
        file.write_text("[default]\ncalls_per_minute = many")
        await until(it, clock, "limits_file_failures_total", 1)
        for _ in range(5):
            await clock.advance(1.0)
        assert await it.call() is None
        assert await it.call() is not None
        assert it.limiter.stats()["limits_file_failures_total"] == 1
        assert [record.message for record in caplog.records if "stay as they were" in record.message] == [
            caplog.messages[0]
        ]
        file.unlink()
        await until(it, clock, "limits_file_failures_total", 2)
        file.write_text("[default]\ncalls_per_minute = 3")
        await until(it, clock, "limits_file_reloads_total", 1)
        assert await it.call() is None


async def test_a_file_that_hangs_holds_up_nobody_and_keeps_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("[default]")
    limits = LimitsFile(file)
    release = threading.Event()
    reads: list[object] = []

    def slow() -> None:
        reads.append(1)
        release.wait(10)

    monkeypatch.setattr(limits, "_look_apart", slow)
    monkeypatch.setattr(limits_file, "READ_TIMEOUT", 0.01)
    try:
        for _ in range(3):
            await limits.look()
        assert len(reads) == 1
        assert limits.failures == 3
    finally:
        release.set()
