"""Metrics by tenant: a bounded number of labels, counters that never go back, each deed counted once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from cluster.household import household
from edge.client import Client, ModernClient, hosting, hosting_modern
from edge.server import Stage, make_server
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp.server.mcpserver.exceptions import ToolError
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from support.patience import PATIENCE
from understudy.actors.session import TenantContext
from understudy.runtime import ConfigurationError, Forbidden, Runtime, Unauthenticated
from understudy.runtime.telemetry.metrics import render_metrics
from understudy.runtime.telemetry.tenant_label import MOST_LABELS, tenant_label
from understudy.runtime.telemetry.tenant_numbers import FEWEST_KNOWN, REGRADE_EVERY, TenantNumbers


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def who(request: Request) -> TenantContext:
    credential = request.headers.get("authorization", "")
    if credential == "Bearer nothing":
        raise Forbidden
    if not credential.startswith("Bearer "):
        raise Unauthenticated
    tenant, _, principal = credential.removeprefix("Bearer ").partition("/")
    return TenantContext(tenant, principal or "ann")


def read(body: bytes) -> dict[tuple[str, ...], float]:
    """Samples that have a tenant: `(name, tenant, outcome or status)`."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if "tenant" in sample.labels:
                more = [value for name, value in sorted(sample.labels.items()) if name != "tenant"]
                place = (sample.name.removeprefix("understudy_tenant_"), sample.labels["tenant"], *more)
                assert place not in found, f"{place} stands there twice"
                found[place] = sample.value
    return found


def scrape(runtime: Runtime) -> dict[tuple[str, ...], float]:
    return read(runtime.metrics()[0])


def shown(numbers: TenantNumbers, sessions: dict[str, int] | None = None) -> dict[tuple[str, ...], float]:
    return read(render_metrics({}, "n1", more=numbers.collect(sessions or {}))[0])


def ask(numbers: TenantNumbers, tenant: str, times: int = 1) -> None:
    for _ in range(times):
        tally = numbers.of(tenant)
        tally.sink.calls["result"] += 1
        tally.took(0.5)


# Labels


def test_no_more_tenants_have_a_label_than_may() -> None:
    numbers = TenantNumbers(3, clock=Clock())
    for number in range(5000):
        ask(numbers, f"tenant-{number}")
    found = shown(numbers)
    calls = {place[1]: value for place, value in found.items() if place[0] == "calls_total"}
    assert calls == {"tenant-0": 1, "tenant-1": 1, "tenant-2": 1, "other": 4997}
    assert found["call_seconds_count", "other"] == 4997
    assert len(numbers._known) <= FEWEST_KNOWN


def test_without_labels_all_are_others() -> None:
    numbers = TenantNumbers(0)
    ask(numbers, "acme", 3)
    found = shown(numbers, {"acme": 2})
    assert found["calls_total", "other", "result"] == 3
    assert found["sessions_live", "other"] == 2
    assert {place[1] for place in found} == {"other"}


def test_a_busier_tenant_takes_the_label_of_one_that_has_gone_quiet() -> None:
    clock = Clock()
    numbers = TenantNumbers(1, clock=clock)
    ask(numbers, "early", 10)
    ask(numbers, "busy", 100)
    clock.now += REGRADE_EVERY + 1
    shown(numbers)
    found = shown(numbers)
    # What it did among the others stays theirs, and what the other had done is shown no more.
    assert {place[1:]: value for place, value in found.items() if place[0] == "calls_total"} == {
        ("other", "result"): 100
    }
    ask(numbers, "busy", 7)
    ask(numbers, "early", 2)
    found = shown(numbers)
    assert found["calls_total", "busy", "result"] == 7
    assert found["calls_total", "other", "result"] == 102


def test_two_tenants_that_are_about_as_busy_do_not_take_turns_with_a_label() -> None:
    clock = Clock()
    numbers = TenantNumbers(1, clock=clock)
    for minute in range(20):
        ask(numbers, "a", 10 + minute % 2)
        ask(numbers, "b", 11 - minute % 2)
        clock.now += REGRADE_EVERY + 1
        shown(numbers)
    assert ("calls_total", "a", "result") in shown(numbers)


