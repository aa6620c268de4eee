"""A client comes back to its stream while its session moves to another store, at a node that never saw it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
from edge.client import put_to_sleep
from edge.fleet import Shared
from edge.heirs import Heirs, goes_to
from edge.server import Stage, make_server
from edge.test_logged_streams import resume
from edge.test_resumption import numbers
from edge.test_streams import streaming
from understudy.runtime.store_commands.emptying import Emptying

FORMER, FOLLOWING, MOVING = "with the former store", "following", "moving"
STEPS = [(FORMER, FOLLOWING), (FORMER, MOVING), (FOLLOWING, MOVING), (MOVING, FOLLOWING), (MOVING, MOVING)]


class Places:
    """Two stores that outlive their nodes, and nodes of each step."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.former, self.next = Shared(), Shared()
        self._with_former, self._with_next = Heirs(stack, self.former), Heirs(stack, self.next)

    async def node(self, step: str, server: object) -> Any:
        if step == MOVING:
            return await self._with_next.node(server, former_store=self.former)
        return await self._with_former.node(server, **({"next_store": self.next} if step == FOLLOWING else {}))


@pytest.mark.parametrize(("step", "next_step"), STEPS)
async def test_a_finished_stream_is_replayed(step: str, next_step: str) -> None:
    async with AsyncExitStack() as stack:
        places = Places(stack)
        client = await places.node(step, make_server(stage := Stage()))
        await client.open()
        call = await streaming(client, stage, before=3, after=2)
        call.disconnect()
        await call.done()
        stage.go_on.set()
        assert await client.tool("increment") == 1
        heir = goes_to(client, await places.node(next_step, make_server()))
        again = await resume(heir, call.events[1])
        assert numbers(again.events) == [2.0, 3.0, 4.0, 5.0]
        assert again.value == "reported"
        assert await heir.tool("increment") == 2


@pytest.mark.parametrize(("step", "next_step"), STEPS)
async def test_a_question_whose_node_died_is_withdrawn_and_the_session_lives_on(step: str, next_step: str) -> None:
    async with AsyncExitStack() as stack:
        places = Places(stack)
        client = await places.node(step, make_server(Stage()))
        await client.open()
        assert await client.tool("increment") == 1
        call = client.begin_tool("ask_name")
        question = await call.message("elicitation/create")
        heir = goes_to(client, await places.node(next_step, make_server()))
        again = await resume(heir, call.events[-1])
        withdrawn, error = again.messages
        assert withdrawn["params"]["requestId"] == question["id"]
        assert error["error"]["data"] == {"outcome": "unknown"}
        assert await heir.tool("increment") == 2


@pytest.mark.parametrize("step", [FOLLOWING, MOVING])
async def test_a_tool_that_waits_for_an_answer_gets_it_though_its_session_is_moved_from_under_it(step: str) -> None:
    """By a `store move` that comes too early: what changes nothing is not lost, and calls find the session."""
    async with AsyncExitStack() as stack:
        places = Places(stack)
        client = await places.node(FORMER, make_server())
        await client.open()
        assert await client.tool("increment") == 1
        await put_to_sleep(client.runtime, client.session)
        client = goes_to(client, await places.node(step, make_server(Stage())))
        assert await client.tool("increment") == 2
        call = client.begin_tool("ask_name")
        question = await call.message("elicitation/create")
        assert (await Emptying(places.former, places.next).one_pass()).moved == (step == FOLLOWING)
        answer = {"action": "accept", "content": {"name": "Ada"}}
        assert (await client.respond(question["id"], answer)).status == 202
        await call.answered()
        assert call.value == "Ada"
        if step == FOLLOWING:
            # The first that changes it learns that it has moved.
            refused = await client.begin_tool("increment").answered()
            assert (refused.status, refused.failure["message"]) == (
                503,
                "The session is not available now; nothing was changed",
            )
            assert refused.header("retry-after") is not None
        assert await client.tool("increment") == 3
        assert (await places.former.list()).records == ()
