"""`session.live`: made once, closed in order, made anew in the session's next life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations
from session.visitor import hosted
from support.patience import PATIENCE
from understudy.actors.session import LiveObjects, SessionError
from understudy.runtime import Session


class Thing:
    """Says when it is closed."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self._log = log

    def close(self) -> None:
        self._log.append(self.name)


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def live() -> LiveObjects:
    return LiveObjects()


async def test_an_object_is_made_on_first_use_and_kept(live):
    made = []

    def factory() -> object:
        made.append(object())
        return made[-1]

    assert "browser" not in live
    first = await live.get("browser", factory)
    assert await live.get("browser", factory) is first
    assert made == [first]
    assert "browser" in live


async def test_a_factory_may_be_async(live):
    async def factory() -> str:
        await asyncio.sleep(0)
        return "made"

    assert await live.get("browser", factory) == "made"


async def test_concurrent_calls_make_one_object(live):
    go = asyncio.Event()
    made = []

    async def factory() -> object:
        await go.wait()
        made.append(object())
        return made[-1]

    async with asyncio.TaskGroup() as tasks:
        askers = [tasks.create_task(live.get("browser", factory)) for _ in range(5)]
        await asyncio.sleep(0)
        go.set()
    assert {asker.result() for asker in askers} == set(made)
    assert len(made) == 1


async def test_after_a_factory_that_failed_one_of_those_who_wait_tries_again(live):
    go = asyncio.Event()
    tries = []

    async def factory() -> str:
        tries.append(len(tries))
        number = len(tries)
        await go.wait()
        await asyncio.sleep(0)
        if number == 1:
            raise ValueError("no browser today")
        return f"try {number}"

    async def ask(*, late: bool) -> str:
        if late:
            await go.wait()
        return await live.get("browser", factory)

    async with asyncio.timeout(PATIENCE):
        asking = asyncio.gather(*(ask(late=late) for late in [False] * 3 + [True] * 3), return_exceptions=True)
        await asyncio.sleep(0)
        go.set()
        failed, *others = await asking
    assert str(failed) == "no browser today"
    assert others == ["try 2"] * 5
    assert len(tries) == 2


async def test_a_factory_that_fails_leaves_nothing(live):
    def factory() -> None:
        raise ValueError("no browser today")

    with pytest.raises(ValueError, match="no browser today"):
        await live.get("browser", factory)
    assert "browser" not in live
    assert await live.get("browser", lambda: "made") == "made"


async def test_a_factory_may_use_another_object(live, log):
    async def page() -> Thing:
        browser = await live.get("browser", lambda: Thing("browser", log))
        return Thing(f"page of {browser.name}", log)

    await live.get("page", page)
    await live.aclose()
    assert log == ["page of browser", "browser"]


async def test_all_are_closed_last_made_first(live, log):
    for name in ("one", "two", "three"):
        await live.get(name, lambda name=name: Thing(name, log))
    await live.aclose()
    assert log == ["three", "two", "one"]
    assert "one" not in live


async def test_one_object_can_be_closed_and_made_anew(live, log):
    await live.get("one", lambda: Thing("one", log))
    await live.close("one")
    await live.close("one")
    await live.close("never made")
    assert log == ["one"]
    await live.get("one", lambda: Thing("another", log))
    await live.aclose()
    assert log == ["one", "another"]


class Both(Thing):
    async def aclose(self) -> None:
        self._log.append(f"{self.name}, asynchronously")


async def _close_late(thing: Thing) -> None:
    await asyncio.sleep(0)
    thing._log.append(f"{thing.name}, by hand")


@pytest.mark.parametrize(
    ("factory", "close", "said"),
    [
        (lambda log: Thing("it", log), None, ["it"]),
        (lambda log: Both("it", log), None, ["it, asynchronously"]),
        (lambda log: Both("it", log), lambda thing: thing._log.append("sync close="), ["sync close="]),
        (lambda log: Thing("it", log), _close_late, ["it, by hand"]),
        (lambda log: {"no": "closer"}, None, []),
        (lambda log: None, None, []),
    ],
    ids=["close()", "aclose()", "close=", "async close=", "nothing to close", "None"],
)
async def test_how_an_object_is_closed(live, log, factory: Callable[[list[str]], Any], close: Any, said: list[str]):
    await live.get("it", lambda: factory(log), close=close)
    assert "it" in live
    await live.aclose()
    assert log == said
    assert "it" not in live


