"""PROTOCOL.md, "Handshake leg": one test for each row of the table."""

from __future__ import annotations

import json
import re

import pytest
from edge.call import HTTPCall
from edge.client import LATEST, Client, hosting, initialize_params
from edge.server import Stage, make_server
from understudy.runtime import ConfigurationError, Runtime
from understudy.stores import MemoryStore

NO_ID = {"jsonrpc": "2.0", "id": None}


def refused(call: HTTPCall, status: int, code: int = -32600) -> str:
    """The message of a refusal without an id."""
    assert call.status == status, call.body
    assert call.header("mcp-session-id") is None
    assert call.header("content-length") == str(len(call.body))
    assert {**call.json, "error": None} == {**NO_ID, "error": None}
    assert call.json["error"]["code"] == code
    return call.json["error"]["message"]


def initialize(client: Client, **options: object) -> HTTPCall:
    return client.begin("initialize", initialize_params(), id=1, **options)


async def test_initialize_opens_a_session_with_an_unguessable_visible_id() -> None:
    async with hosting(make_server()) as client:
        ids: set[str] = set()
        for _ in range(5):
            call = await initialize(client).answered()
            assert call.status == 200
            assert call.json["id"] == 1
            assert call.json["result"]["protocolVersion"] == LATEST
            id = call.header("mcp-session-id")
            assert id is not None
            assert re.fullmatch(r"[\x21-\x7e]{22,}", id), "fewer than 128 bits"
            ids.add(id)
        assert len(ids) == 5


async def test_a_session_speaks_the_revision_that_its_client_asked_for() -> None:
    async with hosting(make_server()) as client:
        for revision in ("2025-03-26", "2025-06-18", "2025-11-25"):
            assert (await client.open(revision)).result["protocolVersion"] == revision
        for unknown in ("1999-01-01", "", "2026-07-28", "\ud83d\ude00"):
            assert (await client.twin().open(unknown)).result["protocolVersion"] == LATEST


@pytest.mark.parametrize("params", [None, {}, {"protocolVersion": 7}, {"protocolVersion": LATEST, "capabilities": []}])
async def test_an_initialize_that_makes_no_sense_opens_nothing(params: object) -> None:
    async with hosting(make_server()) as client:
        message = {"jsonrpc": "2.0", "id": "a", "method": "initialize"} | ({"params": params} if params else {})
        call = await client.send(body=json.dumps(message).encode())
        assert call.json["id"] == "a"
        assert call.json["error"]["code"] == -32602
        assert call.header("mcp-session-id") is None


async def test_what_is_no_initialize_needs_a_session_id() -> None:
    async with hosting(make_server()) as client:
        for call in (
            await client.ask("ping"),
            await client.notify("notifications/initialized"),
            await client.respond("1-1", {}),
            await client.send("GET"),
            await client.send("DELETE"),
        ):
            assert refused(call, 400) == "Missing session ID"


async def test_a_session_is_initialized_once() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        again = await client.ask("initialize", initialize_params())
        assert (again.status, again.failure["code"]) == (400, -32600)
        assert "initialized already" in again.failure["message"]
        assert await client.tool("increment") == 1


async def test_a_notification_and_a_response_are_accepted_without_a_body() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        for call in (
            await client.notify("notifications/roots/list_changed"),
            await client.notify("notifications/unheard-of", {"a": 1}),
            await client.notify("notifications/cancelled", {"requestId": "nobody"}),
            await client.notify("notifications/cancelled", {"requestId": {}}),
            await client.notify("notifications/progress", {"progressToken": [], "progress": "x"}),
            await client.respond("nobody-asked", {}),
            await client.send(body=b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}'),
        ):
            assert (call.status, call.body, call.header("content-type")) == (202, b"", None)
        assert await client.tool("increment") == 1


async def test_a_malformed_notification_or_response_is_refused() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        for body in (
            b'{"jsonrpc":"2.0","method":7}',
            b'{"jsonrpc":"2.0","method":"notifications/initialized","params":[1]}',
            b'{"jsonrpc":"2.0","id":1}',
            b'{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}',
            b'{"jsonrpc":"2.0","id":1,"result":7}',
            b'{"jsonrpc":"2.0","id":1,"error":{"message":"no code"}}',
            b'{"jsonrpc":"2.0","id":1,"error":"no object"}',
            b'{"jsonrpc":"2.0","id":null,"result":{}}',
        ):
            refused(await client.send(body=body), 400)


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json, text/event-stream", 200),
        ("text/event-stream;q=0.5,application/json;q=0.9", 200),
        ("APPLICATION/JSON, Text/Event-Stream", 200),
        ("*/*", 200),
        ("application/*, text/*", 200),
        (["application/json", "text/event-stream"], 200),
        ("application/json", 406),
        ("text/event-stream", 406),
        ("text/html, application/xhtml+xml", 406),
        ("application/json-seq, text/event-streams", 406),
        ("", 406),
        (None, 406),
    ],
)
async def test_a_post_must_accept_both_kinds_of_answer(accept: str | list[str] | None, status: int) -> None:
    async with hosting(make_server()) as client:
        call = await initialize(client, headers={"accept": accept}).answered()
        if status == 406:
            assert refused(call, 406).startswith("Not Acceptable")
        assert call.status == status


