"""What a credential does not see is to it what never was: whatever it asks, the bytes of the answers are the same."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from edge.call import HTTPCall
from edge.client import Client, ModernClient, connected
from surfaces.shops import HIDDEN_TOOLS, POOR, RICH, bearer, fastmcp, lowlevel, mcpserver, resolve
from understudy.runtime import Runtime

OPENED = re.compile(rb"(?<=Session )[\w-]{32}(?= is open)|(?<=\"session\":\")[\w-]{32}(?=\")")
TOOLS_FOR_POOR = ("search", "add", "nested", "publish", "oth*")


def tools_for(tenant: Any) -> set[str]:
    return {"*"} if "billing" in tenant.scopes else set(TOOLS_FOR_POOR)


MAKES: dict[str, Callable[[bool], tuple[object, dict[str, Any]]]] = {
    "one-server-tags": lambda whole: (mcpserver(whole=whole), {}),
    "one-server-names": lambda whole: (mcpserver(whole=whole, tools_tagged=False), {"tools_for": tools_for}),
    "factory-tags": lambda whole: (lambda tenant: mcpserver(whole=whole), {}),
    "factory-names": lambda whole: (
        lambda tenant: mcpserver(whole=whole, tools_tagged=False),
        {"tools_for": tools_for},
    ),
    "subclass-names": lambda whole: (_subclassed(whole), {"tools_for": tools_for}),
    "fastmcp-tags": lambda whole: (fastmcp(whole=whole), {}),
    "fastmcp-names": lambda whole: (fastmcp(whole=whole, tools_tagged=False), {"tools_for": tools_for}),
    "lowlevel-names": lambda whole: (lowlevel(whole=whole), {"tools_for": tools_for}),
}


def _subclassed(whole: bool) -> object:
    server = mcpserver(whole=whole, tools_tagged=False)
    kind = type(server)

    class Own(kind):
        async def list_tools(self) -> Any:
            return await super().list_tools()

    server.__class__ = Own
    return server


def asked() -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Method, params and further headers."""
    names = (*HIDDEN_TOOLS, "search", "add", "nowhere", "open_session", "close_session", "")
    arguments: tuple[dict[str, Any] | None, ...] = (
        None,
        {},
        {"order": 1, "term": "x", "key": "k", "item": "i", "place": "p"},
        {"order": "not a number", "place": 5},
        {"session": "A" * 32, "key": "k", "item": "i"},
        {"session": "short", "key": "k"},
    )
    for name, given in itertools.product(names, arguments):
        params = {"name": name} if given is None else {"name": name, "arguments": given}
        yield "tools/call", params, {}
        if name in ("region", "vault", "nowhere") and given is not None:
            yield "tools/call", params, {"mcp-param-place": "elsewhere"}
            yield "tools/call", params, {"mcp-param-session": "B" * 32}
    for name in ("refund", "ledger"):
        yield "tools/call", {"name": "nested", "arguments": {"name": name}}, {}
        yield "tools/call", {"name": name, "arguments": []}, {}
        yield "tools/call", {"name": name, "_meta": {"progressToken": 1}}, {}
    for method in ("tools/list", "resources/list", "resources/templates/list", "prompts/list"):
        yield method, {}, {}
        for cursor in ("1", "nonsense", "Mg=="):
            yield method, {"cursor": cursor}, {}
    uris = (
        "shop://ledger",
        "shop://text",
        "shop://books/7",
        "shop://books/{number}",
        "shop://prices",
        "shop://nowhere",
    )
    for uri in (*uris, "shop://articles/tea", "shop://books/../7", "shop://books/"):
        for method in ("resources/read", "resources/subscribe", "resources/unsubscribe"):
            yield method, {"uri": uri}, {}
    for name, given in itertools.product(("greet", "dun", "nowhere"), ({}, {"name": "bob"}, {"other": "1"}, None)):
        yield "prompts/get", {"name": name} if given is None else {"name": name, "arguments": given}, {}
    argument = {"name": "name", "value": ""}
    for name in ("greet", "dun", "nowhere"):
        yield "completion/complete", {"ref": {"type": "ref/prompt", "name": name}, "argument": argument}, {}
    for uri in (*uris, "shop://articles/{name}"):
        yield "completion/complete", {"ref": {"type": "ref/resource", "uri": uri}, "argument": argument}, {}
    yield "completion/complete", {"ref": {"type": "ref/prompt", "uri": "shop://ledger"}, "argument": argument}, {}
    yield "server/discover", {}, {}
    yield "ping", {}, {}
    yield "no/such-method", {"name": "refund"}, {}


async def answers(client: Client, headers: dict[str, str], each: int = 1) -> list[Any]:
    """What is answered to everything, or to one `each` so many, with no trace of which session it was."""
    client.headers = dict(headers)
    if type(client) is Client:
        opening = await client.open()
        assert opening.status == 200
    told: list[Any] = []
    for number, (method, params, more) in list(enumerate(asked(), 100))[::each]:
        call = await client.ask(method, params, id=number, headers=more)
        told.append(((method, params, more), *answer(call)))
    return told


