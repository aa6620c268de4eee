"""`python -m tests.conformance.run` by hand: the suite against understudy, the SDK's own stack, or any URL.

Examples:
    python -m tests.conformance.run
    python -m tests.conformance.run --spec-version 2025-11-25 --scenario server-sse-polling --verbose
    python -m tests.conformance.run --stack sdk
    python -m tests.conformance.run --url http://localhost:8000/mcp
"""

import argparse
import asyncio
import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance.suite import EXPECTED, PACKAGE, run_suite
from support import Node, ServerProcess, StartError, find_node
from support.server import SDK

TARGET = "tests/conformance/server.py:server"


def stack(name: str) -> ServerProcess:
    if name == "sdk":
        return ServerProcess(TARGET, "--events", command=SDK, ready=None)
    return ServerProcess(TARGET, "--store", "memory://")


async def check(node: Node, url: str, options: argparse.Namespace) -> bool:
    good = True
    for revision in options.spec_version or EXPECTED:
        report = await run_suite(node, url, revision, scenario=options.scenario, verbose=options.verbose)
        if options.verbose:
            print(report.output)
        expected = f" (expected: {EXPECTED[revision]})" if revision in EXPECTED and not options.scenario else ""
        print(f"{revision}: {report}{expected}", flush=True)
        good = good and report.failed == 0
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--stack", choices=["understudy", "sdk"], default="understudy", help="what to start otherwise")
    parser.add_argument("--spec-version", action="append", help="may be repeated; default: both revisions")
    parser.add_argument("--scenario", help="only this one")
    parser.add_argument("--verbose", action="store_true", help="print each check, and what the server said")
    options = parser.parse_args()
    node = find_node(PACKAGE)
    if isinstance(node, str):
        sys.exit(node)
    try:
        with nullcontext() if options.url else stack(options.stack) as server:
            good = asyncio.run(check(node, options.url or server.url, options))
            if server and options.verbose:
                print(server.output)
    except StartError as error:
        sys.exit(str(error))
    sys.exit(not good)


if __name__ == "__main__":
    main()