async def test_an_object_that_is_none_is_closed_too(live, log):
    await live.get("it", lambda: None, close=lambda it: log.append(f"closed {it}"))
    await live.aclose()
    assert log == ["closed None"]


async def test_a_mere_context_manager_is_refused_and_not_kept(live):
    @contextmanager
    def sync_one():
        yield

    @asynccontextmanager
    async def async_one():
        yield

    for manager in (sync_one, async_one):
        with pytest.raises(SessionError, match="enter it in the factory, pass close="):
            await live.get("it", manager)
        assert "it" not in live


async def test_a_closer_that_raises_is_logged_and_the_others_are_closed(live, log, caplog):
    def broken(_: Thing) -> None:
        raise ValueError("will not close")

    async def cancels_itself(_: Thing) -> None:
        sleeper = asyncio.get_running_loop().create_future()
        sleeper.cancel()
        await sleeper

    await live.get("first", lambda: Thing("first", log))
    await live.get("broken", lambda: Thing("broken", log), close=broken)
    await live.get("cancelled", lambda: Thing("cancelled", log), close=cancels_itself)
    await live.get("last", lambda: Thing("last", log))
    await live.aclose()
    assert log == ["last", "first"]
    assert "closing the live object 'broken' failed" in caplog.text
    assert "will not close" in caplog.text
    assert "closing the live object 'cancelled' ended in a cancellation" in caplog.text


async def test_a_closer_that_hangs_does_not_keep_the_others_from_closing(live, log, caplog, monkeypatch):
    monkeypatch.setattr("understudy.actors.session.live._CLOSE_TIMEOUT", 0.01)

    async def hang(_: Thing) -> None:
        await asyncio.Event().wait()

    await live.get("first", lambda: Thing("first", log))
    await live.get("hung", lambda: Thing("hung", log), close=hang)
    async with asyncio.timeout(PATIENCE):
        await live.aclose()
    assert log == ["first"]
    assert "closing the live object 'hung' failed" in caplog.text


async def test_there_is_a_limit_and_it_counts_what_is_being_made():
    live = LiveObjects(limit=2)
    go = asyncio.Event()

    async def slow() -> str:
        await go.wait()
        return "made"

    await live.get("one", lambda: 1)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(live.get("two", slow))
        await asyncio.sleep(0)
        with pytest.raises(SessionError, match=r"holds 2 objects, its limit; close\(\) one before 'three'"):
            await live.get("three", lambda: 3)
        go.set()
    assert await live.get("two", slow) == "made"
    await live.close("one")
    assert await live.get("three", lambda: 3) == 3


# In a session


def workshop(log: list[str]) -> MCPServer:
    server = MCPServer("workshop")
    made = iter(range(1, 100))

    @server.tool()
    async def make(name: str, session: Session) -> str:
        thing = await session.live.get(name, lambda: Thing(f"{name} {next(made)}", log))
        return thing.name

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def look(name: str, session: Session) -> str:
        thing = await session.live.get(name, lambda: Thing(f"{name} {next(made)}", log))
        return thing.name

    return server


async def test_an_object_lives_from_call_to_call(era, log):
    async with hosted(workshop(log)) as host:
        visitor, other = await host.visit(era), await host.visit(era)
        assert await visitor.ask("make", name="saw") == "saw 1"
        assert await visitor.ask("make", name="saw") == "saw 1"
        assert await visitor.ask("look", name="saw") == "saw 1"
        assert await other.ask("make", name="saw") == "saw 2"
        assert log == []


async def test_passivation_closes_it_and_the_next_life_makes_it_anew(era, log):
    async with hosted(workshop(log)) as host:
        visitor = await host.visit(era)
        await visitor.ask("make", name="saw")
        await visitor.ask("make", name="vice")
        await host.sleep(visitor)
        assert log == ["vice 2", "saw 1"]
        assert await visitor.ask("make", name="saw") == "saw 3"
    assert log == ["vice 2", "saw 1", "saw 3"]


async def test_the_end_of_the_session_closes_it(era, log):
    async with hosted(workshop(log)) as host:
        visitor = await host.visit(era)
        await visitor.ask("make", name="saw")
        if era == "modern":
            await visitor.ask("close_session")
        else:
            assert await visitor.end() == 200
        assert log == ["saw 1"]


async def test_the_drain_closes_it(era, log):
    async with hosted(workshop(log)) as host:
        visitor = await host.visit(era)
        await visitor.ask("make", name="saw")
        await host.runtime.drain()
        assert log == ["saw 1"]
