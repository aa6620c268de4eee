"""What must be true of the tree itself: who may know whom, what the top level holds, what is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("stores", "actors", "runtime", "bench")
MAY_KNOW = {"stores": set[str](), "actors": {"stores"}, "runtime": {"stores", "actors"}, "bench": set(ROOMS)}
FOLDERS_OF_RUNTIME = (
    {"telemetry"},
    {"audit"},
    {"wire"},
    {"credentials", "databases", "fairness", "limits", "provider", "streams"},
    {"edge", "link"},
    {"cluster"},
    {""},
    {"commands", "store_commands"},
)
"""From the ground up; a folder may import those below it, and itself. "": the files beside them."""
LEAVES_OF_RUNTIME = {"errors"}
PUBLIC = (
    "understudy.stores",
    "understudy.stores.testing",
    "understudy.actors",
    "understudy.actors.session",
    "understudy.actors.testing",
    "understudy.runtime",
)
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def rooms_imported(path: Path) -> set[str]:
    """The rooms that a file of ours imports, its own included."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = list(parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                target = [*base, *(node.module or "").split(".")]
                found.add(next((part for part in target if part), package[0]))
                if not base:
                    found.update(alias.name for alias in node.names if not node.module)
            elif (node.module or "").startswith("understudy."):
                found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("understudy."))
    return found & set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_between_rooms_point_down_only(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    assert rooms_imported(path) <= MAY_KNOW[room] | {room}


def test_the_arrow_test_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    upward = tmp_path / "stores" / "bad.py"
    upward.parent.mkdir()
    upward.write_text("from ..runtime import Runtime\nfrom understudy.actors import Registry\n")
    assert rooms_imported(upward) == {"runtime", "actors"}


def folders_of_runtime_imported(path: Path) -> set[str]:
    """The folders of runtime/ that a file there needs when it is loaded or runs, and not for its types alone."""
    runtime = ROOT / "runtime"
    package = ["understudy", *path.relative_to(ROOT).parts[:-1]]
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level or id(node) in typing_only:
            continue
        base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
        inside = [part for part in base if part][2:]
        if base[:2] != ["understudy", "runtime"] or (inside and inside[0] in LEAVES_OF_RUNTIME):
            continue
        for name in inside[:1] or [alias.name for alias in node.names]:
            found.add(name if (runtime / name).is_dir() else "")
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "runtime").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_between_the_folders_of_the_runtime_point_down_only(path: Path) -> None:
    parts = path.relative_to(ROOT / "runtime").parts[:-1]
    folder = parts[0] if parts else ""
    height = next(height for height, folders in enumerate(FOLDERS_OF_RUNTIME) if folder in folders)
    if folder.endswith("commands") or path == ROOT / "runtime" / "__main__.py":
        height = len(FOLDERS_OF_RUNTIME)
    may = {folder}.union(*FOLDERS_OF_RUNTIME[:height])
    assert folders_of_runtime_imported(path) <= may


def test_only_the_session_kind_knows_mcp() -> None:
    generic = [path for path in SOURCES if path.parent.name in ("stores", "actors")]
    assert generic
    for path in generic:
        assert not re.search(r"^\s*(from|import) +mcp(_types)?\b", path.read_text(), re.MULTILINE), path


def test_the_top_level_holds_what_the_user_laid_down() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    allowed = {*ROOMS, "tests", "pyproject.toml", "README.md", "LICENSE", "Makefile", "CHANGELOG.md", "CONTRIBUTING.md"}
    assert {name for name in top if not name.startswith(".")} == allowed


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_a_docstring(module: str) -> None:
    home = importlib.import_module(module)
    assert home.__doc__, module
    for name in home.__all__:
        value = getattr(home, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            doc = value.__doc__ or ""
            # A dataclass without one is given its signature as one.
            assert doc, f"{module}.{name}"
            assert not doc.startswith(f"{name}("), f"{module}.{name}"
        if inspect.isclass(value):
            for member, function in vars(value).items():
                if inspect.isfunction(function) and not member.startswith("_") and member not in promised():
                    assert inspect.getdoc(getattr(value, member)), f"{module}.{name}.{member}"


def promised() -> set[str]:
    """Methods that a seam's protocol documents, so that its implementations need not."""
    found: set[str] = set()
    for module in PUBLIC:
        for value in vars(importlib.import_module(module)).values():
            if inspect.isclass(value) and getattr(value, "_is_protocol", False):
                found |= {name for name, method in vars(value).items() if inspect.getdoc(method)}
    return found


def test_no_name_of_the_runtime_is_that_of_a_file_beside_it() -> None:
    # Names are looked up when they are first used. Whoever has imported such a file by then would get that.
    home = ROOT / "runtime"
    files = {path.stem for path in home.glob("*.py")} | {path.name for path in home.iterdir() if path.is_dir()}
    assert not files & set(importlib.import_module("understudy.runtime").__all__)


def test_the_demo_server_is_the_one_that_is_documented() -> None:
    demo = importlib.import_module("understudy.runtime.demo")
    assert demo.server.name == "understudy-demo"
