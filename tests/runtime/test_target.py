"""TARGET: what it may be, and what is said when it is not."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from understudy.runtime.commands.target import TargetError, default_store_path, load_target, watch_roots

SERVER = "from mcp.server.mcpserver import MCPServer\nserver = MCPServer('s')\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory to stand in; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def message(spec: str) -> str:
    with pytest.raises(TargetError) as caught:
        load_target(spec)
    return str(caught.value)


def test_a_server_is_loaded_from_a_module_in_the_working_directory(project: Path) -> None:
    (project / "tgt_module.py").write_text(SERVER)
    target = load_target("tgt_module:server")
    assert target.server.name == "s"
    assert target.source == (project / "tgt_module.py").resolve()


def test_a_server_is_loaded_from_a_file_with_its_neighbours_importable(project: Path) -> None:
    (project / "inner").mkdir()
    (project / "inner" / "tgt_neighbour.py").write_text(SERVER)
    (project / "inner" / "tgt_main.py").write_text("from tgt_neighbour import server\n")
    assert load_target("inner/tgt_main.py:server").server.name == "s"


def test_a_dotted_attribute_is_followed(project: Path) -> None:
    (project / "tgt_dotted.py").write_text(f"{SERVER}\nclass app:\n    mcp = server\n")
    assert load_target("tgt_dotted.py:app.mcp").server.name == "s"


def test_a_file_called_like_a_loaded_module_does_not_take_its_place(project: Path) -> None:
    import queue

    (project / "queue.py").write_text(SERVER)
    assert load_target("queue.py:server").server.name == "s"
    assert sys.modules["queue"] is queue


def test_a_low_level_server_a_fastmcp_server_and_a_factory_are_targets(project: Path) -> None:
    (project / "tgt_kinds.py").write_text(
        "from mcp.server.lowlevel import Server\nfrom fastmcp import FastMCP\nlow = Server('l')\nfast = FastMCP('f')\n"
        "async def make(tenant): ...\ndef loose(*args, **kwargs): ...\n"
    )
    for attr in ("low", "fast", "make", "loose"):
        assert load_target(f"tgt_kinds.py:{attr}").server is not None


@pytest.mark.parametrize("spec", ["server.py", "module", "module:", ":server", "", "module:a b", "module:a..b"])
def test_a_target_that_is_not_module_and_attribute_is_explained(spec: str) -> None:
    assert "attr" in message(spec)


def test_a_missing_file_is_named_with_near_matches(project: Path) -> None:
    (project / "server.py").write_text(SERVER)
    assert message("sever.py:server") == "no file 'sever.py'; did you mean 'server.py'?"


def test_a_missing_module_is_named_with_where_it_was_sought(project: Path) -> None:
    assert message("tgt_absent.sub:server").startswith(f"no module 'tgt_absent' here ({project})")


def test_a_path_given_as_a_module_is_told_to_be_a_file() -> None:
    assert "neither a module's name" in message("./dir/server:mcp")


def test_a_missing_attribute_is_named_with_near_matches(project: Path) -> None:
    (project / "tgt_attr.py").write_text(SERVER)
    assert "has no attribute 'sevrer'; did you mean 'server'?" in message("tgt_attr.py:sevrer")


def test_a_missing_attribute_unlike_any_other_lists_the_servers_there_are(project: Path) -> None:
    (project / "tgt_list.py").write_text(SERVER)
    assert message("tgt_list.py:zzz").endswith("; it has server")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x = 3", "is of type int"),
        ("from mcp.server.mcpserver import MCPServer as x", "is the class MCPServer, not a server made from it"),
        ("class x: ...", "is the class x"),
        ("def x(): ...", "is called with one argument, the tenant context, but takes ()"),
        ("def x(a, b): ...", "but takes (a, b)"),
        ("import json as x", "is of type module"),
        (
            f"{SERVER}from understudy.runtime import Runtime\nx = Runtime(server)",
            "serve its `app` (uvicorn",
        ),
    ],
)
def test_an_object_of_the_wrong_kind_is_refused_by_what_it_is(project: Path, line: str, said: str) -> None:
    (project / "tgt_wrong.py").write_text(line)
    assert said in message("tgt_wrong.py:x")


def test_code_that_raises_on_import_shows_its_own_traceback_and_nothing_of_ours(project: Path) -> None:
    (project / "tgt_helper.py").write_text("def go():\n    return 1 / 0\n")
    (project / "tgt_raises.py").write_text("import tgt_helper\ntgt_helper.go()\n")
    with pytest.raises(TargetError, match=r"tgt_raises\.py cannot be imported: ZeroDivisionError") as caught:
        load_target("tgt_raises.py:server")
    details = caught.value.details
    assert 'tgt_raises.py", line 2' in details
    assert 'tgt_helper.py", line 2, in go' in details
    assert "importlib" not in details
    assert "runtime/commands/target.py" not in details


def test_a_syntax_error_shows_its_line(project: Path) -> None:
    (project / "tgt_syntax.py").write_text("x = (\n")
    with pytest.raises(TargetError, match="SyntaxError") as caught:
        load_target("tgt_syntax.py:server")
    assert 'tgt_syntax.py", line 1' in caught.value.details


def test_a_module_that_the_target_lacks_is_not_taken_for_the_target(project: Path) -> None:
    (project / "tgt_lacks.py").write_text("import tgt_not_installed\n")
    assert "cannot be imported: ModuleNotFoundError: No module named 'tgt_not_installed'" in message("tgt_lacks:server")


def test_a_file_of_a_package_is_told_how_to_be_named(project: Path) -> None:
    (project / "tgtpkg").mkdir()
    (project / "tgtpkg" / "main.py").write_text("from .x import server\n")
    assert "name it tgtpkg.main:server" in message("tgtpkg/main.py:server")


def test_a_target_that_exits_on_import_does_not_take_the_command_with_it(project: Path) -> None:
    (project / "tgt_exits.py").write_text("import sys\nsys.exit(0)\n")
    assert '__name__ == "__main__"' in message("tgt_exits.py:server")


def test_the_default_store_is_private_and_of_this_target_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "state"))
    paths: set[Path] = set()
    for where in ("one", "two"):
        (project / where).mkdir()
        (project / where / "tgt_same.py").write_text(f"{SERVER}\nother = server\n")
        for attr in ("server", "other"):
            paths.add(default_store_path(load_target(f"{where}/tgt_same.py:{attr}")))
            sys.modules.pop("tgt_same", None)
    assert len(paths) == 4
    for path in paths:
        assert path.parent == project / "state" / "understudy"
        assert path.name.startswith("tgt-same-")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_default_store_is_the_same_however_the_target_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "state"))
    (project / "tgt_both.py").write_text(SERVER)
    assert default_store_path(load_target("tgt_both.py:server")) == default_store_path(load_target("tgt_both:server"))


def test_without_xdg_state_home_the_default_store_is_in_the_home_directory(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(project))
    (project / "tgt_home.py").write_text(SERVER)
    target = load_target("tgt_home.py:server")
    for value in (None, "relative/is/invalid"):
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("XDG_STATE_HOME", value)
        assert default_store_path(target).parent == project / ".local" / "state" / "understudy"


def test_no_place_for_the_default_store_asks_for_another(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "blocked").write_text("a file")
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "blocked"))
    (project / "tgt_nowhere.py").write_text(SERVER)
    with pytest.raises(TargetError, match="--store"):
        default_store_path(load_target("tgt_nowhere.py:server"))


def test_what_to_watch_is_found_without_importing_the_target(project: Path) -> None:
    (project / "tgtwatch").mkdir()
    (project / "tgtwatch" / "__init__.py").write_text("raise RuntimeError\n")
    (project / "tgt_single.py").write_text("raise RuntimeError\n")
    assert watch_roots("tgtwatch.server:mcp") == [project / "tgtwatch"]
    assert watch_roots("tgt_single:mcp") == [project]
    assert watch_roots("tgtwatch/server.py:mcp") == [project / "tgtwatch"]
    assert watch_roots("tgt_unheard_of:mcp") == [project]
