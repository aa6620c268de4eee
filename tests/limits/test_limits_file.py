"""`serve --limits FILE`: limits by plan, from TOML or JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from understudy.runtime import ConfigurationError, Limits, SessionLimits
from understudy.runtime.commands.config import ServeOptions
from understudy.runtime.commands.serve import make_runtime
from understudy.runtime.commands.target import load_target
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
