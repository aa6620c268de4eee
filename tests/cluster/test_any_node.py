"""any-node: a request at a node that does not own the session gets the same bytes as at the one that does.

The rows of PROTOCOL.md's tables, each sent once to the owner and once to another node, over real sockets; then what
takes more than one request. Everything between the nodes is real: the link, the directory, NATS.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
from cluster.household import Member, household
from edge.call import HTTPCall
from edge.client import ACCEPT, LATEST, MODERN, Client, envelope, initialize_params
from edge.server import Stage
from edge.sockets import dialled
from edge.test_streams import progress
from mcp.server.mcpserver import Context, MCPServer
from starlette.requests import Request
from support.patience import PATIENCE
from understudy.runtime import TenantContext, Unauthenticated
from understudy.runtime.cluster import cluster as cluster_module
from understudy.runtime.cluster.keep_alive import KeepAlive
from understudy.runtime.edge import modern as modern_module
from understudy.stores import Address

KEYS = {"ada": TenantContext("acme", "ada"), "eve": TenantContext("acme", "eve"), "bob": TenantContext("bits", "ada")}
MAX_BODY = 8192


class Asked:
    """How often the resolver of each node was asked."""

    def __init__(self) -> None:
        self.by_node: Counter[int] = Counter()

    def resolver(self, node: int) -> Callable[[Request], TenantContext]:
        def resolve(request: Request) -> TenantContext:
            self.by_node[node] += 1
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or key not in KEYS:
                raise Unauthenticated
            return KEYS[key]

        return resolve


# The table


class Row(NamedTuple):
    """One request. `SESSION` stands for the session's id; headers that are None are left out."""

    says: str
    status: int
    body: bytes = b""
    headers: dict[str, str | None] = {}  # noqa: RUF012 - nobody changes it
    method: str = "POST"
    modern: bool = False


def ask(method: str, params: Any = None, **fields: Any) -> bytes:
    message = {"jsonrpc": "2.0", "id": 7, "method": method, **({"params": params} if params is not None else {})}
    return json.dumps({**message, **fields}).encode()


def call(tool: str, arguments: Any = None, **meta: Any) -> bytes:
    params = {"name": tool, "arguments": arguments or {}}
    return ask("tools/call", params | ({"_meta": meta} if meta else {}))


def modern(method: str, params: Any = None, **headers: str | None) -> dict[str, Any]:
    """Fields of a modern row."""
    params = {**(params or {}), "_meta": envelope()}
    named = {"mcp-name": params["name"]} if "name" in params else {}
    handle = (params.get("arguments") or {}).get("session")
    named |= {"mcp-param-session": handle} if handle else {}
    lines = {"mcp-protocol-version": MODERN, "mcp-method": method, "mcp-session-id": None, **named}
    return {"body": ask(method, params), "headers": lines | headers, "modern": True}


def by_handle(
    tool: str, handle: str = "SESSION", *, headers: dict[str, str | None] | None = None, **arguments: Any
) -> Any:
    return modern("tools/call", {"name": tool, "arguments": {"session": handle, **arguments}}, **(headers or {}))


NOTICE = b'{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}'
GONE: dict[str, str | None] = {"mcp-session-id": "A" * 32}
NO_SESSION: dict[str, str | None] = {"mcp-session-id": None}
EVE: dict[str, str | None] = {"authorization": "Bearer eve"}

