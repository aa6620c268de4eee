"""The keys of `requestState` change, and no call that is under way breaks by it, at any node."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster.household import Member, household
from cluster.test_bus import until
from cluster.test_commons import Guest, by_bearer, inquirer
from mcp.server.request_state import InvalidRequestState
from support.nats import fresh_name
from support.patience import PATIENCE
from understudy.actors.packing import pack, unpack
from understudy.actors.session.commons import _DEFAULT_TTL, SharedSeal
from understudy.runtime import ClusterOptions
from understudy.runtime.cluster.cluster import Cluster
from understudy.runtime.cluster.commons import ClusterCommons
from understudy.runtime.cluster.control import ControlError, ask
from understudy.runtime.cluster.errors import ClusterError
from understudy.runtime.cluster.key_ring import MOST_KEYS, OVERLAP, KeyRing, fingerprint
from understudy.runtime.commands.key_file import KeyFileError, read_keys
from understudy.runtime.commands.nats_server import NatsServer
from understudy.runtime.errors import ConfigurationError
from understudy.stores.nats.connection import close, connect, jetstream
from understudy.stores.nats.settings import NatsSettings

DAY = 86_400.0


class Clock:
    """One for all rings of a test."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


class Ring(KeyRing):
    """A ring, its seal, and what the others hear of it."""

    def __init__(self, clock: Clock, *given: bytes) -> None:
        self.shared = SharedSeal()
        super().__init__(self.shared, given, clock=clock, wall=clock)

    def seals(self, text: bytes = b"state") -> str:
        codec = self.shared.codec
        assert codec is not None
        return codec.seal(text)

    def opens(self, token: str) -> bool:
        codec = self.shared.codec
        assert codec is not None
        try:
            return codec.unseal(token) == b"state"
        except InvalidRequestState:
            return False


def known(*rings: Ring) -> dict[str, tuple[str, ...]]:
    return {f"node-{number}": ring.fingerprints for number, ring in enumerate(rings)}


@asynccontextmanager
async def bucket(server: NatsServer) -> AsyncIterator[Any]:
    connection = await connect(NatsSettings.from_url(server.url), name="test")
    try:
        yield await (await jetstream(connection, timeout=2)).create_key_value(bucket=fresh_name("settings"))
    finally:
        await close(connection)


async def rings(settings: Any, count: int, clock: Clock | None = None) -> list[Ring]:
    made = [Ring(clock or Clock()) for _ in range(count)]
    for ring in made:
        await ring.learn(settings)
    return made


async def test_a_new_key_opens_at_once_and_seals_when_all_nodes_have_it(nats_server: NatsServer) -> None:
    async with bucket(nats_server) as settings:
        one, two, three = await rings(settings, 3)
        old = one.seals()
        assert await one.rotate(settings)
        assert one.opens(one.seals())
        assert not await one.advance(settings, known(two, three))
        assert one.waiting_for(known(two, three)) == ["node-0", "node-1"]
        await two.learn(settings)
        assert not await one.advance(settings, known(two, three))
        assert one.waiting_for(known(two, three)) == ["node-1"]
        assert all(ring.opens(one.seals()) for ring in (one, two, three)), "the old key still seals"
        await three.learn(settings)
        assert await one.advance(settings, known(two, three))
        new = one.seals()
        # The others have not looked since: they open what the one that has changed seals, and the reverse.
        assert two.fingerprints != one.fingerprints
        for ring in (one, two, three):
            assert ring.opens(old)
            assert ring.opens(new)
            assert one.opens(ring.seals())
        late = Ring(Clock())
        await late.learn(settings)
        assert late.fingerprints == one.fingerprints
        assert late.opens(old)
        assert late.opens(new)
        assert not late.changing


async def test_after_the_overlap_the_old_key_goes(nats_server: NatsServer) -> None:
    clock = Clock()
    async with bucket(nats_server) as settings:
        one, two = await rings(settings, 2, clock)
        old = one.seals()
        await one.rotate(settings)
        await two.learn(settings)
        await one.advance(settings, known(two))
        await two.learn(settings)
        clock.now += OVERLAP - 1
        assert not await two.advance(settings, known(one))
        assert two.opens(old)
        clock.now += 1
        assert await two.advance(settings, known(one))
        await one.learn(settings)
        assert not one.opens(old)
        assert not two.opens(old)
        assert one.opens(two.seals())
        assert len(one.fingerprints) == 1


def test_the_overlap_is_longer_than_any_state_lives() -> None:
    assert OVERLAP > 2 * _DEFAULT_TTL


async def test_two_nodes_that_rotate_at_once_make_one_new_key(nats_server: NatsServer) -> None:
    async with bucket(nats_server) as settings:
        nodes = await rings(settings, 8)
        begun = await asyncio.gather(*(node.rotate(settings) for node in nodes))
        assert sum(begun) == 1
        assert len({node.fingerprints for node in nodes}) == 1
        await asyncio.gather(*(node.advance(settings, known(*nodes)) for node in nodes))
        for node in nodes:
            await node.learn(settings)
        assert {len(node.fingerprints) for node in nodes} == {2}
        assert len({node.fingerprints for node in nodes}) == 1
        assert sum(node.rotations for node in nodes) == 1
        assert not any(node.changing for node in nodes)


