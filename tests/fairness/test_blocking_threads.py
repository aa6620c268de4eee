"""`BlockingThreads`: who may have how many."""

from __future__ import annotations

import asyncio

import pytest
from understudy.runtime.fairness import blocking_threads as module
from understudy.runtime.fairness.blocking_threads import BlockingThreads, ThreadsBusy


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Crowd:
    """Calls that want a thread each and hold it."""

    def __init__(self, threads: BlockingThreads) -> None:
        self.threads = threads
        self.running: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def want(self, tenant: str, count: int = 1) -> list[asyncio.Task[None]]:
        async def one() -> None:
            await self.threads.acquire(tenant)
            self.running.append(tenant)

        made = [asyncio.get_running_loop().create_task(one()) for _ in range(count)]
        self.tasks += made
        return made

    def end(self, tenant: str) -> None:
        self.running.remove(tenant)
        self.threads.release(tenant)


@pytest.fixture
async def crowd() -> Crowd:
    return Crowd(BlockingThreads(per_tenant=3, in_all=10))


async def test_one_tenant_gets_its_number_and_the_others_theirs(crowd: Crowd) -> None:
    crowd.want("a", 20)
    crowd.want("b", 2)
    await settle()
    assert sorted(crowd.running) == ["a", "a", "a", "b", "b"]
    assert crowd.threads.stats()["blocking_waiting"] == 17
    crowd.end("a")
    await settle()
    assert crowd.running.count("a") == 3


async def test_when_a_few_hold_theirs_for_ever_the_next_tenants_find_some() -> None:
    crowd = Crowd(BlockingThreads(per_tenant=8, in_all=64))
    for number in range(11):
        crowd.want(f"hog-{number}", 20)
        await settle()
    counts = [crowd.running.count(f"hog-{number}") for number in range(11)]
    assert counts == [8, 8, 8, 8, 8, 8, 8, 4, 2, 1, 1]
    for task in crowd.tasks:
        task.cancel()


async def test_the_bound_of_all_holds_and_those_who_wait_are_served_in_turn(crowd: Crowd) -> None:
    for number in range(30):
        crowd.want(f"t{number}")
    await settle()
    assert len(crowd.running) == 10
    crowd.want("late")
    await settle()
    for _ in range(21):
        crowd.end(crowd.running[0])
        await settle()
        assert len(crowd.running) == 10
    assert "late" in crowd.running
    assert crowd.threads.stats()["blocking_waiting"] == 0


async def test_who_is_cancelled_while_he_waits_has_nothing_and_leaves_nothing(crowd: Crowd) -> None:
    tasks = crowd.want("a", 5)
    await settle()
    tasks[3].cancel()
    tasks[4].cancel()
    await settle()
    assert crowd.threads.stats()["blocking_waiting"] == 0
    for _ in range(3):
        crowd.end("a")
    crowd.want("a", 3)
    await settle()
    assert crowd.running == ["a"] * 3


async def test_who_is_cancelled_at_the_moment_of_his_turn_gives_it_back(crowd: Crowd) -> None:
    tasks = crowd.want("a", 5)
    await settle()
    crowd.end("a")
    tasks[3].cancel()
    await settle()
    assert crowd.running == ["a"] * 3
    assert crowd.threads.stats()["blocking_threads"] == 3


async def test_too_many_that_wait_are_refused(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_PER_TENANT", 4)
    crowd.want("a", 7)
    await settle()
    with pytest.raises(ThreadsBusy, match="4 calls of this tenant wait for one of its 3 threads"):
        await crowd.threads.acquire("a")
    await crowd.threads.acquire("b")
    for task in crowd.tasks:
        task.cancel()


async def test_however_many_tenants_come_those_who_wait_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WAITING", 20)
    threads = BlockingThreads(per_tenant=1, in_all=2)
    crowd = Crowd(threads)
    crowd.want("first")
    crowd.want("second")
    for number in range(20):
        crowd.want(f"tenant-{number}")
    await settle()
    for number in range(20, 1000):
        with pytest.raises(ThreadsBusy):
            await threads.acquire(f"tenant-{number}")
    assert threads.stats()["blocking_waiting"] == 20
    crowd.end("first")
    await settle()
    assert crowd.running == ["second", "tenant-0"]
    for task in crowd.tasks:
        task.cancel()
    await asyncio.gather(*crowd.tasks, return_exceptions=True)
    assert threads.stats()["blocking_waiting"] == 0
    assert not threads._waiting
