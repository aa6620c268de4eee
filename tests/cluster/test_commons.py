"""`ClusterCommons`: a round of questions that begins at one node ends at any other, and for nobody else."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from cluster.household import Member, household
from edge.call import HTTPCall
from edge.client import hosting_modern
from edge.server import Stage
from fastmcp import Context as FastContext
from fastmcp import FastMCP
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, ElicitationResult, Resolve
from mcp.server.request_state import RequestStateSecurity
from mcp.types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult
from pydantic import BaseModel
from starlette.requests import Request
from support.nats import fresh_name
from understudy.actors.packing import pack
from understudy.runtime import Session, TenantContext
from understudy.runtime.cluster.commons import ClusterCommons
from understudy.runtime.cluster.errors import ClusterError
from understudy.runtime.commands.nats_server import NatsServer
from understudy.stores.nats.connection import close, connect, jetstream
from understudy.stores.nats.settings import NatsSettings

KEYS = {
    "ada": TenantContext("acme", "ada"),
    "eve": TenantContext("acme", "eve"),
    "bob": TenantContext("bits", "ada"),
    "ada again": TenantContext("acme", "ada", plan="gold"),
}
AUTHORS_KEY = b"a key of the author's own choosing."


class Name(BaseModel):
    name: str


async def ask_for_name() -> Elicit[Name]:
    return Elicit("Who?", Name)


def asked_twice(ctx: Any) -> str | InputRequiredResult:
    """The second round knows what the first has heard."""
    heard = ctx.request_state.split(",") if ctx.request_state else []
    answer = (ctx.input_responses or {}).get("name")
    if isinstance(answer, ElicitResult) and answer.content:
        heard.append(str(answer.content["name"]))
    if len(heard) == 2:
        return " and ".join(heard)
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    form = ElicitRequest(params=ElicitRequestFormParams(message="Who?", requested_schema=schema))
    return InputRequiredResult(input_requests={"name": form}, request_state=",".join(heard) or None)


def inquirer(stage: Stage, **options: Any) -> MCPServer:
    server = MCPServer("inquirer", **options)

    @server.tool()
    async def greet(session: Session, answer: Annotated[ElicitationResult[Name], Resolve(ask_for_name)]) -> str:
        session.state["greeted"] = session.state.get("greeted", 0) + 1
        return f"{answer.data.name} {session.state['greeted']}"

    @server.tool()
    async def greet_stateless(answer: Annotated[ElicitationResult[Name], Resolve(ask_for_name)]) -> str:
        return answer.data.name

    @server.tool()
    async def rounds(ctx: Context) -> str | InputRequiredResult:
        return asked_twice(ctx)

    return server


def factory(stage: Stage) -> Callable[[TenantContext], MCPServer]:
    return lambda tenant: inquirer(stage)


def with_the_authors_key(stage: Stage) -> MCPServer:
    return inquirer(stage, request_state_security=RequestStateSecurity(keys=[AUTHORS_KEY, b"x" * 32]))


def fast(stage: Stage) -> FastMCP:
    server = FastMCP("fast inquirer")

    @server.tool
    async def rounds(ctx: FastContext) -> str | InputRequiredResult:
        return asked_twice(ctx)

    return server


def by_bearer(node: int) -> Callable[[Request], TenantContext]:
    return lambda request: KEYS[request.headers["authorization"].removeprefix("Bearer ")]


class Guest:
    """A modern client with a credential, at any node."""

    def __init__(self, key: str = "ada") -> None:
        self.key = key

    async def call(self, node: Member, tool: str, arguments: dict[str, Any], **more: Any) -> HTTPCall:
        client = node.modern()
        client.headers["authorization"] = f"Bearer {self.key}"
        session = {"mcp-param-session": arguments["session"]} if "session" in arguments else {}
        params = {"name": tool, "arguments": arguments, **more}
        return await client.begin("tools/call", params, headers=session).answered()

    async def arguments(self, node: Member, tool: str) -> dict[str, Any]:
        if tool != "greet":
            return {}
        return {"session": (await self.call(node, "open_session", {})).result["structuredContent"]["session"]}

    async def asked(self, node: Member, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """What to send with the next round: the state as the server gave it, and an answer."""
        result = (await self.call(node, tool, arguments)).result
        assert result["resultType"] == "input_required", result
        (key,) = result["inputRequests"]
        answer = {"action": "accept", "content": {"name": "Ada"}}
        return {"inputResponses": {key: answer}, "requestState": result["requestState"]}


SERVERS = pytest.mark.parametrize("server", [inquirer, factory, with_the_authors_key])


@SERVERS
@pytest.mark.parametrize("tool", ["greet", "greet_stateless"])
async def test_a_round_that_begins_at_one_node_ends_at_any_other(nats_url: str, server: Any, tool: str) -> None:
    async with household(nats_url, 3, server=server, tenants=by_bearer) as nodes:
        guest = Guest()
        arguments = await guest.arguments(nodes[0], tool)
        greeted = 0
        for asking in nodes:
            answers = await guest.asked(asking, tool, arguments)
            for answering in nodes:
                greeted += 1
                value = (await guest.call(answering, tool, arguments, **answers)).value
                assert value == (f"Ada {greeted}" if tool == "greet" else "Ada")


@pytest.mark.parametrize("server", [inquirer, factory, fast])
async def test_each_round_of_many_may_meet_another_node(nats_url: str, server: Any) -> None:
    async with household(nats_url, 3, server=server, tenants=by_bearer) as nodes:
        guest = Guest()
        await guest.call(nodes[0], "rounds", {})
        first = await guest.call(nodes[1], "rounds", {}, **answered_by("Ann Lee"))
        state = first.result["requestState"]
        # No name that chance may spell in what is sealed.
        assert "Ann Lee" not in state
        assert b"Ann Lee" not in b64decode(state.partition(".")[2] + "==", altchars=b"-_")
        third = await guest.call(nodes[2], "rounds", {}, **answered_by("Bea"), requestState=state)
        assert third.result["content"][0]["text"] == "Ann Lee and Bea"


def answered_by(name: str) -> dict[str, Any]:
    return {"inputResponses": {"name": {"action": "accept", "content": {"name": name}}}}


@pytest.mark.parametrize("server", [inquirer, factory])
@pytest.mark.parametrize("thief", ["bob", "eve"])
async def test_no_wrong_tenant_or_principal_opens_what_was_sealed_for_another(
    nats_url: str, server: Any, thief: str
) -> None:
    async with household(nats_url, server=server, tenants=by_bearer) as nodes:
        stolen = await Guest("ada").asked(nodes[0], "greet_stateless", {})
        for node in nodes:
            refused = await Guest(thief).call(node, "greet_stateless", {}, **stolen)
            assert refused.failure["code"] == -32602
            assert "requestState" in refused.failure["message"]
            # The same party with another plan is the same party.
            assert (await Guest("ada again").call(node, "greet_stateless", {}, **stolen)).value == "Ada"


async def test_nor_does_it_at_a_node_that_is_alone() -> None:
    async with hosting_modern(inquirer(Stage()), tenants=by_bearer(0)) as client:
        client.headers["authorization"] = "Bearer ada"
        params = {"name": "greet_stateless", "arguments": {}}
        asked = (await client.begin("tools/call", params).answered()).result
        (key,) = asked["inputRequests"]
        answer = {key: {"action": "accept", "content": {"name": "Ada"}}}
        params |= {"inputResponses": answer, "requestState": asked["requestState"]}
        for thief in ("bob", "eve"):
            client.headers["authorization"] = f"Bearer {thief}"
            assert (await client.begin("tools/call", params).answered()).failure["code"] == -32602
        client.headers["authorization"] = "Bearer ada again"
        assert (await client.begin("tools/call", params).answered()).value == "Ada"


async def test_what_was_tampered_with_is_refused_alike_at_every_node(nats_url: str) -> None:
    async with household(nats_url, server=inquirer, tenants=by_bearer) as nodes:
        answers = await Guest().asked(nodes[0], "greet_stateless", {})
        state = answers["requestState"]
        refusals: set[bytes] = set()
        for spoilt in (state[:-4] + "AAAA", "v1.", "", "v1." + "A" * 400, state + "A", "v2" + state[2:]):
            for node in nodes:
                refused = await Guest().call(node, "greet_stateless", {}, **{**answers, "requestState": spoilt})
                assert refused.failure["code"] == -32602
                refusals.add(str(refused.failure).encode())
        assert len(refusals) == 1


async def test_two_clusters_do_not_open_each_others(nats_url: str) -> None:
    async with (
        household(nats_url, 1, server=inquirer, tenants=by_bearer) as (one,),
        household(nats_url, 1, server=inquirer, tenants=by_bearer) as (other,),
    ):
        answers = await Guest().asked(one, "greet_stateless", {})
        assert (await Guest().call(other, "greet_stateless", {}, **answers)).failure["code"] == -32602


async def test_keys_that_are_given_can_be_changed_without_breaking_a_round(nats_url: str) -> None:
    old, new = b"o" * 32, b"n" * 32
    rings = {1: [old], 2: [old, new], 3: [new, old], 4: [new]}

    def settings(number: int) -> dict[str, Any]:
        return {"request_state_keys": rings[number]}

    for first in (1, 2, 3):

        def adjacent(number: int, first: int = first) -> dict[str, Any]:
            return settings(first + number - 1)

        async with household(nats_url, 2, server=inquirer, tenants=by_bearer, settings=adjacent) as nodes:
            for asking, answering in ((0, 1), (1, 0)):
                answers = await Guest().asked(nodes[asking], "greet_stateless", {})
                answered = await Guest().call(nodes[answering], "greet_stateless", {}, **answers)
                assert "result" in answered.reply, (first, asking, answering)


async def test_a_node_with_other_keys_does_not_join(nats_url: str) -> None:
    """It would open nothing that the others seal, and they nothing of its."""
    old, new = b"o" * 32, b"n" * 32
    for rings in ([[old], [new]], [[old, new], [new]], [[old], [new, old]]):

        def settings(number: int, rings: list[list[bytes]] = rings) -> dict[str, Any]:
            return {"request_state_keys": rings[number - 1]}

        with pytest.raises(ClusterError, match=r"node 'node-1' .* has other keys .*add the new key behind the others"):
            async with household(nats_url, 2, server=inquirer, settings=settings):
                pass


# Learning the keys


async def settings_bucket(url: str) -> tuple[Any, Any]:
    connection = await connect(NatsSettings.from_url(url), name="test")
    bucket = await (await jetstream(connection, timeout=2)).create_key_value(bucket=fresh_name("settings"))
    return connection, bucket


async def test_nodes_that_start_at_once_agree_on_one_key(nats_server: NatsServer) -> None:
    connection, bucket = await settings_bucket(nats_server.url)
    try:
        nodes = [ClusterCommons() for _ in range(16)]
        await asyncio.gather(*(node.learn_keys(bucket) for node in nodes))
        codecs = [node.seal.codec for node in nodes]
        sealed = codecs[0].seal(b"state")  # type: ignore[union-attr]
        assert {codec.unseal(sealed) for codec in codecs} == {b"state"}  # type: ignore[union-attr]
    finally:
        await close(connection)


@pytest.mark.parametrize("value", [b"", b"\xc1", pack([]), pack([b"short"]), pack("text"), pack([64]), pack({})])
async def test_keys_that_make_no_sense_are_refused_clearly(nats_server: NatsServer, value: bytes) -> None:
    connection, bucket = await settings_bucket(nats_server.url)
    try:
        await bucket.put("request-state", value)
        with pytest.raises(ClusterError, match="request-state"):
            await ClusterCommons().learn_keys(bucket)
    finally:
        await close(connection)


async def test_keys_that_were_given_are_not_shared_with_nats(nats_server: NatsServer) -> None:
    connection, bucket = await settings_bucket(nats_server.url)
    try:
        await ClusterCommons([b"k" * 32]).learn_keys(bucket)
        assert (await bucket.status()).values == 0
    finally:
        await close(connection)