async def test_a_node_of_a_version_that_tells_nothing_holds_a_change_up(nats_server: NatsServer) -> None:
    async with bucket(nats_server) as settings:
        one, old_version = await rings(settings, 2)
        await one.rotate(settings)
        others = {"old": (), **known()}
        assert not await one.advance(settings, others)
        assert one.waiting_for(others) == ["old"]
        assert old_version.opens(one.seals())
        # What such a node reads when it starts is what it always read.
        raw = unpack((await settings.get("request-state")).value)
        assert [fingerprint(key) for key in raw] == [one.fingerprints[0]]


async def test_one_who_dies_half_way_leaves_a_change_that_others_end(nats_server: NatsServer) -> None:
    async with bucket(nats_server) as settings:
        one, two = await rings(settings, 2)
        await one.rotate(settings)
        following = (await settings.get("request-state-next")).value
        await two.learn(settings)
        await one.advance(settings, known(two))
        # As if it had died before it took the key away from there.
        await settings.put("request-state-next", following)
        await two.learn(settings)
        assert two.fingerprints == one.fingerprints
        assert not two.changing
        third = Ring(Clock())
        await third.learn(settings)
        assert third.fingerprints == one.fingerprints
        assert await third.rotate(settings), "and the next change is not kept from beginning"


async def test_a_cluster_changes_its_key_by_itself_in_time_and_not_before(nats_server: NatsServer) -> None:
    clock = Clock()
    async with bucket(nats_server) as settings:
        one, two = await rings(settings, 2, clock)
        clock.now += 29 * DAY
        assert not await one.advance(settings, known(two), every=30 * DAY)
        clock.now += DAY
        assert not await one.advance(settings, known(two), every=None)
        assert await one.advance(settings, known(two), every=30 * DAY)
        await two.learn(settings)
        assert await two.advance(settings, known(one), every=30 * DAY)
        assert not await two.advance(settings, known(one), every=30 * DAY), "the new one is new"


async def test_a_key_that_does_not_tell_its_age_is_changed_once(nats_server: NatsServer) -> None:
    async with bucket(nats_server) as settings:
        await settings.put("request-state", pack([b"k" * 32]))
        (one,) = await rings(settings, 1)
        sealed = one.seals()
        assert await one.advance(settings, {}, every=30 * DAY)
        assert await one.advance(settings, {}, every=30 * DAY)
        assert not await one.advance(settings, {}, every=30 * DAY)
        assert one.opens(sealed)


async def test_keys_are_not_changed_without_end(nats_server: NatsServer) -> None:
    async with bucket(nats_server) as settings:
        (one,) = await rings(settings, 1)
        for _ in range(MOST_KEYS - 1):
            assert await one.rotate(settings)
            assert await one.advance(settings, {})
        with pytest.raises(ClusterError, match="try again in an hour"):
            await one.rotate(settings)
        assert len(one.fingerprints) == MOST_KEYS


async def test_given_keys_are_changed_by_who_gives_them(nats_server: NatsServer) -> None:
    async with bucket(nats_server) as settings:
        ring = Ring(Clock(), b"g" * 32)
        with pytest.raises(ClusterError, match="given by its operator"):
            await ring.rotate(settings)
        await ring.learn(settings)
        assert not await ring.advance(settings, {}, every=1.0)
        assert (await settings.status()).values == 0


async def test_a_state_of_an_unknown_key_is_refused(nats_server: NatsServer) -> None:
    async with bucket(nats_server) as one, bucket(nats_server) as other:
        (here,), (there,) = await rings(one, 1), await rings(other, 1)
        assert not here.opens(there.seals())
        codec = here.shared.codec
        assert codec is not None
        with pytest.raises(InvalidRequestState, match="unknown key"):
            codec.unseal(there.seals())


@pytest.mark.parametrize("value", [b"", b"\xc1", pack([]), pack([b"short"]), pack("text"), pack({})])
async def test_a_next_key_that_makes_no_sense_is_refused_clearly(nats_server: NatsServer, value: bytes) -> None:
    async with bucket(nats_server) as settings:
        (one,) = await rings(settings, 1)
        before = one.fingerprints
        await settings.put("request-state-next", value)
        with pytest.raises(ClusterError, match="request-state-next"):
            await one.learn(settings)
        assert one.fingerprints == before, "and what is known stays"
        with pytest.raises(ClusterError, match="request-state-next"):
            await ClusterCommons().learn_keys(settings)


def test_a_fingerprint_says_nothing_of_the_key() -> None:
    key = b"k" * 32
    assert len(fingerprint(key)) == 12
    assert fingerprint(key) != fingerprint(b"l" * 32)


# In a cluster


