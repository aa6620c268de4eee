"""Who makes way where tenants share the room for actors."""

import pytest
from support.counting import a_registry, asleep, count, envelope, increment, opened
from understudy.actors import RegistryFull
from understudy.actors.testing import settle
from understudy.stores import Address


async def many(registry, tenant, number):
    return [await opened(registry, tenant=tenant) for _ in range(number)]


def living(registry, addresses):
    return sum(address in registry for address in addresses)


async def test_a_tenant_that_opens_without_end_pushes_out_its_own(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=40, fair=True) as registry:
        quiet = await many(registry, "quiet", 10)
        loud = await many(registry, "loud", 300)
        await settle()
        assert living(registry, quiet) == 10
        assert living(registry, loud) == 30
        # The least recently used of them went.
        assert living(registry, loud[-20:]) == 20
        assert registry.stats()["live"] == 40


async def test_without_fairness_the_least_recently_used_of_all_goes(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=40) as registry:
        quiet = await many(registry, "quiet", 10)
        await many(registry, "loud", 300)
        assert living(registry, quiet) == 0


async def test_one_alone_has_nearly_all_and_a_second_finds_room(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=40, fair=True) as registry:
        loud = await many(registry, "loud", 100)
        await settle()
        assert living(registry, loud) == 35
        quiet = await many(registry, "quiet", 15)
        await settle()
        assert living(registry, quiet) == 15
        assert living(registry, loud) == 25


async def test_a_tenant_that_keeps_all_of_its_own_in_use_gets_no_more_and_leaves_the_rest(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=40, fair=True) as registry:
        loud = await many(registry, "loud", 35)
        assert all(registry.pin(address) for address in loud)
        first, _ = envelope(increment)
        with pytest.raises(RegistryFull, match="the 35 live actors of this tenant are in use"):
            registry.open(Address.new("counter"), 0, "loud", first)
        quiet = await many(registry, "quiet", 8)
        await settle()
        assert living(registry, quiet) == 5


async def test_one_beyond_its_share_does_not_push_out_who_is_below(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=10, fair=True) as registry:
        quiet = await many(registry, "quiet", 3)
        loud = await many(registry, "loud", 7)
        assert all(registry.pin(address) for address in loud)
        first, _ = envelope(increment)
        with pytest.raises(RegistryFull, match="all 10 live actors"):
            registry.open(Address.new("counter"), 0, "loud", first)
        assert living(registry, quiet) == 3
        await opened(registry, tenant="third")
        assert living(registry, quiet) == 2


async def test_one_that_wakes_pushes_out_who_has_most(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=10, fair=True) as registry:
        quiet = await many(registry, "quiet", 2)
        sleeper = await asleep(registry)
        await many(registry, "loud", 8)
        assert await registry.ask(sleeper, count) == 0
        await settle()
        assert living(registry, quiet) == 2
        assert registry.stats()["live"] == 10


async def test_who_was_used_since_he_was_found_stays(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=40, fair=True) as registry:
        await many(registry, "quiet", 5)
        loud = await many(registry, "loud", 36)
        await settle()
        oldest = [address for address in loud if address in registry][:3]
        for address in oldest:
            await clock.advance(0.01)
            await registry.ask(address, count)
        await many(registry, "loud", 10)
        await settle()
        assert living(registry, oldest) == 3


async def test_those_that_never_came_to_life_do_not_count(clock, store, kind):
    async with a_registry(clock, store, kind, max_live=10, fair=True) as registry:

        async def fail(cell):
            raise LookupError

        before, kind.on_create = kind.on_create, fail
        for _ in range(30):
            first, outcome = envelope(increment)
            registry.open(Address.new("counter"), 0, "unlucky", first)
            with pytest.raises(LookupError):
                await outcome
        kind.on_create = before
        assert len(registry._host.census) == 0
        addresses = await many(registry, "unlucky", 3)
        for address in addresses:
            await registry.end(address)
        assert len(registry._host.census) == 0
