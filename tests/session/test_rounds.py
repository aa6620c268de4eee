"""Rounds of questions in the modern era, which may begin at one server of a session and end at another."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.resolve import Elicit, ElicitationResult, Resolve
from mcp.server.request_state import RequestStateSecurity
from pydantic import BaseModel
from session.servers import ACME, GLOBEX
from session.visitor import RPCError, Visitor, hosted
from understudy.runtime import Session, TenantContext


class Name(BaseModel):
    name: str


async def ask_for_name() -> Elicit[Name]:
    return Elicit("Who?", Name)


def inquirer(policy: RequestStateSecurity | None = None) -> MCPServer:
    server = MCPServer("inquirer", request_state_security=policy)

    @server.tool()
    async def greet(session: Session, answer: Annotated[ElicitationResult[Name], Resolve(ask_for_name)]) -> str:
        session.state["greeted"] = session.state.get("greeted", 0) + 1
        return f"{answer.data.name} {session.state['greeted']}"

    @server.tool()
    async def greet_stateless(answer: Annotated[ElicitationResult[Name], Resolve(ask_for_name)]) -> str:
        return answer.data.name

    return server


@pytest.mark.parametrize("tool", ["greet", "greet_stateless"])
@pytest.mark.parametrize("evicted", [False, True], ids=["", "and its surface gone"])
async def test_a_round_begun_at_one_server_of_a_session_ends_at_another(tool, evicted, monkeypatch):
    monkeypatch.setattr("understudy.actors.session.servers.MAX_SURFACES", 1)

    def resolve(request: Any) -> TenantContext:
        return {"ada": ACME, "bob": GLOBEX}[request.headers["authorization"]]

    async with hosted(lambda tenant: inquirer(), tenants=resolve) as host:
        visitor = await host.visit("modern", credential="ada")
        arguments = {"session": visitor.session} if tool == "greet" else {}
        asked = await visitor.begin("tools/call", {"name": tool, "arguments": arguments}).result()
        (key,) = asked["inputRequests"]
        await host.sleep(visitor)
        if evicted:
            await Visitor(host, "modern", credential="bob").tools()
        answered = {
            "name": tool,
            "arguments": arguments,
            "inputResponses": {key: {"action": "accept", "content": {"name": "Ada"}}},
            "requestState": asked["requestState"],
        }
        expected = "Ada 1" if tool == "greet" else "Ada"
        assert await visitor.begin("tools/call", answered).value() == expected
        # Sealed for one tenant, it opens for no other.
        thief = await host.visit("modern", credential="bob")
        if tool == "greet":
            answered["arguments"] = {"session": thief.session}
        with pytest.raises(RPCError):
            await thief.begin("tools/call", answered).value()


KEYS = [b"the first key that its author made", b"the second key that its author made"]


@pytest.mark.parametrize("made_by", ["one object", "a factory"])
@pytest.mark.parametrize(
    "policy",
    [
        lambda: RequestStateSecurity(keys=KEYS),
        lambda: RequestStateSecurity(keys=KEYS[:1], ttl=60),
        lambda: RequestStateSecurity(keys=KEYS[:1], audience="shop"),
        lambda: RequestStateSecurity(keys=KEYS[:1], bind_principal=None),
        lambda: RequestStateSecurity(keys=KEYS[:1], bind_principal=lambda _: "anybody"),
    ],
    ids=["two keys", "time to live", "audience", "bound to nobody", "bound to anybody"],
)
async def test_what_an_authors_own_policy_seals_opens_for_its_party_alone(policy, made_by):
    def resolve(request: Any) -> TenantContext:
        return {"ada": ACME, "bob": GLOBEX, "eve": TenantContext(ACME.tenant, "eve")}[request.headers["authorization"]]

    server = inquirer(policy()) if made_by == "one object" else lambda tenant: inquirer(policy())
    async with hosted(server, tenants=resolve) as host:
        ada = Visitor(host, "modern", credential="ada")
        call = {"name": "greet_stateless", "arguments": {}}
        asked = await ada.begin("tools/call", call).result()
        (key,) = asked["inputRequests"]
        call["requestState"] = asked["requestState"]
        call["inputResponses"] = {key: {"action": "accept", "content": {"name": "Ada"}}}
        for thief in ("bob", "eve"):
            with pytest.raises(RPCError, match="requestState"):
                await Visitor(host, "modern", credential=thief).begin("tools/call", call).result()
        assert await ada.begin("tools/call", call).value() == "Ada"
