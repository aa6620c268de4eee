"""stores/README.md: its Python blocks and its commands run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from understudy import stores

README = Path(stores.__file__).with_name("README.md")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)

COMMANDS = re.findall(r"^```bash\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


(STORE,) = (block for block in BLOCKS if block.startswith("# table_store.py\n"))


@pytest.fixture(autouse=True)
def store_of_the_readme(tmp_path: Path) -> None:
    """The store that other blocks import."""
    (tmp_path / "table_store.py").write_text(STORE)


def test_a_store_takes_less_than_a_hundred_lines() -> None:
    assert len(STORE.splitlines()[1:]) < 100


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_runs(block: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", block], cwd=tmp_path, check=True, timeout=30)


@pytest.mark.parametrize("block", COMMANDS, ids=range(len(COMMANDS)))
def test_commands_run(block: str, disk_path: Path) -> None:
    for line in block.splitlines():
        program, _, rest = line.partition(" ")
        assert program == "understudy", line
        command = f"{shlex.quote(sys.executable)} -m understudy.runtime {rest}"
        subprocess.run(["bash", "-c", command], cwd=disk_path, check=True, timeout=30)


def test_the_suite_in_the_readme_passes_under_a_plain_pytest(tmp_path: Path) -> None:
    (block,) = (block for block in BLOCKS if "(StoreContract)" in block)
    (tmp_path / "test_mine.py").write_text(block)
    # Its files are made where nothing waits for a disk, if there is such a place.
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    folder = Path(tempfile.mkdtemp(dir=memory))
    # Strict mode is pytest-asyncio's default, and an author's project need not have changed it.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "test_mine.py"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b8\d passed", done.stdout), done.stdout


def test_every_file_of_the_room_is_in_the_table() -> None:
    table = README.read_text().partition("## Files")[2]
    named = re.findall(r"`([a-z_*/]+\.py)`", table)
    for file in README.parent.rglob("*.py"):
        path = file.relative_to(README.parent).as_posix()
        assert file.name == "__init__.py" or any(fnmatchcase(path, name) for name in named), (
            f"{path} is not in the table"
        )