def test_new_tenants_are_met_though_as_many_are_known_as_may_be() -> None:
    clock = Clock()
    numbers = TenantNumbers(1, clock=clock)
    ask(numbers, "early")
    for number in range(FEWEST_KNOWN + 50):
        ask(numbers, f"passing-{number}")
    clock.now += 20 * REGRADE_EVERY
    shown(numbers)
    ask(numbers, "newcomer", 50)
    clock.now += REGRADE_EVERY + 1
    shown(numbers)
    ask(numbers, "newcomer", 3)
    assert shown(numbers)["calls_total", "newcomer", "result"] == 3


steps = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d", "e"]), st.integers(0, 40), st.sampled_from([0.0, 30.0, 61.0])),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.integers(0, 3))
def test_no_counter_ever_goes_back_and_none_counts_twice(steps: list[tuple[str, int, float]], labels: int) -> None:
    clock = Clock()
    numbers = TenantNumbers(labels, clock=clock)
    seen: dict[tuple[str, ...], float] = {}
    asked: Counter[str] = Counter()
    for tenant, times, passed in steps:
        ask(numbers, tenant, times)
        asked[tenant] += times
        clock.now += passed
        found = {place: value for place, value in shown(numbers).items() if "calls" in place[0]}
        for place, value in found.items():
            assert value >= seen.get(place, 0.0), place
        seen |= found
    # Each call stands in one series, though that of a tenant without a label is not shown.
    newest = {place[1]: value for place, value in seen.items() if place[0] == "calls_total"}
    assert sum(newest.values()) == asked.total()
    assert all(value <= asked[tenant] for tenant, value in newest.items() if tenant != "other")


def test_streams_and_sessions_go_to_whoever_has_the_label_now() -> None:
    clock = Clock()
    numbers = TenantNumbers(1, clock=clock)
    first, second = numbers.of("first"), numbers.of("second")
    first.streams += 2
    second.streams += 1
    sessions = {"first": 3, "second": 4, "never asked": 5}
    found = shown(numbers, sessions)
    assert (found["streams_open", "first"], found["streams_open", "other"]) == (2, 1)
    assert (found["sessions_live", "first"], found["sessions_live", "other"]) == (3, 9)
    ask(numbers, "second", 50)
    clock.now += REGRADE_EVERY + 1
    shown(numbers)
    found = shown(numbers, sessions)
    assert (found["streams_open", "second"], found["streams_open", "other"]) == (1, 2)
    assert (found["sessions_live", "second"], found["sessions_live", "other"]) == (4, 8)
    first.streams -= 2
    second.streams -= 1
    found = shown(numbers)
    assert (found["streams_open", "second"], found["streams_open", "other"]) == (0, 0)


HOSTILE = ["other", "none", 'a"} 1\nforged 2', "x" * 500, "\u202eemca", "a\\", "é", "acme~0123456789ab", "\x00", "a\nb"]


def test_every_tenant_has_a_label_of_its_own_that_can_be_shown() -> None:
    tenants = [*HOSTILE, *(tenant_label(tenant) for tenant in HOSTILE), "x" * 499 + "y"]
    tenants = list(dict.fromkeys(tenants))
    labels = [tenant_label(tenant) for tenant in tenants]
    assert len(set(labels)) == len(tenants)
    assert not {"other", "none"} & set(labels)
    assert all(label.isprintable() and len(label) <= 80 for label in labels)
    assert tenant_label("acme") == "acme"
    numbers = TenantNumbers(100)
    for tenant in tenants:
        ask(numbers, tenant)
    body = render_metrics({}, "n1", more=numbers.collect({}))[0]
    assert {place[1] for place in read(body) if place[0] == "calls_total"} == set(labels)
    assert not any(line.startswith("forged") for line in body.decode().splitlines())


@pytest.mark.parametrize("labels", [-1, MOST_LABELS + 1])
def test_a_number_of_labels_that_will_not_do_is_refused(labels: int) -> None:
    with pytest.raises(ConfigurationError, match=f"tenant_labels is {labels}"):
        Runtime(make_server(), tenant_labels=labels)


# A node


def talking_server(stage: Stage | None = None) -> Any:
    server = make_server(stage)

    @server.tool()
    async def refuse_to() -> str:
        raise ToolError("no")

    return server


def ann(client: Client) -> Client:
    client.headers["authorization"] = "Bearer acme/ann"
    return client