@pytest.mark.parametrize("accept", ["application/json", "", None, "text/plain"])
async def test_a_get_must_accept_a_stream(accept: str | None) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        refusal = refused(await client.send("GET", headers={"accept": accept}), 406)
        assert "text/event-stream" in refusal
        stream = await client.start("GET", headers={"accept": "text/event-stream"}).started()
        assert (stream.status, stream.kind) == (200, "text/event-stream")


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data"]
)
async def test_a_body_that_is_not_json_is_refused_by_its_type(kind: str | None) -> None:
    async with hosting(make_server()) as client:
        assert refused(await initialize(client, headers={"content-type": kind}).answered(), 415).startswith(
            "Unsupported"
        )


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/json;"])
async def test_json_may_say_more_of_itself(kind: str) -> None:
    async with hosting(make_server()) as client:
        assert (await initialize(client, headers={"content-type": kind}).answered()).status == 200


async def test_a_body_over_the_limit_is_refused_before_it_is_parsed_and_opens_nothing() -> None:
    async with hosting(make_server(), max_body=2048) as client:
        body = client.message("initialize", initialize_params())
        padded = body + b" " * (2049 - len(body))
        assert refused(await client.send(body=padded), 413) == "Request body too large"
        assert client.runtime.stats()["sessions_activations"] == 0
        assert (await client.send(body=padded[:-1])).status == 200
        assert client.runtime.stats()["sessions_activations"] == 1


async def test_delete_ends_the_session_its_streams_and_its_record() -> None:
    store = MemoryStore()
    async with hosting(make_server(stage := Stage()), store=store) as client:
        await client.open()
        standing = await client.start("GET").started()
        running = client.begin_tool("hold")
        await stage.began.wait()
        ended = await client.send("DELETE")
        assert (ended.status, ended.body) == (200, b"")
        await standing.answered()
        assert (await running.answered()).failure["message"] == "Request cancelled"
        assert stage.cancelled == 1
        assert store.stats()["records"] == 0
        for call in (await client.ask("ping"), await client.send("GET"), await client.send("DELETE")):
            assert call.status == 404
        stream = running.events[0].id if running.kind == "text/event-stream" else "x-1"
        assert (await client.send("GET", headers={"last-event-id": stream})).status == 404


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"])
async def test_other_methods_are_not_allowed(method: str) -> None:
    async with hosting(make_server()) as client:
        call = await client.send(method)
        refused(call, 405)
        assert call.header("allow") == "GET, POST, DELETE"


async def test_a_full_node_asks_for_patience() -> None:
    async with hosting(make_server(stage := Stage()), max_sessions=2) as client:
        other = client.twin()
        for one in (client, other):
            await one.open()
            stage.began.clear()
            one.begin_tool("hold")
            await stage.began.wait()
        call = await initialize(client.twin()).answered()
        assert call.status == 503
        assert call.header("mcp-session-id") is None
        assert int(call.header("retry-after") or 0) >= 1
        assert call.json["id"] == 1
        assert call.json["error"]["code"] == -32000
        stage.go_on.set()
        # As soon as one of them rests, it makes way.
        await client.ask("ping")
        assert (await client.twin().open()).status == 200


async def test_a_session_that_is_too_busy_asks_for_patience() -> None:
    async with hosting(make_server(stage := Stage()), mailbox_size=1) as client:
        await client.open()
        running = client.begin_tool("hold")
        await stage.began.wait()
        waiting = client.begin_tool("increment")
        await client.ask("ping")
        call = await client.begin_tool("increment", id="one too many").answered()
        assert call.status == 429
        assert int(call.header("retry-after") or 0) >= 1
        assert call.json["id"] == "one too many"
        assert call.json["error"]["code"] == -32000
        stage.go_on.set()
        assert (await running.answered()).value == 1
        assert (await waiting.answered()).value == 1, "refused calls do not run"


async def test_a_revision_that_nobody_speaks_is_refused_with_those_that_are_spoken() -> None:
    async with hosting(make_server()) as client:
        await client.open()
        for version in ("1999-01-01", "latest", "", "2025-11-25 ", "\xff"):
            call = await client.ask("ping", headers={"mcp-protocol-version": version})
            assert call.status == 400
            assert call.failure["code"] in (-32602, -32020, -32022)


@pytest.mark.parametrize("path", ["mcp", "", "mcp/"])
def test_a_path_must_start_with_a_slash(path: str) -> None:
    with pytest.raises(ConfigurationError, match="path is"):
        Runtime(make_server(), path=path)


async def test_the_endpoint_is_where_it_was_put() -> None:
    async with hosting(make_server(), path="/deep/down") as client:
        for path, status in (("/deep/down", 200), ("/deep/down/", 200), ("/deep", 404), ("/mcp", 404), ("//", 404)):
            call = await initialize(client, path=path).answered()
            assert call.status == status, path
