"""no-wrong-tenant: what a stranger to the cluster's keys says in a node's name does nothing, and he is told nothing."""

from __future__ import annotations

import logging

import pytest
from link.ends import EDGE, KEY, OWNER, SEALS, Ends, Heard, a_head, answer, two_ends
from understudy.actors.session import TenantContext
from understudy.actors.testing import ManualClock, settle
from understudy.runtime.link import CallHead, InboundCall, Link, NotRun, Seals
from understudy.runtime.link.batch import encode_batch
from understudy.runtime.link.codec import encode_frame
from understudy.runtime.link.frames import Call, Ping
from understudy.runtime.link.head_book import HeadBook
from understudy.runtime.link.seals import Seal
from understudy.runtime.link.testing import MemoryHub

VICTIM = a_head(tenant=TenantContext("victim", "root"))
STRANGER = "stranger-1.66"
OTHER = b"another key, as good as the first one"


class Ears:
    """A wire's listener who keeps what he hears."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def on_payload(self, peer: str, payload: bytes) -> None:
        self.heard.append(payload)

    def on_no_responders(self, peer: str, tag: str) -> None: ...
    def on_reconnect(self) -> None: ...


class Served:
    """A handler that keeps the heads of what it has run."""

    def __init__(self) -> None:
        self.heads: list[CallHead] = []

    async def __call__(self, call: InboundCall) -> None:
        self.heads.append(call.head)
        await answer(call, b"done")


def a_call(version: int, seal: Seal | None, *, path: int = 1, head: CallHead = VICTIM) -> bytes:
    return encode_batch(version, path, 1, 0, [encode_frame(Call(1, head), version, HeadBook())], seal)


async def overheard(hub: MemoryHub, ends: Ends) -> list[bytes]:
    """What the edge has sent to the owner for one call."""
    heard: list[bytes] = []
    take = ends.owner.on_payload

    def on_payload(peer: str, payload: bytes) -> None:
        heard.append(payload)
        take(peer, payload)

    ends.owner.on_payload = on_payload  # type: ignore[method-assign]
    await ends.ask()
    ends.owner.on_payload = take  # type: ignore[method-assign]
    return heard


@pytest.mark.parametrize(
    "seal",
    [
        Seal(Seals("tests", [OTHER]), STRANGER, OWNER),
        Seal(Seals("another cluster", [KEY]), STRANGER, OWNER),
        Seal(SEALS, EDGE, OWNER),
        Seal(SEALS, STRANGER, "owner-2.bb"),
        Seal(SEALS, OWNER, STRANGER),
    ],
    ids=["another key", "another cluster", "another sender", "another receiver", "the other direction"],
)
async def test_a_call_without_the_seal_of_its_sender_is_dropped_counted_and_answered_by_nobody(
    clock: ManualClock, seal: Seal
) -> None:
    hub, served, ears = MemoryHub(clock), Served(), Ears()
    async with two_ends(served, clock=clock, hub=hub) as ends:
        wire = hub.wire()
        await wire.listen(STRANGER, ears)
        before = ends.owner.stats()
        ends.owner.on_payload(STRANGER, a_call(4, seal))
        await clock.advance(60)
        after = ends.owner.stats()
        assert after["forged"] == 1
        assert {name for name in after if after[name] != before[name]} == {"forged", "batches_in", "bytes_in"}
        assert served.heads == []
        assert ears.heard == []
        assert (await ends.ask()).body == b"done"


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_a_call_of_a_version_without_seals_is_dropped_and_counted(clock: ManualClock, version: int) -> None:
    served, ears, hub = Served(), Ears(), MemoryHub(clock)
    async with two_ends(served, clock=clock, hub=hub) as ends:
        await hub.wire().listen(STRANGER, ears)
        ends.owner.on_payload(STRANGER, a_call(version, None))
        await clock.advance(60)
        stats = ends.owner.stats()
        assert (stats["unsealed_refused"], stats["foreign"], stats["paths"]) == (1, 0, 0)
        assert served.heads == ears.heard == []


async def test_a_peer_that_speaks_no_sealed_version_gets_no_call(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        ends.edge.set_peer_versions("old-1.aa", (1, 3))
        with pytest.raises(NotRun) as refused:
            await ends.edge.forward("old-1.aa", a_head(), b"", Heard().send)
        assert refused.value.reason == "version"


async def test_an_operator_may_take_unsealed_calls_for_a_while_and_sees_how_many(clock: ManualClock) -> None:
    served, hub = Served(), MemoryHub(clock)
    async with (
        Link(hub.wire(), me=OWNER, serve=served, seals=SEALS, clock=clock, versions=(1, 4)) as owner,
        Link(hub.wire(), me=EDGE, serve=served, seals=SEALS, clock=clock, versions=(1, 3)) as old,
        Link(hub.wire(), me="edge-2.cc", serve=served, seals=SEALS, clock=clock, versions=(4, 4)) as new,
    ):
        for link, versions in ((old, (1, 3)), (new, (4, 4))):
            link.set_peer_versions(OWNER, (1, 4))
            owner.set_peer_versions(EDGE if link is old else "edge-2.cc", versions)
        for link in (new, old):
            before = owner.stats()["unsealed_taken"]
            heard = Heard()
            await link.forward(OWNER, VICTIM, b"", heard.send)
            assert heard.body == b"done"
            assert (owner.stats()["unsealed_taken"] > before) is (link is old)
        assert owner.stats()["forged"] == new.stats()["unsealed_taken"] == 0


async def test_what_was_overheard_is_worth_nothing_a_second_time_or_anywhere_else(clock: ManualClock) -> None:
    hub, served, elsewhere = MemoryHub(clock), Served(), Served()
    async with (
        two_ends(served, clock=clock, hub=hub) as ends,
        Link(hub.wire(), me="owner-2.dd", serve=elsewhere, seals=SEALS, clock=clock) as other,
    ):
        words = await overheard(hub, ends)
        assert len(served.heads) == 1
        for word in words:
            # Again, in another's name, to another node.
            ends.owner.on_payload(EDGE, word)
            ends.owner.on_payload(STRANGER, word)
            other.on_payload(EDGE, word)
        await settle()
        # When its node has given the path up, and when it has come back as another incarnation.
        ends.owner.peer_gone(EDGE)
        for word in words:
            ends.owner.on_payload(EDGE, word)
        ends.owner.rename("owner-1.ee")
        await settle()
        for word in words:
            ends.owner.on_payload(EDGE, word)
        await clock.advance(60)
        assert len(served.heads) == 1
        assert elsewhere.heads == []
        assert other.stats()["forged"] == len(words)
        assert ends.owner.stats()["forged"] == 2 * len(words)


async def test_the_other_end_of_a_call_is_sealed_too(clock: ManualClock) -> None:
    async with two_ends(clock=clock) as ends:
        await ends.ask()
        # A farewell of the next life would end the path and its calls, an answer would be taken for the owner's.
        for seal in (Seal(Seals("tests", [OTHER]), OWNER, EDGE), Seal(SEALS, EDGE, OWNER)):
            ends.edge.on_payload(OWNER, encode_batch(4, 2, 0, 0, [], seal))
            ends.edge.on_payload(OWNER, encode_batch(4, 1, 0, 0, [encode_frame(Ping(1), 4, HeadBook())], seal))
        assert (ends.edge.stats()["forged"], ends.edge.stats()["paths_lost"]) == (4, 0)
        assert (await ends.ask()).body == b"ping"


async def test_keys_change_without_one_dropped_batch_if_all_open_before_one_seals(clock: ManualClock) -> None:
    hub, mine, theirs = MemoryHub(clock), Seals("tests", [KEY]), Seals("tests", [KEY])
    served = Served()
    async with (
        Link(hub.wire(), me=OWNER, serve=served, seals=theirs, clock=clock) as owner,
        Link(hub.wire(), me=EDGE, serve=served, seals=mine, clock=clock) as edge,
    ):
        ends = Ends(hub, edge, owner)
        steps = [(mine, [KEY, OTHER]), (theirs, [KEY, OTHER]), (theirs, [OTHER, KEY]), (mine, [OTHER, KEY])]
        for seals, keys in [*steps, (mine, [OTHER]), (theirs, [OTHER])]:
            seals.use(keys)
            assert (await ends.ask()).body == b"done"
        assert edge.stats()["forged"] == owner.stats()["forged"] == 0
        before = len(served.heads)
        owner.on_payload(STRANGER, a_call(4, Seal(Seals("tests", [KEY]), STRANGER, OWNER)))
        await settle()
        assert (owner.stats()["forged"], len(served.heads)) == (1, before)


async def test_a_flood_of_forgeries_leaves_one_line_a_minute_and_no_memory(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with two_ends(clock=clock) as ends:
        with caplog.at_level(logging.WARNING):
            for number in range(5000):
                ends.owner.on_payload(f"stranger-{number}.66", b"us\x04" + bytes(40))
            await clock.advance(61)
            ends.owner.on_payload(STRANGER, b"us\x03" + bytes(40))
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
        assert "5000 forged, 1 without a seal" in caplog.text
        assert len(ends.owner._peer_seals) <= 4096  # pyright: ignore[reportPrivateUsage]
        assert (await ends.ask()).body == b"ping"


def test_a_seal_opens_for_nobody_but_its_receiver_and_with_nothing_changed() -> None:
    sealed = Seal(SEALS, EDGE, OWNER).seal(4, b"the body")
    assert Seal(Seals("tests", [OTHER, KEY]), EDGE, OWNER).open(4, sealed) == b"the body"
    assert Seal(SEALS, EDGE, OWNER).open(5, sealed) is None
    for other in (
        Seal(SEALS, OWNER, EDGE),
        Seal(SEALS, EDGE + OWNER[0], OWNER[1:]),
        Seal(Seals("test", [KEY]), EDGE, OWNER),
        Seal(Seals("tests", [OTHER]), EDGE, OWNER),
    ):
        assert other.open(4, sealed) is None
    for at in range(len(sealed)):
        assert Seal(SEALS, EDGE, OWNER).open(4, sealed[:at]) is None
        flipped = sealed[:at] + bytes((sealed[at] ^ 1,)) + sealed[at + 1 :]
        assert Seal(SEALS, EDGE, OWNER).open(4, flipped) is None


def test_nothing_of_a_batch_or_of_a_key_can_be_read() -> None:
    word = a_call(4, Seal(SEALS, EDGE, OWNER))
    assert b"victim" in a_call(3, None)
    assert b"victim" not in word
    assert KEY not in b"".join([*SEALS.keys, *SEALS.keys.values()])


def test_no_nonce_comes_twice_under_one_key() -> None:
    seals = Seals("tests", [KEY])
    one, other = Seal(seals, EDGE, OWNER), Seal(seals, EDGE, OWNER)
    seals.use([KEY])
    sealed = [seal.seal(4, b"the same") for seal in (one, other) for _ in range(100)]
    assert len({word[4:16] for word in sealed}) == len(set(sealed)) == 200
    again = Seal(Seals("tests", [KEY]), EDGE, OWNER).seal(4, b"the same")
    assert again[4:16] not in {word[4:16] for word in sealed}


def test_without_keys_nothing_is_sealed_and_nothing_opens() -> None:
    none = Seal(Seals("tests"), EDGE, OWNER)
    assert none.open(4, bytes(40)) is None
    assert none.open(4, b"") is None
    with pytest.raises(ValueError, match="no key"):
        none.seal(4, b"")
    with pytest.raises(ValueError, match="nothing to seal"):
        encode_batch(4, 1, 1, 0, [])
