"""all-or-nothing and reply-is-durable: what a call does to its session's state, in both eras."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, TextContent
from session.visitor import Host, RPCError, Visitor, hosted
from understudy.actors.session import SessionSnapshot
from understudy.actors.session.state import unpack_state
from understudy.runtime import Session
from understudy.stores import MemoryStore


class CountingStore(MemoryStore):
    """Counts what is saved."""

    saves = 0

    async def save(self, *args: Any, **options: Any) -> None:
        self.saves += 1
        await super().save(*args, **options)


class Stage:
    """A server whose tool does what the test says, a store that counts, and a visitor."""

    def __init__(self, host: Host, visitor: Visitor, store: CountingStore, acts: dict[str, Any]) -> None:
        self.host = host
        self.visitor = visitor
        self.store = store
        self._acts = acts

    def act(self, act: Any) -> str:
        """Have the tool do this; what to pass it."""
        self._acts["act"] = act
        return "act"

    async def does(self, act: Any) -> Any:
        return await self.visitor.ask("play", act=self.act(act))

    async def fails(self, act: Any) -> str:
        return await self.visitor.failure("play", act=self.act(act))

    async def saved(self) -> dict[str, Any]:
        """The state in the store."""
        record = await self.store.load(self.visitor.address)
        assert record is not None
        return unpack_state(SessionSnapshot.unpack(record.snapshot).state)

    async def state(self) -> dict[str, Any]:
        """The state as the next call finds it, which must be what is stored."""
        found: dict[str, Any] = {}

        async def look(session: Any) -> None:
            found.update(session.state)

        await self.does(look)
        assert found == await self.saved()
        return found


@pytest.fixture
async def stage(era: str):
    server = MCPServer("stage")
    acts: dict[str, Any] = {}

    @server.tool()
    async def play(act: str, session: Session) -> Any:
        return await acts[act](session)

    @server.tool()
    async def count(by: int, session: Session) -> int:
        session.state["count"] = session.state.get("count", 0) + by
        return session.state["count"]

    store = CountingStore()
    async with hosted(server, store=store, max_state=2000) as host:
        yield Stage(host, await host.visit(era), store, acts)


async def test_a_change_is_stored_when_the_reply_arrives(stage):
    assert await stage.visitor.ask("count", by=2) == 2
    assert await stage.saved() == {"count": 2}
    assert await stage.visitor.ask("count", by=3) == 5
    assert await stage.saved() == {"count": 5}


async def test_a_turn_that_changes_nothing_saves_nothing(stage):
    await stage.visitor.ask("count", by=2)
    before = stage.store.saves

    async def nothing(session: Any) -> str:
        return "never asked for it"

    async def look(session: Any) -> int:
        return session.state["count"]

    async def change_and_change_back(session: Any) -> None:
        session.state["count"] += 1
        session.state["extra"] = []
        del session.state["extra"]
        session.state["count"] -= 1

    await stage.does(nothing)
    assert await stage.does(look) == "2"
    await stage.does(change_and_change_back)
    await stage.visitor.tools()
    assert stage.store.saves == before


async def test_a_turn_that_changes_something_saves_once(stage):
    before = stage.store.saves

    async def much(session: Any) -> None:
        for number in range(10):
            session.state[f"key {number}"] = number
            await asyncio.sleep(0)

    await stage.does(much)
    assert stage.store.saves == before + 1


async def test_changes_at_any_depth_count(stage):
    async def begin(session: Any) -> None:
        session.state["a"] = {"b": [{"c": 1}]}

    async def deepen(session: Any) -> None:
        session.state["a"]["b"][0]["c"] = 2
        session.state["a"]["b"].append("more")

    await stage.does(begin)
    await stage.does(deepen)
    assert await stage.state() == {"a": {"b": [{"c": 2}, "more"]}}


async def test_a_change_of_type_alone_counts(stage):
    async def one(session: Any) -> None:
        session.state["flag"] = 1

    async def true(session: Any) -> None:
        session.state["flag"] = True

    await stage.does(one)
    await stage.does(true)
    assert (await stage.state())["flag"] is True


MAPPING: dict[str, tuple[Any, dict[str, Any]]] = {
    "set": (lambda state: state.__setitem__("c", 3), {"a": 1, "b": [2], "c": 3}),
    "del": (lambda state: state.__delitem__("a"), {"b": [2]}),
    "pop": (lambda state: state.pop("a"), {"b": [2]}),
    "popitem": (lambda state: state.popitem(), {"a": 1}),
    "update": (lambda state: state.update(a=5, c=3), {"a": 5, "b": [2], "c": 3}),
    "|=": (lambda state: state.__ior__({"c": 3}), {"a": 1, "b": [2], "c": 3}),
    "setdefault": (lambda state: state.setdefault("c", []).append(1), {"a": 1, "b": [2], "c": [1]}),
    "clear": (lambda state: state.clear(), {}),
}


@pytest.mark.parametrize(("change", "after"), MAPPING.values(), ids=MAPPING)
async def test_it_is_a_mapping(stage, change, after):
    async def begin(session: Any) -> None:
        session.state.update(a=1, b=[2])

    async def act(session: Any) -> None:
        change(session.state)

    await stage.does(begin)
    await stage.does(act)
    assert await stage.state() == after


# A call that fails


async def _crash(session: Any) -> None:
    raise RuntimeError("secret detail")


async def _refuse(session: Any) -> None:
    raise ToolError("not today")


async def _answer_badly(session: Any) -> Any:
    return CallToolResult(content=[TextContent(type="text", text="not today")], is_error=True)


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (_refuse, "Error executing tool play: not today"),
        (_crash, "Error executing tool play"),
        (_answer_badly, "not today"),
    ],
)
async def test_a_call_that_fails_changes_nothing(stage, failure, text):
    await stage.visitor.ask("count", by=1)
    before = stage.store.saves

    async def change_and_fail(session: Any) -> Any:
        session.state["count"] = 99
        session.state["new"] = [1]
        return await failure(session)

    assert await stage.fails(change_and_fail) == text
    assert stage.store.saves == before
    assert await stage.state() == {"count": 1}


async def test_a_protocol_error_of_a_tool_changes_nothing(stage):
    async def change_and_fail(session: Any) -> Any:
        session.state["count"] = 99
        raise MCPError(-32050, "try another server")

    with pytest.raises(RPCError, match="-32050: try another server"):
        await stage.does(change_and_fail)
    assert await stage.state() == {}


async def test_invalid_arguments_change_nothing(stage):
    await stage.visitor.ask("count", by=1)
    assert "Error executing tool count" in await stage.visitor.failure("count", by="many")
    assert await stage.state() == {"count": 1}


async def test_a_cancelled_call_changes_nothing(stage):
    started = asyncio.Event()

    async def change_and_wait(session: Any) -> None:
        session.state["count"] = 99
        started.set()
        await asyncio.Event().wait()

    call = stage.visitor.call("play", act=stage.act(change_and_wait))
    await started.wait()
    await stage.visitor.cancel(call)
    if stage.visitor.era == "handshake":
        with pytest.raises(RPCError, match="cancelled"):
            await call.value()
    assert await stage.state() == {}


async def test_a_cancelled_call_that_will_not_have_it_changes_nothing(stage):
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def be_stubborn(session: Any) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            session.state["count"] = 99
            cancelled.set()
        return "done all the same"

    call = stage.visitor.call("play", act=stage.act(be_stubborn))
    await started.wait()
    await stage.visitor.cancel(call)
    await cancelled.wait()
    assert await stage.state() == {}


async def test_what_a_failed_call_did_to_a_nested_value_is_not_seen_by_the_next(stage):
    async def begin(session: Any) -> None:
        session.state["facts"] = ["one"]

    async def change_and_fail(session: Any) -> None:
        session.state["facts"].append("two")
        raise ToolError("not today")

    await stage.does(begin)
    await stage.fails(change_and_fail)
    assert await stage.state() == {"facts": ["one"]}


# What cannot be saved


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1}, "session.state['bad'] is a set, which cannot be saved"),
        ([0, (1, 2)], "session.state['bad'][1] is a tuple, which cannot be saved"),
        (2**70, "session.state['bad'] is an int of more than 64 bits; keep it as str"),
        ("\ud800", "session.state['bad'] is a str with a lone surrogate"),
        ("x" * 3000, "over the limit of 2000 (its largest key, 'bad', takes 3003)"),
    ],
    ids=["set", "tuple", "large int", "surrogate", "too large"],
)
async def test_state_that_cannot_be_saved_fails_the_call_with_the_reason(stage, value, text):
    await stage.visitor.ask("count", by=1)
    before = stage.store.saves

    async def spoil(session: Any) -> str:
        session.state["count"] = 99
        session.state["bad"] = value
        return "fine, thought the tool"

    assert text in await stage.fails(spoil)
    assert stage.store.saves == before
    assert await stage.state() == {"count": 1}
    assert await stage.visitor.ask("count", by=1) == 2


# Checkpoints


async def test_a_checkpoint_survives_a_later_failure_of_its_call(stage):
    saved_within = {}

    async def save_and_fail(session: Any) -> None:
        session.state["count"] = 1
        await session.save()
        saved_within.update(await stage.saved())
        session.state["count"] = 2
        session.state["late"] = True
        raise ToolError("not today")

    await stage.fails(save_and_fail)
    assert saved_within == {"count": 1}
    assert await stage.state() == {"count": 1}


async def test_a_checkpoint_survives_the_cancellation_of_its_call(stage):
    started = asyncio.Event()

    async def save_and_wait(session: Any) -> None:
        session.state["count"] = 1
        await session.save()
        session.state["count"] = 2
        started.set()
        await asyncio.Event().wait()

    call = stage.visitor.call("play", act=stage.act(save_and_wait))
    await started.wait()
    await stage.visitor.cancel(call)
    assert await stage.state() == {"count": 1}


async def test_a_checkpoint_of_nothing_new_saves_nothing(stage):
    before = stage.store.saves

    async def save_often(session: Any) -> None:
        await session.save()
        session.state["count"] = 1
        await session.save()
        await session.save()

    await stage.does(save_often)
    assert stage.store.saves == before + 1
    assert await stage.state() == {"count": 1}


async def test_changes_after_a_checkpoint_are_saved_at_the_end(stage):
    async def save_and_go_on(session: Any) -> None:
        session.state["count"] = 1
        await session.save()
        session.state["count"] = 2
        await session.save()
        session.state["late"] = True

    await stage.does(save_and_go_on)
    assert await stage.state() == {"count": 2, "late": True}


async def test_a_change_taken_back_after_a_checkpoint_is_saved_too(stage):
    async def there_and_back(session: Any) -> None:
        session.state["count"] = 1
        await session.save()
        del session.state["count"]

    await stage.does(there_and_back)
    assert await stage.state() == {}


async def test_a_checkpoint_of_what_cannot_be_saved_saves_nothing_and_the_tool_may_mend_it(stage):
    async def mend(session: Any) -> str:
        session.state["bad"] = {1}
        try:
            await session.save()
        except ValueError as error:
            session.state["bad"] = [1]
            return str(error)
        return "saved?"

    assert "session.state['bad'] is a set" in await stage.does(mend)
    assert await stage.state() == {"bad": [1]}


async def test_two_checkpoints_at_once_end_with_the_later_state(stage):
    async def save_twice(session: Any) -> None:
        async with asyncio.TaskGroup() as tasks:
            session.state["count"] = 1
            tasks.create_task(session.save())
            await asyncio.sleep(0)
            session.state["count"] = 2
            tasks.create_task(session.save())
        raise ToolError("not today")

    await stage.fails(save_twice)
    assert await stage.state() == {"count": 2}
