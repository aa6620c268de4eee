"""`understudy key new`, and `serve` with what it has made."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from support import ServerProcess
from tenants.asking import ask, refusal
from understudy.runtime import ApiKeys, JwtTokens
from understudy.runtime.commands.cli import main
from understudy.runtime.commands.config import ConfigError, ServeOptions
from understudy.runtime.commands.serve_tenants import tenants_of

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def new(*args: str) -> tuple[str, str]:
    """The line for the file, and the key."""
    done = CliRunner().invoke(main, ["key", "new", *args], standalone_mode=False)
    assert done.exception is None, done.exception
    return done.stdout, done.stderr.strip()


async def test_its_line_in_a_file_opens_for_its_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    first, key = new("--tenant", "acme", "--principal", "ada", "--plan", "pro", "--scope", "a:b", "--scope", "c")
    second, ending = new("--tenant", "acme", "--principal", "ci", "--expires-in", "90d")
    assert key not in first
    file.write_text(first + second)
    keys = ApiKeys.from_file(file)
    context = await ask(keys, key)
    assert (context.tenant, context.principal, context.plan, context.scopes) == ("acme", "ada", "pro", {"a:b", "c"})
    assert (await ask(keys, ending)).expires == pytest.approx(time.time() + 90 * 86400, abs=5)
    await refusal(keys, key[:-1])


@pytest.mark.parametrize("args", [("--tenant", ""), ("--tenant", "a", "--principal", "b", "--scope", "a b")])
def test_what_cannot_be_in_a_file_is_refused(args: tuple[str, ...]) -> None:
    given = args if "--principal" in args else (*args, "--principal", "b")
    done = CliRunner().invoke(main, ["key", "new", *given])
    assert done.exit_code == 2
    assert done.stdout == ""


async def test_serve_answers_only_who_has_a_key(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    line, key = new("--tenant", "acme", "--principal", "ada")
    file = tmp_path / "keys.toml"
    file.write_text(line)
    headers = {"accept": "application/json, text/event-stream"}
    async with (
        serve("understudy.runtime.demo:server", "--store", "memory://", "--api-keys", str(file)) as server,
        httpx.AsyncClient() as http,
    ):
        assert (await http.post(server.url, json=PING, headers=headers)).status_code == 401
        known = {**headers, "authorization": f"Bearer {key}"}
        assert (await http.post(server.url, json=PING, headers=known)).status_code == 400
        assert key not in server.output


def test_serve_takes_the_options_of_tokens_to_their_resolver() -> None:
    url = "https://a.example/keys"
    made = tenants_of(ServeOptions(jwt_issuer="i", jwt_audience="a", jwks_url=url, jwt_tenant="org"))
    assert isinstance(made["tenants"], JwtTokens)
    assert tenants_of(ServeOptions()) == {}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"jwks_url": "https://a.example"}, "--jwt-issuer is missing"),
        ({"jwt_issuer": "https://a.example", "jwks_url": "https://a.example"}, "--jwt-audience is missing"),
        (
            {"jwt_issuer": "x", "jwt_audience": "y", "jwks_url": "https://a.example", "api_keys": Path("keys")},
            "exclude each other",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ServeOptions(**options)
