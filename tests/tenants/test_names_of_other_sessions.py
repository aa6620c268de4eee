"""no-wrong-tenant: who has a session of his own, and names what belongs to another's, reaches none of it by his own.

Beside `test_matrix`, where the session itself is another's: here it is the asker's, and an event id, a request id, a
progress token, the id of a question or a handle among what he sends is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from cluster.household import Member, household
from edge.call import HTTPCall
from edge.client import Client, ModernClient
from starlette.requests import Request
from understudy.runtime import TenantContext

WHO = {
    "ada": TenantContext("acme", "ada"),
    "another principal": TenantContext("acme", "bob"),
    "another tenant": TenantContext("globex", "ada"),
}
STRANGERS = pytest.mark.parametrize(("stranger", "node"), [("another principal", 1), ("another tenant", 0)])


def who(request: Request) -> TenantContext:
    return WHO[request.headers["authorization"]]


@dataclass
class Scene:
    nodes: list[Member]
    ada: Client
    standing: HTTPCall
    finished: HTTPCall
    held: HTTPCall
    asking: HTTPCall
    question: dict[str, Any]

    async def stranger(self, name: str, node: int) -> Client:
        """With a session of his own, opened at the first node, asking at `node`."""
        client = self.nodes[0].client()
        client.headers["authorization"] = name
        await client.open()
        return self.nodes[node].same(client)


@pytest.fixture
async def scene(nats_url: str) -> AsyncIterator[Scene]:
    async with household(nats_url, 2, tenants=lambda number: who, settings=lambda _: {"lease": 30.0}) as nodes:
        first = nodes[0]
        ada = first.client()
        ada.headers["authorization"] = "ada"
        await ada.open()
        standing = await ada.start("GET").started()
        await standing.until(lambda: standing.events)
        finished = ada.begin_tool("report", {"before": 2, "after": 0}, token="ada's token")
        await finished.message("notifications/progress")
        first.stage.go_on.set()
        await finished.done()
        first.stage.go_on.clear()
        asking = ada.begin_tool("ask_name")
        question = await asking.message("elicitation/create")
        held = ada.begin("tools/call", {"name": "watch", "arguments": {}}, id="held")
        await held.until(lambda: first.stage.running == 1)
        try:
            yield Scene(nodes, ada, standing, finished, held, asking, question)
        finally:
            for node in nodes:
                node.stage.go_on.set()
            await ada.send("DELETE")


@STRANGERS
async def test_event_ids_of_anothers_streams_resume_nothing(scene: Scene, stranger: str, node: int) -> None:
    mallory = await scene.stranger(stranger, node)
    own = await mallory.same_session().start("GET").started()
    theirs = [str(event.id) for call in (scene.standing, scene.finished) for event in call.events if event.id]
    stems = {id.rpartition("-")[0] for id in theirs}
    # As one of a stream that never was.
    forged = ["never-1", *theirs, *(f"{stem}-{number}" for stem in stems for number in (0, 1, -1, 2**63))]
    for last in forged:
        call = mallory.start("GET", headers={"last-event-id": last})
        await call.answered()
        assert call.status == 400, last
        assert "is unknown in this session, or no longer kept" in call.json["error"]["message"]
    own.disconnect()
    # The one whose they are has them still.
    again = scene.nodes[node].same(scene.ada)
    last = str(scene.finished.events[0].id)
    resumed = await again.send("GET", headers={"last-event-id": last})
    assert resumed.messages[-1]["result"]["content"][0]["text"] == "reported"


@STRANGERS
async def test_request_ids_and_questions_of_another_are_nobodys(scene: Scene, stranger: str, node: int) -> None:
    mallory = await scene.stranger(stranger, node)
    for request_id in ("held", scene.question["id"], 1, "1"):
        call = await mallory.notify("notifications/cancelled", {"requestId": request_id})
        assert call.status == 202
    for token in ("ada's token", scene.question["id"], 1):
        assert (await mallory.notify("notifications/progress", {"progressToken": token, "progress": 1.0})).status == 202
    await mallory.respond(scene.question["id"], {"action": "accept", "content": {"name": "mallory"}})
    # A request of his own under an id that is in flight with her is no duplicate.
    assert (await mallory.ask("tools/list", id="held")).status == 200
    modern = ModernClient(scene.nodes[node].connections)
    modern.headers["authorization"] = stranger
    await modern.notify("notifications/cancelled", {"requestId": "held"})
    await asyncio.sleep(0.05)
    assert scene.nodes[0].stage.running == 1
    assert scene.nodes[0].stage.cancelled == 0
    await scene.ada.respond(scene.question["id"], {"action": "accept", "content": {"name": "Ada"}})
    assert (await scene.asking.answered()).value == "Ada"
    scene.nodes[0].stage.go_on.set()
    assert (await scene.held.answered()).value == "watched"


@STRANGERS
async def test_who_names_two_sessions_reaches_his_own_or_none(scene: Scene, stranger: str, node: int) -> None:
    mallory = await scene.stranger(stranger, node)
    hers = ModernClient(scene.nodes[0].connections)
    hers.headers["authorization"] = "ada"
    handle = await hers.handle()
    assert await hers.tool("increment", {"session": handle}) == 1
    modern = ModernClient(scene.nodes[node].connections)
    modern.headers["authorization"] = stranger
    own = await modern.handle()
    # In the handshake era an argument is an argument, whatever it is called.
    first = (await mallory.begin_tool("increment", {"session": handle}).answered()).result
    assert first.get("isError") or first["structuredContent"]["result"] == 1
    assert await mallory.tool("notes") == []
    # A header of the other era leads nowhere.
    both = await modern.begin_tool(
        "increment", {"session": own}, headers={"mcp-session-id": scene.ada.session}
    ).answered()
    assert both.result["structuredContent"]["result"] == 1
    for named, led in ((handle, own), (own, handle), (handle, None)):
        call = await modern.begin_tool("increment", {"session": named}, headers={"mcp-param-session": led}).answered()
        assert call.status == 400, (named == handle, led == handle)
    for lines in ([own, handle], [handle, own], [own, own]):
        call = await modern.begin_tool("increment", {"session": own}, headers={"mcp-param-session": lines}).answered()
        assert call.status == 400
    for lines in ([mallory.session, scene.ada.session], [mallory.session, mallory.session]):
        call = await mallory.send(body=mallory.message("tools/list"), headers={"mcp-session-id": lines})
        assert call.status == 400
    for spelling in (scene.ada.session.swapcase(), f" {scene.ada.session}", f"{scene.ada.session}, {mallory.session}"):  # type: ignore[union-attr]
        call = await mallory.send(body=mallory.message("tools/list"), headers={"mcp-session-id": spelling})
        assert call.status == 404
    assert await hers.tool("increment", {"session": handle}) == 2
    assert await scene.ada.tool("count") == 0
