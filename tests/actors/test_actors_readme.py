"""The guide's examples work as they stand, and its file table names what is there."""

import re
from pathlib import Path

import pytest
import understudy.actors

HOME = Path(understudy.actors.__file__).parent
GUIDE = (HOME / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_guide_runs(example):
    exec(compile(example, "actors/README.md", "exec"), {"__name__": "__main__"})


def test_the_guide_names_only_files_that_exist():
    here = Path(__file__).parent
    for name in re.findall(r"`([a-z_]+\.py)`", GUIDE):
        assert (HOME / name).exists() or (here / name).exists(), name


def test_every_public_name_is_documented():
    for name in understudy.actors.__all__:
        assert getattr(understudy.actors, name).__doc__, name
