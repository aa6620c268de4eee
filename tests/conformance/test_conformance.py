"""The official conformance suite against a server hosted by understudy."""

from collections.abc import Callable

import pytest
from conformance.suite import EXPECTED, PACKAGE, run_suite
from support import Node, ServerProcess, find_node


@pytest.fixture
def node() -> Node:
    found = find_node(PACKAGE)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.mark.parametrize("revision", EXPECTED)
async def test_the_official_suite_finds_no_fault(
    revision: str, node: Node, serve: Callable[..., ServerProcess]
) -> None:
    async with serve("tests/conformance/server.py:server", "--store", "memory://") as server:
        report = await run_suite(node, server.url, revision)
        print(report.output, server.output, sep="\n")

    assert report.failed == 0, str(report)
    # A check that the suite left out is neither failed nor passed, so the number counts as well.
    assert report.passed == EXPECTED[revision], str(report)
