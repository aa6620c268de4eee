"""The table of addresses that failed."""

from random import Random

import pytest
from understudy.actors import ActorUnavailable, RestartPolicy
from understudy.actors.supervision import Supervision
from understudy.stores import Address

ADDRESS = Address("counter", "one")


def a_supervision(clock, **policy):
    return Supervision(RestartPolicy(**policy), clock.monotonic, Random(3))


def test_an_address_that_never_failed_is_not_in_the_table(clock):
    supervision = a_supervision(clock)
    supervision.check(ADDRESS)
    supervision.activated(ADDRESS)
    assert len(supervision) == 0


async def test_a_success_forgives_the_failures_before_it(clock):
    supervision = a_supervision(clock, backoff=1)
    for _ in range(3):
        supervision.activation_failed(ADDRESS, OSError("down"))
    with pytest.raises(ActorUnavailable, match="3 times in a row, last because of OSError: down"):
        supervision.check(ADDRESS)
    await clock.advance(4)
    supervision.check(ADDRESS)
    supervision.activated(ADDRESS)
    assert len(supervision) == 0


async def test_a_success_does_not_forgive_faults(clock):
    supervision = a_supervision(clock, max_restarts=1, window=60)
    supervision.faulted(ADDRESS)
    supervision.activated(ADDRESS)
    supervision.faulted(ADDRESS)
    with pytest.raises(ActorUnavailable, match="failed 2 times within 60 s"):
        supervision.check(ADDRESS)


async def test_the_window_of_faults_slides(clock):
    supervision = a_supervision(clock, max_restarts=1, window=60)
    supervision.faulted(ADDRESS)
    await clock.advance(50)
    supervision.faulted(ADDRESS)
    with pytest.raises(ActorUnavailable) as refusal:
        supervision.check(ADDRESS)
    assert refusal.value.retry_after == pytest.approx(10)
    await clock.advance(10)
    supervision.check(ADDRESS)
    supervision.faulted(ADDRESS)
    with pytest.raises(ActorUnavailable):
        supervision.check(ADDRESS)


async def test_the_last_fault_forgotten_takes_the_address_with_it(clock):
    supervision = a_supervision(clock, window=60)
    supervision.faulted(ADDRESS)
    await clock.advance(60)
    supervision.activated(ADDRESS)
    assert len(supervision) == 0


def test_the_table_is_bounded_and_forgives_the_oldest(clock):
    supervision = a_supervision(clock, max_remembered=3)
    addresses = [Address("counter", f"number-{n}") for n in range(4)]
    for address in addresses[:3]:
        supervision.activation_failed(address, OSError())
    supervision.activation_failed(addresses[0], OSError())
    supervision.activation_failed(addresses[3], OSError())
    assert len(supervision) == 3
    supervision.check(addresses[1])
    with pytest.raises(ActorUnavailable):
        supervision.check(addresses[0])


async def test_backoff_stays_within_its_bounds_however_often_it_failed(clock):
    supervision = a_supervision(clock, backoff=0.5, max_backoff=8)
    for _ in range(2000):
        supervision.activation_failed(ADDRESS, OSError())
    with pytest.raises(ActorUnavailable) as refusal:
        supervision.check(ADDRESS)
    assert 4 <= refusal.value.retry_after <= 8


def test_the_end_of_an_actor_forgets_it(clock):
    supervision = a_supervision(clock)
    supervision.faulted(ADDRESS)
    supervision.forget(ADDRESS)
    assert len(supervision) == 0