TABLE = [
    Row("a quick call is JSON", 200, call("increment")),
    Row("a reading call", 200, call("count")),
    Row("a listing", 200, ask("tools/list")),
    Row("a ping", 200, ask("ping")),
    Row("a resource", 200, ask("resources/read", {"uri": "stage://data"})),
    Row("a tool that is not there", 200, call("nothing")),
    Row("arguments that will not do", 200, call("note", {"key": 7})),
    Row("a tool that fails", 200, call("fail_oddly", {"what": "nul"})),
    Row("a method that is not there", 200, ask("no/such/thing")),
    Row("what JSON can hardly carry", 200, call("say", {"what": "surrogate"})),
    Row("a result that JSON cannot carry", 200, call("say", {"what": "deep"})),
    Row("an id that is a text", 200, ask("ping", id="seven")),
    Row("an earlier revision", 200, call("echo", {"value": 1}), {"mcp-protocol-version": "2025-03-26"}),
    Row("no revision at all", 200, call("echo", {"value": 1}), {"mcp-protocol-version": None}),
    Row("a query", 200, call("echo", {"value": 1})),
    Row("a slow call is a stream, primed", 200, call("sleep", {"seconds": 0.3})),
    Row(
        "a slow call of an earlier revision",
        200,
        call("sleep", {"seconds": 0.3}),
        {"mcp-protocol-version": "2025-06-18"},
    ),
    Row("progress makes a stream at once", 200, call("report", {"before": 3, "after": 2}, progressToken="t")),
    Row("a large answer", 200, call("echo", {"value": "x" * 4096})),
    Row("a notification", 202, NOTICE),
    Row("a notification of nobody's", 202, b'{"jsonrpc":"2.0","method":"notifications/unheard-of","params":{}}'),
    Row("a cancellation of nothing", 202, ask("notifications/cancelled", {"requestId": 99}).replace(b'"id": 7, ', b"")),
    Row("a response that nobody waits for", 202, b'{"jsonrpc":"2.0","id":"nobody","result":{}}'),
    Row("a malformed notification", 400, b'{"jsonrpc":"2.0","method":7}'),
    Row("a malformed response", 400, b'{"jsonrpc":"2.0","id":1}'),
    Row("not JSON", 400, b"{"),
    Row("not UTF-8", 400, b'{"jsonrpc":"2.0","id":1,"method":"\xff"}'),
    Row("a batch", 400, b"[" + ask("ping") + b"]"),
    Row("no JSON-RPC", 400, b'{"id":1,"method":"ping"}'),
    Row("an empty body", 400, b""),
    Row("an initialize in a session", 400, ask("initialize", initialize_params())),
    Row("an initialize of a session that is gone", 404, ask("initialize", initialize_params()), GONE),
    Row("a request without a session", 400, ask("ping"), NO_SESSION),
    Row("a notification without a session", 400, NOTICE, NO_SESSION),
    Row("a GET without a session", 400, method="GET", headers=NO_SESSION),
    Row("a DELETE without a session", 400, method="DELETE", headers=NO_SESSION),
    Row("a request in a session that is gone", 404, ask("ping"), GONE),
    Row("a notification in a session that is gone", 404, NOTICE, GONE),
    Row("a response in a session that is gone", 404, b'{"jsonrpc":"2.0","id":1,"result":{}}', GONE),
    Row("a GET in a session that is gone", 404, method="GET", headers=GONE),
    Row("a DELETE of a session that is gone", 404, method="DELETE", headers=GONE),
    Row("an id that is none", 404, ask("ping"), {"mcp-session-id": "no such id"}),
    Row("another principal's request", 404, call("increment"), EVE),
    Row("another tenant's request", 404, call("increment"), {"authorization": "Bearer bob"}),
    Row("another principal's notification", 404, NOTICE, EVE),
    Row("another principal's response", 404, b'{"jsonrpc":"2.0","id":1,"result":{}}', EVE),
    Row("another principal's GET", 404, method="GET", headers=EVE),
    Row("another principal's resumption", 404, method="GET", headers={**EVE, "last-event-id": "x-1"}),
    Row("another principal's DELETE", 404, method="DELETE", headers=EVE),
    Row("another principal's initialize", 404, ask("initialize", initialize_params()), EVE),
    Row("a DELETE", 200, method="DELETE"),
    Row("an event that is not known", 400, method="GET", headers={"last-event-id": "00000000.1-1"}),
    Row("an event id that makes no sense", 400, method="GET", headers={"last-event-id": "?"}),
    Row("a POST that takes no stream", 406, ask("ping"), {"accept": "application/json"}),
    Row("a POST that takes no JSON", 406, ask("ping"), {"accept": "text/event-stream"}),
    Row("a GET that takes no stream", 406, method="GET", headers={"accept": "application/json"}),
    Row("a body of another type", 415, ask("ping"), {"content-type": "text/plain"}),
    Row("a body that is packed", 415, ask("ping"), {"content-encoding": "gzip"}),
    Row("a body that is too large", 413, ask("ping") + b" " * MAX_BODY),
    Row("another method", 405, method="PUT"),
    Row("a HEAD", 405, method="HEAD"),
    Row("a revision that nobody speaks", 400, ask("ping"), {"mcp-protocol-version": "1999-01-01"}),
    Row("a host that is not ours", 421, ask("ping"), {"host": "evil.example"}),
    Row("an origin that is not ours", 403, ask("ping"), {"origin": "https://evil.example"}),
    Row("no credential", 401, ask("ping"), {"authorization": None}),
    Row("a bad credential", 401, ask("ping"), {"authorization": "Bearer mallory"}),
    Row("a modern call by handle", 200, **by_handle("increment")),
    Row("a modern call by handle that reads", 200, **by_handle("count")),
    Row("a modern call that is slow", 200, **by_handle("hold")),
    Row("a modern call by a handle that is gone", 200, **by_handle("increment", "A" * 32)),
    Row("a modern call by another principal's handle", 200, **by_handle("increment", headers=EVE)),
    Row("a modern end of a session", 200, **by_handle("close_session")),
    Row("a modern end of another principal's session", 200, **by_handle("close_session", headers=EVE)),
    Row("a modern end of a session that is gone", 200, **by_handle("close_session", "A" * 32)),
    Row("a header that contradicts the handle", 400, **by_handle("count", headers={"mcp-param-session": "B" * 32})),
    Row("a handle that only the body has", 400, **by_handle("count", headers={"mcp-param-session": None})),
    Row("a handle without need", 200, **modern("tools/list", **{"mcp-param-session": "SESSION"})),
    Row("a modern call without a handle", 200, **modern("tools/call", {"name": "echo", "arguments": {"value": 1}})),
    Row("a modern tool that is not there", 200, **by_handle("nothing")),
    Row("modern arguments that will not do", 200, **by_handle("note", key=7)),
    Row("a modern method that is not there", 404, **modern("no/such/thing", **{"mcp-param-session": "SESSION"})),
    Row("a modern GET", 405, method="GET", **{**by_handle("count"), "body": b""}),
    Row("a modern notification", 202, **{**by_handle("count"), "body": NOTICE}),
]


