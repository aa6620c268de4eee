"""The command line: options, their environment, help, and errors of one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from understudy.runtime.commands import cli, serve
from understudy.runtime.commands.config import ServeOptions

NATS = ("--nats", "nats://127.0.0.1:4222")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ServeOptions]]:
    """What `serve` was called with; it returns at once."""
    calls: list[tuple[str, ServeOptions]] = []
    monkeypatch.setattr(serve, "serve", lambda spec, options: calls.append((spec, options)))
    return calls


def run(*args: str, **env: str) -> Result:
    return CliRunner().invoke(cli.main, list(args), env=env, prog_name="understudy")


def test_the_options_default_to_what_the_dataclass_says(served: list[tuple[str, ServeOptions]]) -> None:
    assert run("serve", "m:a").exit_code == 0
    assert served == [("m:a", ServeOptions())]


def test_every_option_can_be_given(served: list[tuple[str, ServeOptions]]) -> None:
    given = (
        "--host 0.0.0.0 --port 9000 --path /x --store memory:// --session-ttl 30m --idle-after 10 --max-sessions 5 "
        "--max-body 1MiB --http uvicorn --allowed-host a.example --allowed-host b.example:1 --allowed-origin "
        "https://a.example --log-format json --log-level DEBUG --drain-timeout 5s"
    )
    result = run("serve", "m:a", *given.split())
    assert result.exit_code == 0, result.output
    assert served[0][1] == EVERYTHING


def test_every_option_can_be_set_in_the_environment(served: list[tuple[str, ServeOptions]]) -> None:
    result = run(
        "serve",
        UNDERSTUDY_TARGET="m:a",
        UNDERSTUDY_HOST="0.0.0.0",
        UNDERSTUDY_PORT="9000",
        UNDERSTUDY_PATH="/x",
        UNDERSTUDY_STORE="memory://",
        UNDERSTUDY_SESSION_TTL="30m",
        UNDERSTUDY_IDLE_AFTER="10",
        UNDERSTUDY_MAX_SESSIONS="5",
        UNDERSTUDY_MAX_BODY="1MiB",
        UNDERSTUDY_HTTP="uvicorn",
        UNDERSTUDY_ALLOWED_HOST="a.example, b.example:1",
        UNDERSTUDY_ALLOWED_ORIGIN="https://a.example",
        UNDERSTUDY_LOG_FORMAT="json",
        UNDERSTUDY_LOG_LEVEL="debug",
        UNDERSTUDY_DRAIN_TIMEOUT="5s",
    )
    assert result.exit_code == 0, result.output
    assert served == [("m:a", EVERYTHING)]


EVERYTHING = ServeOptions(
    host="0.0.0.0",
    port=9000,
    path="/x",
    store="memory://",
    session_ttl=1800.0,
    idle_after=10.0,
    max_sessions=5,
    max_body=2**20,
    http="uvicorn",
    allowed_hosts=("a.example", "b.example:1"),
    allowed_origins=("https://a.example",),
    log_format="json",
    log_level="debug",
    drain_timeout=5.0,
)


def test_every_option_of_a_clusters_node_can_be_given(served: list[tuple[str, ServeOptions]], tmp_path: Path) -> None:
    given = (
        "--cluster shop --nats nats://127.0.0.1:1 --nats-creds a --nats-ca d --nats-cert e --nats-key f --node n1 "
        "--advertise https://n1.example/mcp --lease 5s --lame-duck 0 --link-version 1 "
        "--unsigned-contexts accept --store nats://127.0.0.1:2/b"
    )
    result = run("serve", "m:a", *given.split())
    assert result.exit_code == 0, result.output
    assert served[0][1] == CLUSTERED


def test_every_option_of_a_clusters_node_can_be_set_in_the_environment(served: list[tuple[str, ServeOptions]]) -> None:
    result = run(
        "serve",
        UNDERSTUDY_TARGET="m:a",
        UNDERSTUDY_CLUSTER="shop",
        UNDERSTUDY_NATS="nats://127.0.0.1:1",
        UNDERSTUDY_NATS_CREDS="a",
        UNDERSTUDY_NATS_CA="d",
        UNDERSTUDY_NATS_CERT="e",
        UNDERSTUDY_NATS_KEY="f",
        UNDERSTUDY_NODE="n1",
        UNDERSTUDY_ADVERTISE="https://n1.example/mcp",
        UNDERSTUDY_LEASE="5",
        UNDERSTUDY_LAME_DUCK="0",
        UNDERSTUDY_LINK_VERSION="1",
        UNDERSTUDY_UNSIGNED_CONTEXTS="accept",
        UNDERSTUDY_STORE="nats://127.0.0.1:2/b",
    )
    assert result.exit_code == 0, result.output
    assert served == [("m:a", CLUSTERED)]


CLUSTERED = ServeOptions(
    cluster="shop",
    nats="nats://127.0.0.1:1",
    nats_creds=Path("a"),
    nats_ca=Path("d"),
    nats_cert=Path("e"),
    nats_key=Path("f"),
    node="n1",
    advertise="https://n1.example/mcp",
    lease=5.0,
    lame_duck=0.0,
    link_version=1,
    unsigned_contexts="accept",
    store="nats://127.0.0.1:2/b",
)


def test_the_command_line_wins_over_the_environment(served: list[tuple[str, ServeOptions]]) -> None:
    run("serve", "m:a", "--port", "1", UNDERSTUDY_PORT="2")
    assert served[0][1].port == 1


def test_every_option_of_the_dataclass_is_on_the_command_line() -> None:
    shown = run("serve", "--help").output
    for name in ServeOptions.__dataclass_fields__:
        assert f"--{name.replace('_', '-').replace('allowed-hosts', 'allowed-host')}".removesuffix("s") in shown


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--port", "99999"], "--port"),
        (["--port", "http"], "--port"),
        (["--path", "mcp"], "--path"),
        (["--session-ttl", "soon"], "'soon' is no duration"),
        (["--max-body", "big"], "'big' is no size"),
        (["--max-sessions", "0"], "--max-sessions"),
        (["--http", "apache"], "--http"),
        (["--log-level", "loud"], "--log-level"),
        (["--tls-cert", "/nowhere/cert.pem"], "--tls-cert needs --tls-key"),
        (["--allowed-host", "https://a.example"], "--allowed-host"),
        (["--allowed-host", ""], "stray comma"),
        (["--frobnicate"], "--frobnicate"),
        (["--unsigned-contexts", "maybe"], "--unsigned-contexts"),
        (["--unsigned-contexts", "accept"], "--unsigned-contexts is for a node of a cluster"),
        (["--cluster", "a", "--nats", "nats://a", "--link-version", "3"], "they need unsigned_contexts"),
        (["--nats", "nats://a"], "--nats is for a node of a cluster: name the cluster with --cluster NAME"),
        (["--node", "n1"], "--node is for a node of a cluster"),
        (["--lease", "5s"], "--lease is for a node of a cluster"),
        (["--key-rotation", "0"], "--key-rotation is for a node of a cluster"),
        (["--cluster", "a", *NATS, "--link-version", "99"], "--link-version 99 is newer than"),
        (["--cluster", "a"], "--cluster a needs --nats nats://host:4222"),
        (["--cluster", "a b", *NATS], "cluster name 'a b' must be"),
        (["--cluster", "a", "--nats", "http://a"], "a NATS URL starts with nats:// or tls://"),
        (["--cluster", "a", *NATS, "--node", "n.1"], "node id 'n.1' must be"),
        (["--cluster", "a", *NATS, "--advertise", "n1"], "--advertise 'n1' is no URL"),
        (["--cluster", "a", *NATS, "--store", "memory://"], "--store memory:// is one node's own"),
        (["--cluster", "a", "--nats", "nats://nats.example", "--store", "sqlite:///a.db"], "a file of one machine"),
        (["--cluster", "a", *NATS, "--reload"], "--reload is for one node"),
        (["--cluster", "a", *NATS, "--nats-cert", "c"], "NATS option 'cert' needs 'key' beside it"),
        (["--lame-duck", "-1s"], "'-1s' is no duration"),
    ],
)
@pytest.mark.usefixtures("served")
def test_a_bad_value_is_one_clear_line_and_exit_code_2(args: list[str], said: str) -> None:
    result = run("serve", "m:a", *args)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.usefixtures("served")
def test_a_bad_value_in_the_environment_is_refused_as_one_on_the_command_line() -> None:
    result = run("serve", "m:a", UNDERSTUDY_PORT="eighty")
    assert result.exit_code == 2
    assert "eighty" in result.stderr


def test_no_target_is_one_clear_line() -> None:
    result = run("serve")
    assert result.exit_code == 2
    assert result.stderr == "understudy: Missing argument 'TARGET' (see understudy serve --help)\n"


def test_a_target_that_cannot_be_imported_shows_the_users_traceback_and_exits_2(tmp_path: Path) -> None:
    (tmp_path / "cli_broken.py").write_text("import json\njson.loads('{')\n")
    result = run("serve", f"{tmp_path}/cli_broken.py:server")
    assert result.exit_code == 2
    *trace, last = result.stderr.strip().splitlines()
    assert trace[0] == "Traceback (most recent call last):"
    assert f'  File "{tmp_path}/cli_broken.py", line 2, in <module>' in trace
    assert last.startswith(f"understudy: {tmp_path}/cli_broken.py cannot be imported: JSONDecodeError")


def test_help_teaches_what_a_target_is_and_shows_examples() -> None:
    general, serving = run("--help").output, run("serve", "--help").output
    for word in ("understudy serve server.py:mcp", "session: Session", "understudy demo"):
        assert word in general
    for word in ("module:attr", "(tenant) -> server", "--allowed-host mcp.example.com", "UNDERSTUDY_<NAME>", "/readyz"):
        assert word in serving


def test_the_version_is_said() -> None:
    assert run("--version").output.startswith("understudy 0.")


def test_bench_is_found_by_name_only_when_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    seen: list[Any] = []

    @click.group()
    def group() -> None: ...

    @group.command()
    @click.option("--json", "as_json", is_flag=True)
    def kernel(as_json: bool) -> None:
        seen.append(as_json)

    class Bench:
        bench = group

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: {"understudy.bench.cli": Bench}[name])
    assert run("bench", "kernel", "--json").exit_code == 0
    assert seen == [True]
    helped = run("bench", "--help")
    assert "kernel" in helped.output
    assert helped.exit_code == 0
    assert run("bench", "nonsense").exit_code == 2


def test_a_misspelt_variable_is_told_and_a_right_one_is_not() -> None:
    environment = {"UNDERSTUDY_PORT": "1", "UNDERSTUDY_ALLOWED_HOSTS": "a", "UNDERSTUDY_TARGET": "b", "HOME": "/"}
    assert cli.misspelt_variables(environment) == ["UNDERSTUDY_ALLOWED_HOSTS"]


def test_the_variables_of_nats_are_no_misspelling() -> None:
    environment = {"UNDERSTUDY_NATS_USER": "u", "UNDERSTUDY_NATS_PASSWORD": "p", "UNDERSTUDY_NATS_TOKEN": "t"}
    assert cli.misspelt_variables(environment) == []


def test_one_node_needs_no_nats_and_does_not_import_it() -> None:
    program = """
import sys
sys.modules["nats"] = None
from click.testing import CliRunner
from understudy.runtime.commands import cli
from understudy.runtime.commands import serve
from understudy.runtime import runtime
serve.serve = lambda spec, options: None
for args in (["--help"], ["serve", "--help"], ["serve", "m:a"]):
    assert CliRunner().invoke(cli.main, args, catch_exceptions=False).exit_code == 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("served")
def test_a_cluster_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.runtime.commands.nats_options.find_spec", lambda name: None)
    for args in (("serve", "m:a", "--cluster", "a", *NATS), ("cluster", "m:a"), ("nodes",), ("top", "--once")):
        result = run(*args)
        assert (result.exit_code, "pip install 'understudy[cluster]'" in result.stderr) == (2, True), args
