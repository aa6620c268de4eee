"""`understudy serve --fairness --plan-weight --blocking-threads --tenant-cache`: what of a node one tenant may have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mcp.server.mcpserver import MCPServer
from understudy.actors.session import TenantContext
from understudy.runtime import ApiKey, Fairness, new_api_key
from understudy.runtime.commands import serve as serve_module
from understudy.runtime.commands.cli import main
from understudy.runtime.commands.config import ConfigError, ServeOptions
from understudy.runtime.commands.serve import make_runtime
from understudy.runtime.commands.serve_tenants import plan_weights, shares_of
from understudy.runtime.commands.target import Target
from understudy.runtime.credentials.api_key_lines import key_line


@pytest.fixture
def keys(tmp_path: Path) -> str:
    """A file with one key, as fairness is for tenants that are known."""
    file = tmp_path / "keys.toml"
    file.write_text(key_line(ApiKey.of(new_api_key(), TenantContext("acme", "ada"))))
    return str(file)


def of_plan(plan: str | None) -> TenantContext:
    return TenantContext("acme", "ada", plan=plan)


def parsed(monkeypatch: pytest.MonkeyPatch, *words: str, **environment: str) -> tuple[list[ServeOptions], Any]:
    """What `serve` is run with, if it is; and how the command ended."""
    seen: list[ServeOptions] = []
    monkeypatch.setattr(serve_module, "serve", lambda spec, options: seen.append(options))
    return seen, CliRunner().invoke(main, ["serve", "x.py:mcp", *words], env=environment)


def runtime_of(options: ServeOptions) -> Any:
    return make_runtime(Target("x.py:mcp", MCPServer("shop"), None), "memory://", options, 8000)


def test_all_that_the_command_line_says_of_shares_reaches_the_runtime(
    monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    words = "--plan-weight pro=4 --plan-weight a=b=0.5 --blocking-threads 3 --tenant-cache 1MiB"
    seen, ended = parsed(monkeypatch, *words.split(), "--tenant-cache-total", "3MiB", "--api-keys", keys)
    assert ended.exit_code == 0, ended.output
    options = runtime_of(seen[0])._options
    assert options.fairness is not None
    assert options.fairness.blocking_threads == 3
    weights = [options.fairness.weight_of(of_plan(plan)) for plan in ("pro", "a=b", "free", None)]
    assert weights == [4.0, 0.5, 1.0, 1.0]
    assert options.helpers.cache.max_bytes == 2**20
    assert options.helpers.cache.max_total_bytes == 3 * 2**20


def test_variables_say_the_same(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    variables = {"UNDERSTUDY_PLAN_WEIGHT": "pro=4,free=0.5", "UNDERSTUDY_TENANT_CACHE": "1MiB"}
    seen, ended = parsed(monkeypatch, **variables)
    assert ended.exit_code == 0, ended.output
    assert plan_weights(seen[0].plan_weights) == {"pro": 4.0, "free": 0.5}
    assert seen[0].tenant_cache == 2**20
    assert runtime_of(replace(seen[0], api_keys=Path(keys)))._options.fairness.weight_of(of_plan("free")) == 0.5
    seen, ended = parsed(monkeypatch, "--api-keys", keys, UNDERSTUDY_FAIRNESS="off")
    assert runtime_of(seen[0])._options.fairness is None


def test_what_nobody_says_is_as_in_the_library() -> None:
    shares = shares_of(ServeOptions())
    assert shares["fairness"] == Fairness()
    assert shares["cache"] == type(shares["cache"])()


@pytest.mark.parametrize("text", ["pro", "pro=", "=4", "pro=0", "pro=101", "pro=nan", "pro=inf", "pro=-1", "pro=x", ""])
def test_what_is_no_weight_is_refused_with_the_value_in_the_message(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServeOptions(plan_weights=(text,))
    assert repr(text) in str(caught.value)


def test_what_does_not_go_together_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="'pro' twice"):
        ServeOptions(plan_weights=("pro=2", "pro=3"))
    with pytest.raises(ConfigError, match="--tenant-cache is 2048 bytes"):
        ServeOptions(tenant_cache=2048, tenant_cache_total=1024)
    for said in ({"plan_weights": ("pro=2",)}, {"blocking_threads": 8}):
        with pytest.raises(ConfigError, match="--fairness off"):
            ServeOptions(fairness="off", **said)  # type: ignore[arg-type]