@pytest.fixture
async def at_the_wire(nats_url: str) -> AsyncIterator[list[Member]]:
    options = {"tenants": Asked().resolver, "max_body": MAX_BODY}
    async with household(nats_url, http_server="hypercorn", **options) as nodes:
        yield nodes


async def test_any_node_answers_each_row_with_the_owners_bytes(at_the_wire: list[Member]) -> None:
    owner, other = at_the_wire
    for node in at_the_wire:
        # Tools that wait for their test need not.
        node.stage.go_on.set()
    forwarded = 0
    differences: list[str] = []
    for row in TABLE:
        answers: list[bytes] = []
        for node in (owner, other):
            session = await prepared(owner, modern=row.modern)
            answers.append(masked(await raw(node, row, session), session))
        status = int(answers[0].split(b" ", 2)[1])
        if answers[0] != answers[1] or status != row.status:
            differences.append(f"{row.says} ({row.status}):\n  {answers[0]!r}\n  {answers[1]!r}")
    forwarded = other.runtime.stats()["cluster_forwards"]
    assert not differences, "\n".join(differences)
    assert forwarded > len(TABLE) / 2, "most rows are not answered where they arrive"
    assert sum(other.stage.noted.values()) + other.stage.runs == 0


async def prepared(owner: Member, *, modern: bool) -> str:
    """A session of the owner's, in which something has happened."""
    client = owner.modern() if modern else owner.client()
    client.headers["authorization"] = "Bearer ada"
    if modern:
        session = await client.handle()  # type: ignore[attr-defined]
        await client.tool("increment", {"session": session})
        return session
    await client.open()
    await client.tool("increment")
    return client.session or ""


