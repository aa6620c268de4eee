"""`tenant.cache`: bounded in every direction, made once for all who ask, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from tenants.running import as_tenant
from understudy.actors.session.tenants.cache_bounds import CacheBounds
from understudy.actors.session.tenants.cache_size import MOST_PARTS, estimated_size
from understudy.actors.session.tenants.caches import TenantCaches
from understudy.actors.session.tenants.errors import CacheError, NoCall
from understudy.actors.session.tenants.helpers import TenantHelpers
from understudy.runtime import TenantContext, WrongTenant


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def caches_with(time: Time, **bounds: Any) -> TenantCaches:
    return TenantCaches(CacheBounds(**bounds), clock=time)


@pytest.fixture
async def helpers() -> AsyncIterator[TenantHelpers]:
    async with TenantHelpers() as helpers:
        yield helpers


async def test_what_one_tenant_keeps_no_other_sees(helpers: TenantHelpers) -> None:
    with as_tenant(helpers, "acme") as acme:
        acme.cache.set("key", "of acme")
        kept = acme.cache
    with as_tenant(helpers, "evil") as evil:
        assert evil.cache.get("key") is None
        assert await evil.cache.get_or_make("key", lambda: "of evil") == "of evil"
        # A cache, or a context, that somebody has kept from an earlier call.
        for reach in (
            lambda: kept.get("key"),
            lambda: kept.set("key", "poison"),
            lambda: kept.delete("key"),
            lambda: acme.cache,
            lambda: TenantContext("acme", "ada").cache,
        ):
            with pytest.raises(WrongTenant):
                reach()
        with pytest.raises(WrongTenant):
            await kept.get_or_make("key", lambda: "poison")
    with as_tenant(helpers, "acme", "another user"):
        # The context of another user of the same tenant is another party's as well.
        with pytest.raises(WrongTenant):
            kept.get("key")
        assert TenantContext("acme", "another user").cache.get("key") == "of acme"


async def test_outside_of_a_call_and_after_the_runtime_there_is_none(helpers: TenantHelpers) -> None:
    with pytest.raises(NoCall, match="no call is running here"):
        _ = TenantContext("acme", "ada").cache
    with as_tenant(None, "acme") as acme, pytest.raises(NoCall):
        _ = acme.cache
    with as_tenant(helpers, "acme") as acme:
        cache = acme.cache
        await helpers.__aexit__(None, None, None)
        with pytest.raises(NoCall):
            cache.get("key")


def test_an_entry_is_gone_when_its_time_is_over(time: Time) -> None:
    caches = caches_with(time, ttl=10.0)
    caches.set("acme", "key", 1, None, None)
    caches.set("acme", "brief", 2, 3.0, None)
    time.now = 9.9
    assert caches.get("acme", "key", None) == 1
    assert caches.get("acme", "brief", None) is None
    time.now = 10.0
    assert caches.get("acme", "key", None) is None
    assert caches.stats()["bytes"] == caches.stats()["tenants"] == 0


def test_at_its_bound_a_tenant_loses_its_own_least_recently_used(time: Time) -> None:
    caches = caches_with(time, max_entries=3)
    caches.set("other", "key", 0, None, None)
    for key in "abc":
        caches.set("acme", key, key, None, None)
    caches.get("acme", "a", None)
    caches.set("acme", "d", "d", None, None)
    assert [caches.get("acme", key, None) for key in "abcd"] == ["a", None, "c", "d"]
    assert caches.get("other", "key", None) == 0


def test_bytes_are_bounded_for_one_and_for_all(time: Time) -> None:
    caches = caches_with(time, max_bytes=10_000, max_total_bytes=25_000)
    for tenant in ("t1", "t2", "t3"):
        assert caches.set(tenant, "key", b"x" * 9000, None, None)
    # The first was used least recently, and the three did not fit.
    assert [caches.get(tenant, "key", None) is not None for tenant in ("t1", "t2", "t3")] == [False, True, True]
    assert not caches.set("t2", "key", b"x" * 10_001, None, None)
    assert caches.get("t2", "key", None) is None, "an older value must not outlive one that was too large to keep"
    assert caches.stats()["too_large_total"] == 1
    for number in range(100):
        caches.set("noisy", f"{number}", b"x" * 1000, None, None)
        assert caches.stats()["bytes"] <= 25_000
    assert caches.get("t3", "key", None) is not None, "a tenant at its own bound displaces no other"


def test_what_is_forgotten_is_gone_and_counted_as_nothing(time: Time) -> None:
    caches = caches_with(time)
    for tenant in ("acme", "other"):
        caches.set(tenant, "key", 1, None, None)
    caches.forget("acme")
    caches.forget("nobody")
    assert (caches.get("acme", "key", None), caches.get("other", "key", None)) == (None, 1)
    assert caches.delete("other", "key")
    assert not caches.delete("other", "key")
    assert caches.stats()["bytes"] == 0


async def test_it_is_made_once_for_all_who_ask_meanwhile(helpers: TenantHelpers) -> None:
    made = 0
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def make() -> list[int]:
        nonlocal made
        made += 1
        begun.set()
        await go_on.wait()
        return [made]

    with as_tenant(helpers, "acme") as acme:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(acme.cache.get_or_make("key", make)) for _ in range(20)]
            await begun.wait()
            go_on.set()
        assert {id(task.result()) for task in asked} == {id(asked[0].result())}
        assert made == 1
    with as_tenant(helpers, "other") as other:
        assert await other.cache.get_or_make("key", make) == [2]


async def test_who_waits_makes_it_when_the_maker_is_cancelled(helpers: TenantHelpers) -> None:
    begun = asyncio.Event()

    async def forever() -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    with as_tenant(helpers, "acme") as acme:
        async with asyncio.TaskGroup() as tasks:
            maker = tasks.create_task(acme.cache.get_or_make("key", forever))
            await begun.wait()
            waiting = [tasks.create_task(acme.cache.get_or_make("key", lambda: "made")) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            maker.cancel()
        assert [task.result() for task in waiting[1:]] == ["made", "made"]
        assert waiting[0].cancelled()


async def test_an_error_is_everybodys_who_waits_and_is_not_kept(helpers: TenantHelpers) -> None:
    begun = asyncio.Event()

    async def fail() -> str:
        begun.set()
        await asyncio.sleep(0)
        raise LookupError("nothing there")

    with as_tenant(helpers, "acme") as acme:
        asked = [acme.cache.get_or_make("key", fail) for _ in range(3)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(error) for error in results] == ["nothing there"] * 3
        assert await acme.cache.get_or_make("key", lambda: "made") == "made"
        with pytest.raises(RuntimeError):
            await acme.cache.get_or_make("odd", lambda: next(iter(())))
        assert helpers.caches.stats()["entries"] == 1


async def test_what_takes_too_long_is_an_error_that_says_so(helpers: TenantHelpers) -> None:
    with as_tenant(helpers, "acme") as acme:
        with pytest.raises(CacheError, match=r"'key' of tenant.cache was not made within 0.01 s"):
            await acme.cache.get_or_make("key", asyncio.Event().wait, timeout=0.01)

        async def itself() -> object:
            return await acme.cache.get_or_make("key", itself)

        with pytest.raises(CacheError, match="asks for it itself"):
            await acme.cache.get_or_make("key", itself)


@pytest.mark.parametrize("how", ["delete", "set", "forget"])
async def test_what_was_made_of_the_old_does_not_come_back(helpers: TenantHelpers, how: str) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def make() -> str:
        begun.set()
        await go_on.wait()
        return "stale"

    with as_tenant(helpers, "acme") as acme:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(acme.cache.get_or_make("key", make))
            await begun.wait()
            match how:
                case "delete":
                    acme.cache.delete("key")
                case "set":
                    acme.cache.set("key", "new")
                case _:
                    helpers.forget("acme")
            go_on.set()
        assert acme.cache.get("key") == ("new" if how == "set" else None)
        assert helpers.caches.stats()["tenants"] == (how == "set")


async def test_keys_lifetimes_and_sizes_that_are_none_are_refused(helpers: TenantHelpers) -> None:
    with as_tenant(helpers, "acme") as acme:
        key: Any
        for key in (1, None, b"key", ("a", "b"), "x" * 1025):
            with pytest.raises(CacheError, match=r"a key of tenant\.cache is a text"):
                acme.cache.set(key, 1)
        for options in ({"ttl": 0}, {"ttl": -1.0}, {"ttl": float("nan")}, {"size": -1}):
            with pytest.raises(CacheError):
                acme.cache.set("key", 1, **options)
        assert acme.cache.get("key", "absent") == "absent"
    for bounds in ({"max_entries": 0}, {"ttl": 0}, {"max_bytes": 2**40}):
        with pytest.raises(ValueError, match="CacheBounds"):
            CacheBounds(**bounds)


def test_threads_may_use_it_together(time: Time) -> None:
    caches = caches_with(time, max_entries=50, max_bytes=100_000, max_total_bytes=200_000)

    def work(seed: int) -> None:
        for number in range(400):
            tenant, key = f"t{(seed + number) % 5}", f"{number % 70}"
            caches.set(tenant, key, b"x" * (number % 2000), None, None)
            caches.get(tenant, key, None)
            if number % 50 == 0:
                caches.forget(tenant)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    shelves: Any = caches._shelves
    assert caches.stats()["bytes"] == sum(entry.size for shelf in shelves.values() for entry in shelf.entries.values())
    assert caches.stats()["bytes"] <= 200_000


def test_the_estimate_sees_what_a_value_holds() -> None:
    @dataclass(slots=True)
    class Slotted:
        text: str

    class Plain:
        def __init__(self) -> None:
            self.text = "x" * 10_000

    for value in (
        "x" * 10_000,
        b"x" * 10_000,
        ["x" * 10_000],
        {"key": ("x" * 10_000,)},
        {"x" * 10_000: 1},
        Plain(),
        Slotted("x" * 10_000),
        {frozenset({"x" * 10_000})},
    ):
        assert 10_000 <= estimated_size(value) < 12_000, value
    shared = "x" * 10_000
    assert estimated_size([shared] * 1000) < 20_000
    around: list[Any] = []
    around.append(around)
    assert estimated_size(around) < 1000
    many = [bytes(100) for _ in range(3 * MOST_PARTS)]
    assert estimated_size(many) == pytest.approx(sum(map(len, many)), rel=0.6)
