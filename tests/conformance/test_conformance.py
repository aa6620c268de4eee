"""The official conformance suite against a server hosted by understudy."""

from collections.abc import Callable

import pytest
from conformance.suite import EXPECTED, PACKAGE, run_suite
from support import BalancedCluster, Node, ServerProcess, find_node

SERVER = "tests/conformance/server.py:server"


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
    async with serve(SERVER, "--store", "memory://") as server:
        report = await run_suite(node, server.url, revision)
        print(report.output, server.output, sep="\n")

    assert report.failed == 0, str(report)
    # A check that the suite left out is neither failed nor passed, so the number counts as well.
    assert report.passed == EXPECTED[revision], str(report)


@pytest.mark.parametrize("revision", EXPECTED)
async def test_any_node_the_official_suite_cannot_tell_three_nodes_behind_a_balancer_from_one(
    revision: str, node: Node, nats_url: str
) -> None:
    async with BalancedCluster(SERVER, nats=nats_url) as cluster:
        report = await run_suite(node, cluster.url, revision)
        print(report.output, cluster.output, sep="\n")

    assert report.failed == 0, str(report)
    assert report.passed == EXPECTED[revision], str(report)
    shares = [cluster.balancer.served[node.host, node.port] for node in cluster.nodes]
    assert max(shares) <= 1.1 * min(shares) + 2, f"every node had its share: {shares}"