async def raw(node: Member, row: Row, session: str) -> bytes:
    """The whole response, its head first; chunks joined."""
    headers: dict[str, str | None] = {
        "host": "localhost",
        "accept": ACCEPT,
        "authorization": "Bearer ada",
        "mcp-session-id": session,
        "mcp-protocol-version": LATEST,
        **({"content-type": "application/json"} if row.method == "POST" else {}),
        **row.headers,
        "connection": "close",
    }
    body = row.body.replace(b"SESSION", session.encode())
    lines = [f"{name}: {value.replace('SESSION', session)}" for name, value in headers.items() if value is not None]
    head = [f"{row.method} /mcp HTTP/1.1", *lines, *([f"content-length: {len(body)}"] if row.method == "POST" else [])]
    async with dialled(node.port) as line:
        await line.say("\r\n".join([*head, "", ""]).encode() + body)
        answer = await line.ended()
    said, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in said.lower():
        rest = unchunked(rest)
    return said + b"\r\n\r\n" + rest


def unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    while body:
        size, _, body = body.partition(b"\r\n")
        if not int(size, 16):
            return b"".join(parts)
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    raise AssertionError("the body has no end")


def masked(answer: bytes, session: str) -> bytes:
    answer = re.sub(rb"\r\ndate: [^\r]+", b"", answer, flags=re.IGNORECASE)
    answer = answer.replace(session.encode(), b"SESSION")
    return re.sub(rb"id: [0-9a-f]{12}\.[0-9a-f]+-", b"id: STREAM-", answer)


async def test_any_node_an_expired_resumption_is_refused_alike(at_the_wire: list[Member]) -> None:
    owner, other = at_the_wire
    for node in at_the_wire:
        node.stage.go_on.set()
    answers: list[bytes] = []
    for node in (owner, other):
        session = await prepared(owner, modern=False)
        slow = await raw(node, Row("", 200, call("sleep", {"seconds": 0.2})), session)
        stream = re.findall(rb"id: (\S+)-\d+", slow)[0].decode()
        resumed = [
            masked(await raw(node, Row("", 200, b"", {"last-event-id": f"{stream}-{number}"}, "GET"), session), session)
            for number in (0, 1, 2)
        ]
        assert [answer.split(b" ", 2)[1] for answer in resumed] == [b"200", b"200", b"400"]
        assert resumed[0].count(b"slept") == 2  # in the text and in the structured content
        assert b"slept" not in resumed[1]
        answers += [re.sub(rb"[0-9a-f]{12}\.[0-9a-f]+-2", b"STREAM-2", answer) for answer in resumed]
    assert answers[:3] == answers[3:]


async def test_any_node_streams_a_modern_answer_with_the_owners_bytes(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modern_module, "JSON_PATIENCE", 0.05)
    async with household(nats_url) as (owner, other):
        answers: list[tuple[Any, bytes]] = []
        for node in (owner, other):
            handle = await owner.modern().handle()
            owner.stage.go_on.clear()
            slow = node.modern().begin_tool("hold", {"session": handle}, id=1)
            await slow.started()
            owner.stage.go_on.set()
            await slow.answered()
            answers.append((slow.headers, slow.body))
        assert answers[0] == answers[1]
        assert answers[0][1].startswith(b"event: message\ndata: {")
        assert other.stage.runs == 0


# What takes more than one request


@pytest.fixture
async def three(nats_url: str) -> AsyncIterator[list[Member]]:
    async with household(nats_url, 3) as nodes:
        yield nodes