def answer(call: HTTPCall) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body; that of a stream, which a slow machine makes of anything, as if it were none."""
    headers, body = sorted(call.headers), call.body
    if call.kind == "text/event-stream":
        body = call.events[-1].data.encode()
        headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    return call.status, headers, OPENED.sub(b"A SESSION", body)


@pytest.mark.parametrize("kind", [Client, ModernClient], ids=["handshake", "modern"])
@pytest.mark.parametrize("make", MAKES)
async def test_the_answers_are_those_of_a_server_that_never_had_it(make: str, kind: type[Client]) -> None:
    async with AsyncExitStack() as stack:
        clients: list[Any] = []
        for whole in (True, False):
            server, options = MAKES[make](whole)
            runtime = await stack.enter_async_context(Runtime(server, tenants=resolve, **options))
            clients.append(await stack.enter_async_context(connected(runtime.app, kind)))
        hidden, never = await answers(clients[0], POOR), await answers(clients[1], POOR)
        for one, other in zip(hidden, never, strict=True):
            assert one == other
        # Who may see it sees it, and before as well as after: nothing of one's surface stays for another.
        seen = await answers(clients[0], RICH, each=3)
        assert sum(one != other for one, other in zip(seen, never[::3], strict=True)) > 3
        assert await answers(clients[0], POOR, each=7) == hidden[::7]


@pytest.mark.parametrize("kind", [Client, ModernClient], ids=["handshake", "modern"])
@pytest.mark.parametrize("make", MAKES)
async def test_a_hidden_name_is_answered_as_one_that_nobody_has(make: str, kind: type[Client]) -> None:
    """On one server, so that not even its author's code can tell the two apart."""
    server, options = MAKES[make](True)
    async with Runtime(server, tenants=resolve, **options) as runtime, connected(runtime.app, kind) as client:
        client.headers = dict(POOR)
        if kind is Client:
            await client.open()
        for hidden, arguments in itertools.product(("refund", "ledger"), (None, {}, {"order": "x"}, {"session": "s"})):
            other = hidden[:-1] + "~"
            bodies: list[bytes] = []
            for name in (hidden, other):
                params = {"name": name} if arguments is None else {"name": name, "arguments": arguments}
                status, _, body = answer(await client.ask("tools/call", params, id=7))
                bodies.append(str(status).encode() + body.replace(name.encode(), b"NAME"))
            assert bodies[0] == bodies[1]


async def listed(client: Client, method: str, key: str, **headers: str) -> list[str]:
    found: list[str] = []
    params: dict[str, Any] = {}
    while True:
        page = (await client.ask(method, params, headers=headers)).result
        found += [item.get("name") or item["uri"] for item in page[key]]
        if page.get("nextCursor") is None:
            return found
        params = {"cursor": page["nextCursor"]}


@pytest.mark.parametrize("kind", [Client, ModernClient], ids=["handshake", "modern"])
async def test_each_request_is_judged_by_its_own_credential(kind: type[Client]) -> None:
    async with Runtime(mcpserver(), tenants=resolve) as runtime, connected(runtime.app, kind) as client:
        client.headers = dict(RICH)
        if kind is Client:
            await client.open()
        for headers, seen in ((RICH, True), (POOR, False), (RICH, True), (bearer(scopes={"billing"}), True)):
            client.headers = dict(headers)
            assert ("refund" in await listed(client, "tools/list", "tools")) is seen
            called = (await client.ask("tools/call", {"name": "refund", "arguments": {"order": 1}})).result
            assert bool(called.get("isError")) is not seen
            assert ("vault" in await listed(client, "tools/list", "tools")) is (headers is RICH)


async def test_pages_of_which_nothing_is_left_are_passed_over() -> None:
    names = {"tools_for": lambda tenant: ["add"]}
    async with (
        Runtime(lowlevel(page=1), tenants=resolve, **names) as runtime,
        connected(runtime.app, ModernClient) as client,
    ):
        client.headers = dict(POOR)
        page = (await client.ask("tools/list")).result
        assert [tool["name"] for tool in page["tools"]] == ["add"]
        assert "nextCursor" not in page


async def test_a_server_all_of_whose_session_tools_are_hidden_offers_no_sessions() -> None:
    async with (
        Runtime(mcpserver(), tenants=resolve, tools_for=lambda tenant: {"search", "vault"}) as runtime,
        connected(runtime.app, ModernClient) as client,
    ):
        client.headers = dict(POOR)
        assert await listed(client, "tools/list", "tools") == ["search"]
        assert "Unknown tool: open_session" in (await client.ask("tools/call", {"name": "open_session"})).body.decode()
        client.headers = dict(RICH)
        assert await listed(client, "tools/list", "tools") == ["search", "vault", "open_session", "close_session"]


async def test_a_handle_that_one_credential_opened_serves_another_what_that_one_sees() -> None:
    async with Runtime(mcpserver(), tenants=resolve) as runtime, connected(runtime.app, ModernClient) as client:
        client.headers = dict(RICH)
        handle = await client.handle()
        assert await client.tool("vault", {"key": "k", "session": handle}) == "k"
        client.headers = dict(POOR)
        refused = await client.ask("tools/call", {"name": "vault", "arguments": {"key": "k", "session": handle}})
        assert "Unknown tool: vault" in refused.body.decode()
        assert await client.tool("add", {"item": "tea", "session": handle}) == ["tea"]
