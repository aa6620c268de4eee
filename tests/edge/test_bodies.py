"""Bodies that are no message, or hardly one: each is refused by name, before anything runs, and kills nothing."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import Client, ModernClient, connected, hosting
from edge.server import make_server

PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS, METHOD_NOT_FOUND = -32700, -32600, -32602, -32601


def request(**fields: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"} | fields).encode()


def raw(text: str, **fields: str) -> bytes:
    """A request with members spelled by hand."""
    members = {"jsonrpc": '"2.0"', "id": "1", "method": '"ping"'} | fields
    return text.replace("{}", "{" + ",".join(f'"{key}":{value}' for key, value in members.items()) + "}").encode()


NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "blank": b" \n\t ",
    "text": b"hello",
    "half a message": request()[:-1],
    "more than one message": request() + request(),
    "a trailing comma": raw("{}")[:-1] + b",}",
    "single quotes": b"{'jsonrpc':'2.0'}",
    "a comment": b"/* hi */" + request(),
    "NUL": b"\x00",
    "NUL behind": request() + b"\x00",
    "NUL in a text": raw("{}", method='"pi\x00ng"'),
    "a line break in a text": raw("{}", method='"pi\nng"'),
    "a byte order mark": b"\xef\xbb\xbf" + request(),
    "UTF-16": request().decode().encode("utf-16"),
    "UTF-32": request().decode().encode("utf-32"),
    "Latin-1": raw("{}", method='"p\xefng"').decode().encode("latin-1"),
    "overlong UTF-8": b'{"jsonrpc":"2.0","id":1,"method":"\xc0\xaf"}',
    "a truncated UTF-8 sequence": b'{"jsonrpc":"2.0","id":1,"method":"\xe2\x82"}',
    "a raw surrogate": b'{"jsonrpc":"2.0","id":1,"method":"\xed\xa0\x80"}',
    "a lone surrogate in the method": raw("{}", method='"\\ud800"'),
    "a lone surrogate in the id": raw("{}", id='"\\ud800"'),
    "a lone surrogate in the params": raw("{}", params='{"a":"\\udc00"}'),
    "a lone surrogate in a key": raw("{}", params='{"\\udfff":1}'),
    "surrogates in the wrong order": raw("{}", params='{"a":"\\udc00\\ud800"}'),
    "half an escape": raw("{}", method='"\\u12"'),
    "a NaN": raw("{}", params='{"a":NaN}'),
    "an infinity": raw("{}", params='{"a":Infinity}'),
    "a negative infinity": raw("{}", params='{"a":-Infinity}'),
    "a hexadecimal": raw("{}", id="0x10"),
    "a leading zero": raw("{}", id="01"),
    "a plus sign": raw("{}", id="+1"),
    "a number of 5,000 digits": raw("{}", id="9" * 5_000),
    "a number of a million digits": raw("{}", params='{"a":' + "9" * 1_000_000 + "}"),
    "100,000 brackets": b"[" * 100_000,
    "100,000 brackets, closed": b"[" * 100_000 + b"]" * 100_000,
    "100,000 braces": b'{"a":' * 100_000,
    "params 100,000 deep": raw("{}", params='{"a":' * 100_000 + "1" + "}" * 100_000),
    "a million quotes": b'"' * 1_000_001,
    "gzip without saying so": gzip.compress(request()),
}

NO_MESSAGE: dict[str, bytes] = {
    "a batch": b"[" + request() + b"]",
    "an empty batch": b"[]",
    "a text": b'"ping"',
    "a number": b"7",
    "a number beyond floats": b"1e400",
    "true": b"true",
    "null": b"null",
    "an empty object": b"{}",
    "no jsonrpc": b'{"id":1,"method":"ping"}',
    "jsonrpc 1.0": request(jsonrpc="1.0"),
    "jsonrpc as a number": request(jsonrpc=2.0),
    "no method": b'{"jsonrpc":"2.0","id":1}',
    "a null method": request(method=None),
    "a number for a method": request(method=7),
    "a list for a method": request(method=["ping"]),
    "a null id": request(id=None),
    "a float id": request(id=1.0),
    "a float id beyond floats": raw("{}", id="1e400"),
    "true for an id": request(id=True),
    "an object for an id": request(id={}),
    "a list for an id": request(id=[1]),
    "a response to nothing": b'{"jsonrpc":"2.0","id":null,"result":{}}',
}

NO_PARAMS: dict[str, bytes] = {
    "a list for params": request(params=[1, 2]),
    "a text for params": request(params="x"),
    "a number for params": request(params=7),
    "false for params": request(params=False),
}


@asynccontextmanager
async def eras() -> AsyncGenerator[tuple[Client, ModernClient]]:
    """A client in each era, with a counter in the handshake era's session that stands at 1."""
    async with hosting(make_server()) as client, connected(client.runtime.app, ModernClient) as modern:
        await client.open()
        assert await client.tool("increment") == 1
        modern.runtime = client.runtime
        yield client, modern
        assert await client.tool("increment") == 2, "the session goes on"
        assert (await modern.ask("tools/list")).status == 200