def watchful(stage: Stage) -> MCPServer:
    server = MCPServer("watchful")

    @server.tool(structured_output=False)
    async def look(ctx: Context) -> str:
        """Everything that there is to see of the HTTP request."""
        request: Any = ctx.request_context.request
        lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]]
        seen = {**request.scope, "headers": lines, "url": request.url, "base": request.base_url}
        return json.dumps({name: str(value) for name, value in seen.items() if name not in ("extensions", "state")})

    return server


async def test_a_tool_sees_the_same_request_at_any_node(nats_url: str) -> None:
    async with household(nats_url, server=watchful) as (owner, other):
        client = owner.client()
        await client.open()
        seen: list[dict[str, str]] = []
        for node in (owner, other):
            mine = node.same(client)
            headers = {"x-odd": "caf\xe9 \x80", "x-twice": ["1", "2"], "cookie": "a=1; b=2", "x-empty": ""}
            scope = mine._scope("POST", headers, "/assistant/mcp/")
            # As where it is mounted in another application, over HTTP/2 and TLS.
            scope |= {"query_string": b"a=1&a=2&b=%C3%A9", "root_path": "/assistant"}
            scope |= {"scheme": "https", "http_version": "2", "client": ("192.0.2.7", 4711)}
            looking = HTTPCall(scope, client.message("tools/call", {"name": "look", "arguments": {}}, 1))
            node.connections.start(looking)
            seen.append(json.loads((await looking.answered()).result["content"][0]["text"]))
        assert seen[0]["base"] == "https://localhost:8000/assistant/"
        assert seen[0] == seen[1]


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():
            await asyncio.sleep(0.005)


async def test_any_node_takes_the_cancellation_of_a_call(three: list[Member]) -> None:
    owner, second, third = three
    client = owner.client()
    await client.open()
    running = second.same(client).begin_tool("hold", id="mine")
    await owner.stage.began.wait()
    told = await third.same(client).notify("notifications/cancelled", {"requestId": "mine"})
    assert told.status == 202
    answer = await running.answered()
    assert answer.failure["message"] == "Request cancelled"
    assert (owner.stage.cancelled, owner.stage.runs, second.stage.runs, third.stage.runs) == (1, 1, 0, 0)
    assert await third.same(client).tool("count") == 0


async def test_any_node_takes_the_cancellation_of_a_call_that_waits_for_its_turn(three: list[Member]) -> None:
    owner, second, third = three
    client = owner.client()
    await client.open()
    running = second.same(client).begin_tool("hold")
    await owner.stage.began.wait()
    waiting = second.same(client).begin_tool("increment", id="mine")
    await until(lambda: owner.registry.stats()["waiting"] == 1)
    assert (await third.same(client).notify("notifications/cancelled", {"requestId": "mine"})).status == 202
    owner.stage.go_on.set()
    assert (await running.answered()).value == 1
    assert (await waiting.answered()).failure["message"] == "Request cancelled"
    assert await third.same(client).tool("count") == 0


async def test_any_node_takes_the_answer_to_a_question(three: list[Member]) -> None:
    owner, second, third = three
    client = owner.client()
    await client.open()
    asking = second.same(client).begin_tool("ask_name")
    question = await asking.message("elicitation/create")
    answer = {"action": "accept", "content": {"name": "Ann"}}
    assert (await third.same(client).respond(question["id"], answer)).status == 202
    assert (await asking.answered()).value == "Ann"


async def test_a_dropped_connection_cancels_nothing_in_the_handshake_era_and_any_node_resumes(
    three: list[Member],
) -> None:
    owner, second, third = three
    client = owner.client()
    await client.open()
    leaving = second.same(client).begin_tool("report", {"before": 2, "after": 3}, token="t")
    await leaving.event(2)
    last = leaving.events[-1].id
    leaving.disconnect()
    await leaving.done()
    await asyncio.sleep(0.2)
    assert owner.stage.running == 1
    owner.stage.go_on.set()
    await until(lambda: owner.stage.finished)
    resumed = await third.same(client).send("GET", headers={"last-event-id": last})
    assert (progress(leaving), progress(resumed)) == ([1, 2], [3, 4, 5])
    assert resumed.value == "reported"
    assert owner.stage.cancelled == 0
    assert owner.stage.runs == 1


