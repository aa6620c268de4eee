"""A place for a store of each kind, with nothing there yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.dynamodb import fresh_table_name
from support.nats import fresh_name
from support.redis import fresh_prefix
from understudy.runtime.commands.cli import main

KINDS = ("sqlite", "nats", "postgresql", "redis", "dynamodb")


def run(*args: str, **environment: str) -> Result:
    """`understudy store` with these arguments."""
    return CliRunner().invoke(main, ["store", *args], env=environment, prog_name="understudy")


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """The URL of an empty place for a store of a kind; a new one at each call."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/{fresh_name()}.db"
        if kind == "nats":
            return f"{request.getfixturevalue('nats_url')}/{fresh_name()}"
        if kind == "redis":
            return f"{request.getfixturevalue('redis_url')}?prefix={fresh_prefix()}"
        if kind == "dynamodb":
            return request.getfixturevalue("dynamodb_server").url(fresh_table_name())
        return f"{request.getfixturevalue('postgres_server').url()}?schema={fresh_name().replace('-', '_')}"

    return make


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, place: Callable[[str], str]) -> str:
    """The URL of an empty place, for each kind of store."""
    return place(request.param)
