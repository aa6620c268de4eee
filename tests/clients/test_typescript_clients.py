"""The TypeScript SDK's client as a guest of a hosted server: version 1 (`sdk`), and version 2 (`client`) in both eras.

Each kind of client makes one visit, the script typescript.mjs; each test looks at one step of it.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from clients.guests import NAME, ROOT, SUMMARY, House
from support import find_node

SCRIPT = Path(__file__).with_name("typescript.mjs")
KINDS = ["sdk-handshake", "client-handshake", "client-modern"]


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def visit(kind: str, demo: House, extras: House, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client saw at each step."""
    library, era = kind.split("-")
    node = find_node(f"@modelcontextprotocol/{library}")
    if isinstance(node, str):
        pytest.skip(node)
    folder = tmp_path_factory.mktemp("typescript")
    code, out, err = asyncio.run(node.run(SCRIPT, library, era, demo.url, extras.url, cwd=folder, timeout=60))
    steps = {line["step"]: line["value"] for line in map(json.loads, out.splitlines())}
    print(out, err, demo.output, extras.output, sep="\n")
    assert code == 0, f"the visit ended after {list(steps)}"
    return steps


def test_the_era_is_the_one_asked_for(visit: dict[str, Any], kind: str) -> None:
    assert visit["revision"] == ("2026-07-28" if kind.endswith("modern") else "2025-11-25")


def test_tools_are_listed_and_called(visit: dict[str, Any]) -> None:
    assert {"increment", "count", "countdown"} <= set(visit["tools"])
    assert visit["increments"] == [1, 2]
    assert visit["count"] == 2
    assert visit["failure"] is True


def test_progress_is_received(visit: dict[str, Any]) -> None:
    assert visit["progress"] == [[1, 3], [2, 3], [3, 3]]


def test_a_list_change_is_received(visit: dict[str, Any]) -> None:
    assert visit["list change"] == [True, True]


def test_an_elicitation_is_answered(visit: dict[str, Any]) -> None:
    assert NAME in visit["elicitation"]


def test_a_sampling_request_is_answered(visit: dict[str, Any]) -> None:
    assert SUMMARY in visit["sampling"]


def test_a_client_is_asked_for_its_roots(visit: dict[str, Any]) -> None:
    assert visit["roots"] == [ROOT]


def test_log_messages_arrive_from_the_level_on_that_was_asked_for(visit: dict[str, Any]) -> None:
    assert visit["logged"] == ["careful", "ouch"]


def test_a_watched_resource_that_changes_is_told_of(visit: dict[str, Any]) -> None:
    assert visit["resource change"] is True


def test_a_stream_that_the_server_closes_early_is_resumed(visit: dict[str, Any]) -> None:
    assert visit["come back"] == ["you are back", [1, 2, 3]]


def test_a_cancelled_call_is_cancelled_at_the_server(visit: dict[str, Any]) -> None:
    assert visit["cancelled"] == ["rejected", True]


def test_an_ended_session_is_gone(visit: dict[str, Any], kind: str) -> None:
    assert visit["ended"] == (True if kind.endswith("modern") else [200, 404])
