"""Runs the official conformance suite against a server, and reads what it reports."""

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from support import NODE_PACKAGES, Node

PACKAGE = "@modelcontextprotocol/conformance"
SCRIPT = NODE_PACKAGES / PACKAGE / "dist" / "index.js"

EXPECTED = {"2025-11-25": 84, "2026-07-28": 152}
"""Checks that pass, of each revision: all that there are."""

_SCENARIO = re.compile(r"^. ([a-z0-9-]+): (\d+) passed, (\d+) failed", re.MULTILINE)
_TOTAL = re.compile(r"^Total: (\d+) passed, (\d+) failed", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Report:
    """What one run of the suite said.

    Attributes:
        passed, failed: numbers of checks; -1 where the suite ended without a summary.
        scenarios: (passed, failed) of each scenario.
        output: everything that it printed.
    """

    passed: int
    failed: int
    scenarios: dict[str, tuple[int, int]]
    output: str

    @classmethod
    def parse(cls, output: str) -> "Report":
        total = _TOTAL.search(output)
        passed, failed = (int(total[1]), int(total[2])) if total else (-1, -1)
        return cls(passed, failed, {name: (int(p), int(f)) for name, p, f in _SCENARIO.findall(output)}, output)

    def __repr__(self) -> str:
        return f"<Report {self}>"

    def __str__(self) -> str:
        troubled = [name for name, (_, failed) in self.scenarios.items() if failed]
        silent = [name for name, counts in self.scenarios.items() if counts == (0, 0)]
        lines = [f"{self.passed} passed, {self.failed} failed"]
        lines += [f"failed: {', '.join(troubled)}"] * bool(troubled)
        lines += [f"without a check: {', '.join(silent)}"] * bool(silent)
        return "; ".join(lines)


async def run_suite(
    node: Node, url: str, revision: str, *, scenario: str | None = None, verbose: bool = False, timeout: float = 150
) -> Report:
    """Run every scenario of a revision (or only the one named) against the server at `url`.

    Raises:
        TimeoutError: the suite took longer than `timeout` seconds.
    """
    # The suite's rule against DNS rebinding applies to servers that it reaches by this name.
    url = url.replace("//127.0.0.1:", "//localhost:")
    what = ["--scenario", scenario] if scenario else ["--suite", "all"]
    what += ["--verbose"] * verbose
    with TemporaryDirectory(prefix="understudy-conformance-") as folder:
        _, out, err = await node.run(
            SCRIPT, "server", "--url", url, "--spec-version", revision, *what, cwd=Path(folder), timeout=timeout
        )
    return Report.parse(out + err)