async def test_one_who_leaves_before_the_stream_has_begun_cancels_nothing_either(three: list[Member]) -> None:
    owner, second, third = three
    client = owner.client()
    await client.open()
    leaving = second.same(client).begin_tool("hold")
    await owner.stage.began.wait()
    leaving.disconnect()
    await leaving.done()
    await asyncio.sleep(0.2)
    owner.stage.go_on.set()
    await until(lambda: owner.stage.finished)
    assert owner.stage.cancelled == 0
    again = third.same(client).begin_tool("hold")
    assert (await again.answered()).value == 2


@pytest.mark.parametrize("streams", [False, True], ids=["before the stream has begun", "in mid-stream"])
async def test_a_dropped_connection_is_a_cancellation_in_the_modern_era(three: list[Member], streams: bool) -> None:
    owner, second, _ = three
    handle = await owner.modern().handle()
    leaving = second.modern().begin_tool("hold", {"session": handle})
    await owner.stage.began.wait()
    if streams:
        await leaving.started()
    leaving.disconnect()
    await leaving.done()
    await until(lambda: owner.stage.cancelled)
    assert await second.modern().tool("count", {"session": handle}) == 0


async def test_a_silent_stream_is_kept_alive_by_the_edge_that_holds_it(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "KeepAlive", partial(KeepAlive, every=0.05))
    async with household(nats_url) as (owner, other):
        client = owner.client()
        await client.open()
        frames = owner.runtime.stats()["link_batches_out"]
        listening = await other.same(client).start("GET").started()
        calling = other.same(client).begin_tool("hold")
        await until(lambda: listening.comments >= 3 and calling.status and calling.comments >= 3)
        sent = owner.runtime.stats()["link_batches_out"] - frames
        before = (listening.comments, calling.comments)
        await until(lambda: listening.comments >= before[0] + 5)
        assert owner.runtime.stats()["link_batches_out"] - frames == sent, "between nodes silence is free"
        owner.stage.go_on.set()
        assert (await calling.answered()).value == 1
        # And nothing follows the end.
        ended = calling.body
        await asyncio.sleep(0.2)
        assert calling.body == ended
        assert (await client.send("DELETE")).status == 200
        await listening.answered()


async def test_any_node_ends_a_session_and_the_streams_that_others_hold(three: list[Member]) -> None:
    owner, second, third = three
    client = owner.client()
    await client.open()
    listening = await second.same(client).start("GET").started()
    running = third.same(client).begin_tool("hold")
    await running.started()
    resuming = await second.same(client).start("GET", headers={"last-event-id": running.events[0].id}).started()
    await running.answered()
    ended = await third.same(client).send("DELETE")
    assert (ended.status, ended.body) == (200, b"")
    await listening.answered()
    assert (await resuming.answered()).failure["message"] == "Request cancelled"
    assert owner.stage.cancelled == 1
    for node in three:
        assert (await node.same(client).ask("ping")).status == 404
        assert (await node.same(client).send("GET")).status == 404
        assert not node.owns(client.session)
        assert not node.streams.holds(Address("session", client.session or ""))