async def order(node: Member, op: str) -> dict[str, Any]:
    cluster = node.runtime.cluster
    assert cluster is not None
    return await ask(cluster.connection, cluster.names, node.name, op, seals=cluster.seals)


def ring_of(node: Member) -> KeyRing:
    assert node.runtime.cluster is not None
    return node.runtime.cluster.commons.keys


async def test_calls_that_are_under_way_go_on_through_a_change_at_every_node(nats_url: str) -> None:
    async with household(
        nats_url, 3, server=inquirer, tenants=by_bearer, settings=lambda number: {"lease": 1.0}
    ) as nodes:
        guest = Guest()
        (before,) = {ring_of(node).fingerprints[0] for node in nodes}
        pending = [await guest.asked(node, "greet_stateless", {}) for node in nodes]
        assert (await order(nodes[1], "rotate_keys"))["begun"]

        async def goes_on() -> None:
            for answers in pending:
                for node in nodes:
                    assert (await guest.call(node, "greet_stateless", {}, **answers)).value == "Ada"

        async with asyncio.timeout(PATIENCE):
            while any(ring_of(node).fingerprints[0] == before for node in nodes):
                pending.append(await guest.asked(nodes[len(pending) % 3], "greet_stateless", {}))
                await goes_on()
        await goes_on()
        (after,) = {ring_of(node).fingerprints[0] for node in nodes}
        assert after != before
        status = await order(nodes[2], "keys")
        assert (status["changing"], status["seals"], status["waiting_for"]) == (False, after, [])


async def test_two_operators_at_once_cost_one_change(nats_url: str) -> None:
    async with household(
        nats_url, 2, server=inquirer, tenants=by_bearer, settings=lambda number: {"lease": 1.0}
    ) as nodes:
        answers = await asyncio.gather(*(order(node, "rotate_keys") for node in nodes))
        assert sum(answer["begun"] for answer in answers) >= 1
        await until(lambda: not any(ring_of(node).changing for node in nodes))
        await until(lambda: len({ring_of(node).fingerprints for node in nodes}) == 1)


async def test_a_key_of_which_no_message_tells_is_learned_of_from_the_leases(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(cluster: Cluster, message: Any) -> None:
        """As if it had come before what it tells of could be read."""

    monkeypatch.setattr(Cluster, "_settings_changed", lost)
    async with household(
        nats_url, 3, server=inquirer, tenants=by_bearer, settings=lambda number: {"lease": 1.0}
    ) as nodes:
        (before,) = {ring_of(node).fingerprints for node in nodes}
        assert (await order(nodes[0], "rotate_keys"))["begun"]
        await until(lambda: not any(ring_of(node).changing for node in nodes))
        (after,) = {ring_of(node).fingerprints for node in nodes}
        assert after[1:] == before


async def test_a_look_that_fails_is_soon_tried_again(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with household(
        nats_url, 1, server=inquirer, tenants=by_bearer, settings=lambda number: {"lease": 1.0}
    ) as nodes:
        ring = ring_of(nodes[0])
        learn, looks = ring.learn, 0

        async def fails_twice(settings: Any) -> None:
            nonlocal looks
            looks += 1
            if looks < 3:
                raise TimeoutError
            await learn(settings)

        monkeypatch.setattr(ring, "learn", fails_twice)
        assert nodes[0].runtime.cluster is not None
        nodes[0].runtime.cluster.commons.look_at_keys()
        await until(lambda: looks >= 3)


async def test_with_given_keys_the_order_is_refused_with_what_to_do(nats_url: str) -> None:
    async with household(
        nats_url, 1, server=inquirer, tenants=by_bearer, settings=lambda number: {"request_state_keys": [b"g" * 32]}
    ) as (node,):
        with pytest.raises(ControlError, match="first with it behind the others, then with it in front"):
            await order(node, "rotate_keys")
        assert (await order(node, "keys"))["given"]


def test_too_short_a_time_between_changes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="key_rotation is 60"):
        ClusterOptions("a", key_rotation=60.0)
    assert ClusterOptions("a", key_rotation=None).key_rotation is None


# The operator's file


def line(key: bytes) -> bytes:
    return base64.b64encode(key) + b"\n"


def test_a_file_of_keys_is_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    new, old = b"n" * 32, b"o" * 48
    file.write_bytes(b"# the first seals\n\n" + line(new) + b"  " + line(old))
    assert read_keys(file) == [new, old]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "holds 0 keys"),
        (line(b"short"), "line 1"),
        (line(b"k" * 32) + b"not base64, and secret\n", "line 2"),
        (line(b"k" * 32) * 2, "line 2 .*repeats"),
        (b"".join(line(bytes([number]) * 32) for number in range(17)), "holds 17 keys"),
        (b"x" * 70_000, "larger than"),
        ("ключ".encode(), "line 1"),
    ],
)
def test_what_is_no_file_of_keys_is_refused_without_repeating_it(tmp_path: Path, text: bytes, reason: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(text)
    with pytest.raises(KeyFileError, match=reason) as refused:
        read_keys(file)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_keys(tmp_path / "none")