def send(client: Client, body: Any, **headers: str) -> HTTPCall:
    if isinstance(client, ModernClient):
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "ping"} | headers
    return client.start(body=body, headers=headers)


def refused(call: HTTPCall, code: int, id: Any = None) -> None:
    assert call.status == 400, (call.status, call.body[:300])
    assert call.kind == "application/json"
    assert call.json["jsonrpc"] == "2.0"
    assert call.json["id"] == id
    assert call.json["error"]["code"] == code
    assert call.json["error"]["message"]
    assert len(call.body) < 1000, "what was sent is not sent back"


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_what_is_not_json_is_refused(body: bytes) -> None:
    async with eras() as clients:
        for client in clients:
            refused(await send(client, body).answered(), PARSE_ERROR)


@pytest.mark.parametrize("body", NO_MESSAGE.values(), ids=NO_MESSAGE)
async def test_what_is_no_message_is_refused(body: bytes) -> None:
    async with eras() as clients:
        for client in clients:
            refused(await send(client, body).answered(), INVALID_REQUEST)


@pytest.mark.parametrize("body", NO_PARAMS.values(), ids=NO_PARAMS)
async def test_params_that_are_no_object_are_refused_by_id(body: bytes) -> None:
    async with eras() as clients:
        for client in clients:
            refused(await send(client, body).answered(), INVALID_REQUEST, id=1)


async def test_not_json_is_refused_without_a_session_too() -> None:
    async with hosting(make_server()) as client:
        for body in NOT_JSON.values():
            refused(await client.send(body=body), PARSE_ERROR)
        for body in NO_MESSAGE.values():
            refused(await client.send(body=body), INVALID_REQUEST)
        assert client.runtime.stats()["sessions_activations"] == 0


@pytest.mark.parametrize(
    "id", [0, -1, 2**53, 2**64, -(10**4000), "", " ", "a" * 10_000, "\x00", "\U0001f600", "null", "1e5"]
)
async def test_an_unusual_id_comes_back_as_it_was(id: Any) -> None:
    async with eras() as (client, modern):
        for one in (client, modern):
            call = await one.ask("tools/list", id=id)
            assert call.status == 200
            assert call.reply["id"] == id
            assert type(call.reply["id"]) is type(id)
        assert (await client.begin_tool("nothing", id=id).answered()).reply["id"] == id


async def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    async with eras() as (client, _):
        call = await client.send(body=b'{"jsonrpc":"1.0","jsonrpc":"2.0","id":1,"id":2,"method":"x","method":"ping"}')
        assert (call.reply["id"], call.result) == (2, {})


@pytest.mark.parametrize(
    "params",
    [
        {"name": 7},
        {"name": None},
        {"name": ["increment"]},
        {"name": {"a": 1}},
        {"name": "increment", "arguments": []},
        {"name": "increment", "arguments": "x"},
        {"name": "increment", "_meta": 7},
        {"name": "increment", "_meta": {"progressToken": {}}},
        {"arguments": {}},
        {},
        None,
    ],
)
async def test_a_tool_call_that_makes_no_sense_is_refused_by_id_and_runs_nothing(params: Any) -> None:
    async with eras() as (client, _):
        call = await client.ask("tools/call", params, id="odd")
        assert call.status == 200
        assert call.reply["id"] == "odd"
        assert call.failure["code"] == INVALID_PARAMS


@pytest.mark.parametrize("method", ["", " ", "nope", "tools/", "rpc.x", "__init__", "a" * 10_000, "\x00", "\u2028"])
async def test_a_method_that_nobody_has_is_refused(method: str) -> None:
    async with eras() as (client, modern):
        call = await client.ask(method)
        assert (call.status, call.failure["code"]) == (200, METHOD_NOT_FOUND)
        if method.isalpha() and len(method) < 100:
            call = await modern.ask(method)
            assert (call.status, call.failure["code"]) == (404, METHOD_NOT_FOUND)


@pytest.mark.parametrize("value", [10**300, -(2**63), 1e308, 5e-324, "\x00", "\u2028\U0001f600", {"": {"": None}}])
async def test_an_unusual_argument_arrives_as_it_was(value: Any) -> None:
    async with eras() as clients:
        for client in clients:
            call = await client.begin_tool("echo", {"value": value}).answered()
            assert (
                json.loads(call.result["content"][0]["text"] if not isinstance(value, str) else json.dumps(value))
                == value
            )


async def test_a_number_beyond_floats_does_not_become_no_json() -> None:
    async with eras() as (client, _):
        call = await client.send(body=raw("{}", params='{"a":1e400,"_meta":{"b":-1e400}}'))
        assert call.result == {}
        params = '{"name":"echo","arguments":{"value":1e400}}'
        call = await client.send(body=raw("{}", method='"tools/call"', params=params))
        assert call.json["id"] == 1