async def test_the_standalone_stream_is_one_wherever_it_is_held(three: list[Member]) -> None:
    owner, second, third = three
    client = owner.client()
    await client.open()
    first = await second.same(client).start("GET").started()
    await third.same(client).tool("announce")
    # The tool says it to its session, and to all who listen.
    for number in (1, 2):
        assert (await first.event(number)).message["method"] == "notifications/tools/list_changed"
    newest = await third.same(client).start("GET").started()
    await first.answered()
    await second.same(client).tool("announce")
    assert (await newest.event(1)).message["method"] == "notifications/tools/list_changed"
    assert len(first.events) == 3
    newest.disconnect()
    await newest.done()
    # The owner hears of it a moment later; what it sends until then is lost, as on any connection that breaks.
    await until(lambda: not owner.streams.standalone(Address("session", client.session or "")).attached)
    # What nobody has read waits for whoever comes next, at any node.
    await second.same(client).tool("announce")
    later = await owner.same(client).start("GET").started()
    assert (await later.event(1)).message["method"] == "notifications/tools/list_changed"


async def test_any_node_says_that_a_session_is_too_busy(nats_url: str) -> None:
    async with household(nats_url, mailbox_size=1) as (owner, other):
        client = owner.client()
        await client.open()
        running = client.begin_tool("hold")
        await owner.stage.began.wait()
        waiting = other.same(client).begin_tool("increment")
        await until(lambda: owner.registry.stats()["waiting"] == 1)
        refused: list[HTTPCall] = [
            await node.same(client).begin_tool("increment", id="one too many").answered() for node in (owner, other)
        ]
        assert [call.status for call in refused] == [429, 429]
        assert refused[0].headers == refused[1].headers
        assert refused[0].body == refused[1].body
        assert int(refused[1].header("retry-after") or 0) >= 1
        owner.stage.go_on.set()
        assert (await running.answered()).value == 1
        assert (await waiting.answered()).value == 1, "refused calls do not run"


async def test_any_node_refuses_an_id_that_is_in_flight(three: list[Member]) -> None:
    owner, second, third = three
    client = owner.client()
    await client.open()
    running = second.same(client).begin_tool("hold", id=5)
    await owner.stage.began.wait()
    twins = [await node.same(client).begin_tool("increment", id=5).answered() for node in (owner, third)]
    assert [call.status for call in twins] == [400, 400]
    assert twins[0].body == twins[1].body
    assert twins[1].json["id"] is None
    owner.stage.go_on.set()
    assert (await running.answered()).value == 1


# Tenants


async def test_a_credential_is_asked_for_once_and_where_the_request_arrived(nats_url: str) -> None:
    asked = Asked()
    async with household(nats_url, 3, tenants=asked.resolver) as nodes:
        client = nodes[0].client()
        client.headers["authorization"] = "Bearer ada"
        await client.open()
        asked.by_node.clear()
        for node in nodes[1:]:
            assert await node.same(client).tool("increment")
        listening = await nodes[2].same(client).start("GET").started()
        assert asked.by_node == {2: 1, 3: 2}
        assert (await nodes[1].same(client).send("DELETE")).status == 200
        await listening.answered()
        assert asked.by_node == {2: 2, 3: 2}


async def test_no_wrong_tenant_at_any_node(nats_url: str) -> None:
    async with household(nats_url, 3, tenants=Asked().resolver) as nodes:
        client = nodes[0].client()
        client.headers["authorization"] = "Bearer ada"
        await client.open()
        handle = await with_key(nodes[0].modern(), "ada").handle()  # type: ignore[attr-defined]
        unknown: set[bytes] = set()
        for node in nodes:
            for key in ("eve", "bob"):
                stranger = with_key(node.same(client), key)
                refused = await stranger.begin_tool("increment", id=1).answered()
                assert refused.status == 404
                unknown.add(refused.body)
                stranger.session = "A" * 32
                unknown.add((await stranger.begin_tool("increment", id=1).answered()).body)
                by_handle = with_key(node.modern(), key).begin_tool("increment", {"session": handle}, id=1)
                assert (await by_handle.answered()).result["isError"] is True
            assert await with_key(node.same(client), "ada").tool("count") == 0
            assert await with_key(node.modern(), "ada").tool("count", {"session": handle}) == 0
        assert len(unknown) == 1, "one wording for all of them"


def with_key(client: Client, key: str) -> Client:
    client.headers["authorization"] = f"Bearer {key}"
    return client