async def test_calls_are_counted_by_what_came_of_them_in_both_eras() -> None:
    async with hosting(talking_server(), tenants=who) as client:
        await ann(client).open()
        await client.tool("increment")
        await client.begin_tool("refuse_to").answered()
        await client.ask("no/such/method")
        await client.begin_tool("increment", headers={"mcp-session-id": "x" * 32}).answered()
        found = scrape(client.runtime)
        assert found["calls_total", "acme", "result"] == 2  # initialize is one
        assert found["calls_total", "acme", "tool error"] == 1
        assert found["calls_total", "acme", "error"] == 1
        assert found["calls_total", "acme", "refused"] == 1
        assert found["call_seconds_count", "acme"] == 5
        assert 0 < found["call_seconds_sum", "acme"] < 10
        assert found["refusals_total", "acme", "404"] == 1
        assert found["sessions_live", "acme"] == 1
    async with hosting_modern(talking_server(), tenants=who) as modern:
        assert isinstance(ann(modern), ModernClient)
        handle = await modern.handle()
        await modern.tool("increment", {"session": handle})
        await modern.begin_tool("refuse_to").answered()
        found = scrape(modern.runtime)
        assert found["calls_total", "acme", "result"] == 2
        assert found["calls_total", "acme", "tool error"] == 1
        assert found["call_seconds_count", "acme"] == 3


async def test_refusals_are_counted_by_status_and_by_who_was_refused() -> None:
    async with hosting(make_server(), tenants=who) as client:
        await ann(client).open()
        session = client.session
        eve = client.twin(authorization="Bearer acme/eve")
        stranger = client.twin(authorization="Bearer rival")
        for other in (eve, stranger):
            other.session, other.revision = session, client.revision
            assert (await other.ask("tools/list")).status == 404
            assert (await other.send("DELETE")).status == 404
        assert (await client.twin().ask("tools/list")).status == 401
        assert (await client.twin(authorization="Bearer nothing").ask("tools/list")).status == 403
        assert (await client.twin(authorization="Bearer acme", host="evil.example").ask("tools/list")).status == 421
        found = scrape(client.runtime)
        assert found["refusals_total", "acme", "404"] == 2
        assert found["refusals_total", "rival", "404"] == 2
        assert {place[2]: value for place, value in found.items() if place[:2] == ("refusals_total", "none")} == {
            "401": 1, "403": 1, "421": 1
        }  # fmt: skip
        # A call that was turned away is one of the calls, as in the audit trail.
        assert found["calls_total", "rival", "refused"] == 1


async def test_a_full_mailbox_is_a_refusal_of_its_tenant() -> None:
    stage = Stage()
    async with hosting(make_server(stage), tenants=who, mailbox_size=1) as client:
        await ann(client).open()
        calls = [client.begin_tool("hold") for _ in range(3)]
        async with asyncio.timeout(PATIENCE):
            await calls[2].answered()
        assert calls[2].status == 429
        assert scrape(client.runtime)["refusals_total", "acme", "429"] == 1
        stage.go_on.set()
        for call in calls[:2]:
            await call.answered()
        assert scrape(client.runtime)["refusals_total", "acme", "429"] == 1


async def test_open_streams_are_counted_while_they_are_open() -> None:
    async with hosting(make_server(), tenants=who) as client:
        await ann(client).open()
        standing = client.start("GET")
        await standing.started()
        assert scrape(client.runtime)["streams_open", "acme"] == 1
        standing.disconnect()
        async with asyncio.timeout(PATIENCE):
            while scrape(client.runtime)["streams_open", "acme"]:
                await asyncio.sleep(0.01)


async def test_a_forwarded_call_is_counted_once_where_it_ran(nats_url: str) -> None:
    async with household(nats_url, 2, tenants=lambda number: who) as (one, two):
        client = ann(one.client())
        await client.open()
        there = two.same(client)
        for _ in range(3):
            await there.tool("increment")
        eve = two.same(client)
        eve.headers["authorization"] = "Bearer rival"
        assert (await eve.ask("tools/list")).status == 404
        here, edge = scrape(one.runtime), scrape(two.runtime)
        assert here["calls_total", "acme", "result"] == 4
        assert ("calls_total", "acme", "result") not in edge
        assert (here["call_seconds_count", "acme"], ("call_seconds_count", "acme") in edge) == (4, False)
        assert here["calls_total", "rival", "refused"] + edge.get(("calls_total", "rival", "refused"), 0) == 1
        assert here["refusals_total", "rival", "404"] + edge.get(("refusals_total", "rival", "404"), 0) == 1
        assert here["sessions_live", "acme"] == 1
        assert edge["sessions_live", "acme"] == 0
