"""What crosses the wire: round trips in all versions, what each version wrote first, and what is refused."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from itertools import count
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from link.ends import EDGE, KEY, OWNER, SEALS, TENANT, a_head
from understudy.actors.session import TenantContext
from understudy.runtime.errors import ConfigurationError
from understudy.runtime.link import OLDEST, VERSION, CallHead, Unsendable, negotiate
from understudy.runtime.link.batch import OVERHEAD, CorruptBatch, ForeignBatch, ForgedBatch, decode_batch, encode_batch
from understudy.runtime.link.codec import decode_frame, encode_frame
from understudy.runtime.link.frames import (
    LOOSE,
    MAX_NUMBER,
    Body,
    Call,
    Cancel,
    Failed,
    Frame,
    GrantRequest,
    GrantResponse,
    NotRunFrame,
    Ping,
    Pong,
    RequestBody,
    Start,
)
from understudy.runtime.link.head_book import MAX_KNOWN, HeadBook
from understudy.runtime.link.seals import Seal, Seals
from understudy.runtime.link.tenant_book import TenantBook
from understudy.runtime.link.versions import checked_versions
from understudy.stores import Address

ALL = (1, 2, 3, 4)
SEAL = Seal(SEALS, EDGE, OWNER)
SPOKEN = (OLDEST, VERSION)

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
names = texts.filter(bool)
numbers = st.integers(1, MAX_NUMBER - 1)
parts = st.binary(max_size=100)
header_parts = parts.map(lambda part: part.replace(b"\n", b" "))
headers = st.lists(st.tuples(header_parts, header_parts), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
maps = st.dictionaries(texts, json_values, max_size=4)
tenants = st.builds(
    TenantContext,
    names,
    names,
    st.none() | texts,
    st.frozensets(texts, max_size=3),
    maps,
    st.none() | st.floats(0, 1e12),
)
heads = st.builds(
    CallHead,
    method=texts,
    path=texts,
    query=parts,
    headers=headers,
    client=st.none() | st.tuples(texts, st.integers(0, 65535)),
    server=st.none() | st.tuples(texts, st.none() | st.integers(0, 65535)),
    scheme=names,
    http_version=names,
    root_path=texts,
    tenant=tenants,
    address=st.none() | st.builds(Address, st.just("session"), names),
    purpose=texts,
    hops=st.integers(0, 255),
    budget=st.none() | st.floats(0, 1e6),
    trace=texts,
    again=st.booleans(),
)
statuses = st.integers(100, 999)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Call, numbers, heads, parts, st.booleans()),
    st.builds(RequestBody, numbers, parts, st.booleans()),
    st.builds(GrantRequest, numbers, numbers),
    st.builds(Cancel, numbers),
    st.builds(Start, numbers, statuses, headers, parts, st.booleans()),
    st.builds(Body, numbers, parts, st.booleans()),
    st.builds(GrantResponse, numbers, numbers),
    st.builds(NotRunFrame, numbers, texts, maps),
    st.builds(Failed, numbers, texts),
    st.builds(Ping, st.integers(0, MAX_NUMBER - 1)),
    st.builds(Pong, st.integers(0, MAX_NUMBER - 1)),
)


def as_version_1(frame: Frame) -> Frame:
    """What version 1 leaves of a frame."""
    match frame:
        case Call():
            return frame._replace(head=frame.head._replace(trace="", again=False))
        case Ping() | Pong():
            return frame._replace(nonce=0)
        case _:
            return frame


def carried(batch: list[Frame], version: int) -> list[Frame]:
    seq = 0 if batch and type(batch[0]) in LOOSE else 7
    payload = encode_batch(version, 3, seq, 5, [encode_frame(frame, version, HeadBook()) for frame in batch], SEAL)
    decoded = decode_batch(payload, SPOKEN, HeadBook(), SEAL)
    assert (decoded.version, decoded.path, decoded.seq, decoded.ack) == (version, 3, seq, 5)
    assert decoded.size == len(payload)
    return decoded.frames


@given(frames, st.sampled_from((2, 3, 4)))
def test_every_frame_comes_back_as_it_was_sent(frame: Frame, version: int) -> None:
    (back,) = carried([frame], version)
    assert back == frame
    assert type(back) is type(frame)
    if isinstance(frame, Call) and isinstance(back, Call):
        # Claims take no part in the equality of contexts.
        assert dict(back.head.tenant.claims) == dict(frame.head.tenant.claims)


@given(frames)
def test_version_1_carries_all_but_the_trace_the_nonce_and_that_a_call_comes_again(frame: Frame) -> None:
    assert carried([frame], 1) == [as_version_1(frame)]


@given(st.lists(frames.filter(lambda frame: type(frame) not in LOOSE), max_size=8), st.sampled_from(ALL))
def test_a_batch_adds_no_more_than_its_overhead(batch: list[Frame], version: int) -> None:
    encoded = [encode_frame(frame, version, HeadBook()) for frame in batch]
    payload = encode_batch(version, MAX_NUMBER - 1, MAX_NUMBER - 1, MAX_NUMBER - 1, encoded, SEAL)
    assert len(payload) <= sum(map(len, encoded)) + OVERHEAD


GOLDEN_FRAMES: list[Frame] = [
    Call(1, a_head(), b"body", False),
    RequestBody(2, b"more", True),
    GrantRequest(3, 65536),
    Cancel(4),
    Start(5, 200, [(b"a", b"b")], b"ok", False),
    Body(6, b"part", True),
    GrantResponse(7, 65536),
    NotRunFrame(8, "elsewhere", {"epoch": 4}),
    Failed(9, "error"),
]
"""In one batch of path 1, seq 2, ack 3."""

GOLDEN = {
    1: (
        "757301a3a1cdee94010203dc00099501019ea4504f5354a42f6d6370c403613d3194c40c636f6e74656e742d74797065c410"
        "6170706c69636174696f6e2f6a736f6ec407782d656d707479c400c43296a461636d65a3626f62a4676f6c6492a472656164"
        "a57772697465c40c82a3737562a3626f62a16e01cb41ddcd6500000000a463616c6c0192a831302e302e302e31cd140392a8"
        "31302e302e302e32cd1f40c0c0c092a773657373696f6ed92073737373737373737373737373737373737373737373737373"
        "73737373737373cb403e000000000000c404626f6479c2940202c4046d6f7265c3930303ce00010000920404960505ccc892"
        "c40161c40162c4026f6bc2940606c40470617274c3930707ce00010000940808a9656c7365776865726581a565706f636804"
        "930909a56572726f72"
    ),
    2: (
        "7573021b4ee0b494010203dc000995010198a4504f5354a42f6d6370c403613d3194c40c636f6e74656e742d74797065c410"
        "6170706c69636174696f6e2f6a736f6ec407782d656d707479c400c43296a461636d65a3626f62a4676f6c6492a472656164"
        "a57772697465c40c82a3737562a3626f62a16e01cb41ddcd6500000000a463616c6c0185a16392a831302e302e302e31cd14"
        "03a17392a831302e302e302e32cd1f40a16192a773657373696f6ed920737373737373737373737373737373737373737373"
        "7373737373737373737373a162cb403e000000000000a169a774726163652d31c404626f6479c2940202c4046d6f7265c393"
        "0303ce00010000920404960505ccc892c40161c40162c4026f6bc2940606c40470617274c3930707ce00010000940808a965"
        "6c7365776865726581a565706f636804930909a56572726f72"
    ),
    3: (
        "75730334ee5c8e94010203dc0009990101c4bb9ba4504f5354a42f6d6370c403613d31c426636f6e74656e742d747970650a"
        "6170706c69636174696f6e2f6a736f6e0a782d656d7074790a92a831302e302e302e31cd140392a831302e302e302e32cd1f"
        "40a468747470a3312e31a0c43296a461636d65a3626f62a4676f6c6492a472656164a57772697465c40c82a3737562a3626f"
        "62a16e01cb41ddcd650000000092a773657373696f6ed9207373737373737373737373737373737373737373737373737373"
        "737373737373c404626f6479c2a463616c6c01cb403e000000000000a774726163652d31940202c4046d6f7265c3930303ce"
        "00010000920404960505ccc8c403610a62c4026f6bc2940606c40470617274c3930707ce00010000940808a9656c73657768"
        "65726581a565706f636804930909a56572726f72"
    ),
    4: (
        "75730428b9d7a5000000000000000000000007c19ce4434271e006b6b26efc35d3f34d5b6c5e342d3c7f45c9f30b9b08fa73"
        "4090f5cd6447e2a943376ee78f346892b365a4c9f3b8395f9ab6b3f627d1914b5a7091d731204b60222322a6005ee556a290"
        "f15ac89f33a2a2c683e81125933086978ceccfb9e9d071bd3393312be8a6bc1ede0964b34855ca3c58daf1439c4e2b662db8"
        "e33b1ef7e8ab6c1a911bf5b5263e0bdf1e81d234f4af749b59f8062c093070fba3e898bae86beb97a01c682d8e3383644ad5"
        "0a71f85203de0189fa6a09b65f2d3e9548d75e7be747aa15a689e42b7f3a7b582621939e7cec49e312c3746a38cf7da18a49"
        "264022810321d928befe44f514ef7fbb375963ad56496f28b80aa2a2a5301e3fdc925b393fda102ba4fd03d5ff900f22fec6"
        "f936cb9238d0c88575e478f6ee0797523397836cff1fb47f292b1038bab9f8f5666d89a8357b2e70d3e1c6757931f066"
    ),
}
"""Written once, by the first code that spoke the version. If one cannot be read, nodes of two releases cannot talk."""

GOLDEN_PINGS = {
    1: "75730143cadbb294010003dc0002910a910b",
    2: "757302aa0cf95c94010003dc0002920a07920b07",
    3: "757303779a20d994010003dc0002920a07920b07",
    4: "75730428b9d7a5000000000000000000000008578ddba5cf9add449400ca558c96ec13c4d8e8dca9b46b80fcd5000ef4",
}
"""A ping and a pong with nonce 7, in a batch of path 1, ack 3."""


@pytest.mark.parametrize("version", ALL)
def test_what_a_version_wrote_first_is_still_read(version: int) -> None:
    batch = decode_batch(bytes.fromhex(GOLDEN[version]), SPOKEN, HeadBook(), SEAL)
    assert (batch.version, batch.path, batch.seq, batch.ack) == (version, 1, 2, 3)
    assert batch.frames == ([as_version_1(frame) for frame in GOLDEN_FRAMES] if version == 1 else GOLDEN_FRAMES)
    assert isinstance(batch.frames[0], Call)
    assert dict(batch.frames[0].head.tenant.claims) == dict(TENANT.claims)
    pings = decode_batch(bytes.fromhex(GOLDEN_PINGS[version]), SPOKEN, HeadBook(), SEAL)
    assert pings.frames == ([Ping(0), Pong(0)] if version == 1 else [Ping(7), Pong(7)])


@pytest.mark.parametrize("version", ALL)
def test_a_version_is_still_written_as_it_was_first(version: int) -> None:
    seal = Seal(Seals("tests", [KEY], nonces=count(7)), EDGE, OWNER)
    encoded = [encode_frame(frame, version, HeadBook()) for frame in GOLDEN_FRAMES]
    assert encode_batch(version, 1, 2, 3, encoded, seal).hex() == GOLDEN[version]
    pings = [encode_frame(Ping(7), version, HeadBook()), encode_frame(Pong(7), version, HeadBook())]
    assert encode_batch(version, 1, 0, 3, pings, seal).hex() == GOLDEN_PINGS[version]


def test_version_2_skips_options_that_it_does_not_know() -> None:
    raw: Any = msgpack.unpackb(encode_frame(Call(1, a_head()), 2, HeadBook()), strict_map_key=False)
    raw[2][-1]["of a later release"] = [1, 2]
    assert decode_frame(raw, 2, HeadBook()) == Call(1, a_head())


def test_version_3_skips_fields_that_it_does_not_know() -> None:
    raw: Any = msgpack.unpackb(encode_frame(Call(1, a_head()), 3, HeadBook()), strict_map_key=False)
    raw[2] = msgpack.packb([*msgpack.unpackb(raw[2]), "of a later release"])
    for again in (False, True):
        later = [*raw, again, "of a later release"]
        assert decode_frame(later, 3, HeadBook()) == Call(1, a_head(again=again))


@given(st.data())
def test_a_request_with_one_field_of_another_type_is_read_or_corrupt(data: st.DataObject) -> None:
    raw: Any = msgpack.unpackb(encode_frame(Call(1, a_head()), 3, HeadBook()), strict_map_key=False)
    request: list[Any] = msgpack.unpackb(raw[2])
    request[data.draw(st.integers(0, len(request) - 1))] = data.draw(anything)
    raw[2] = data.draw(st.sampled_from((msgpack.packb(request), msgpack.packb(request[:-1]), b"", None)))
    with suppress(CorruptBatch):
        decode_batch(sealed(msgpack.packb([1, 1, 0, [raw]]), 3), SPOKEN, HeadBook(), SEAL)


@pytest.mark.parametrize("header", [(b"a\nb", b"c"), (b"a", b"b\n"), (b"a", b"b", b"c"), (b"a",)])
@pytest.mark.parametrize("kind", [lambda lines: Call(1, a_head(headers=lines)), lambda lines: Start(1, 200, lines)])
def test_a_header_that_would_be_taken_for_others_is_not_sent(
    header: tuple[bytes, ...], kind: Callable[[Any], Frame]
) -> None:
    with pytest.raises(Unsendable):
        encode_frame(kind([(b"x", b"y"), header]), 3, HeadBook())


def test_what_is_read_once_is_the_same_for_every_call_but_for_what_may_be_changed() -> None:
    book = HeadBook()
    frames = [encode_frame(Call(number, a_head(trace=str(number))), 3, HeadBook()) for number in (1, 2)]
    first, second = decode_batch(encode_batch(3, 1, 1, 0, frames), SPOKEN, book).frames
    assert isinstance(first, Call)
    assert isinstance(second, Call)
    assert (first.head.trace, second.head.trace) == ("1", "2")
    assert first.head.headers is second.head.headers
    first.head.scope()["headers"].clear()
    assert second.head.scope()["headers"] == a_head().headers
    starts = [encode_frame(Start(number, 200, [(b"a", b"b")]), 3, HeadBook()) for number in (1, 2)]
    one, other = decode_batch(encode_batch(3, 1, 1, 0, starts), SPOKEN, book).frames
    assert isinstance(one, Start)
    assert isinstance(other, Start)
    one.headers.clear()
    assert other.headers == [(b"a", b"b")]


def test_a_head_book_forgets_rather_than_grow() -> None:
    ours, theirs = HeadBook(), HeadBook()
    heads = [a_head(path=f"/{number}") for number in range(3 * MAX_KNOWN)]
    calls = [Call(1, head) for head in heads]
    encoded = [msgpack.unpackb(encode_frame(call, 3, ours), strict_map_key=False) for call in calls]
    assert [decode_frame(raw, 3, theirs) for raw in encoded] == calls
    assert theirs.known <= 2 * MAX_KNOWN


@given(st.binary(max_size=200))
@example(b"")
@example(b"us")
def test_bytes_that_are_no_batch_are_foreign(payload: bytes) -> None:
    with pytest.raises((ForeignBatch, CorruptBatch, ForgedBatch)):
        decode_batch(payload, SPOKEN, HeadBook(), SEAL)


@given(frames, st.data())
def test_one_flipped_bit_is_noticed(frame: Frame, data: st.DataObject) -> None:
    seq = 0 if type(frame) in LOOSE else 1
    payload = bytearray(encode_batch(VERSION, 1, seq, 1, [encode_frame(frame, VERSION, HeadBook())], SEAL))
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[bit // 8] ^= 1 << bit % 8
    with pytest.raises((ForeignBatch, CorruptBatch, ForgedBatch)):
        decode_batch(bytes(payload), SPOKEN, HeadBook(), SEAL)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=9) | texts,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(texts | st.integers(0, 9), inner, max_size=3),
    max_leaves=20,
)


def sealed(body: bytes, version: int = 2) -> bytes:
    """`body` with a right checksum or seal."""
    if version > 3:
        return b"us" + bytes((version,)) + SEAL.seal(version, body)
    return b"us" + bytes((version,)) + zlib.crc32(body, version).to_bytes(4, "big") + body


@given(anything, st.sampled_from(ALL))
def test_any_msgpack_with_a_right_checksum_is_read_or_corrupt(value: Any, version: int) -> None:
    for body in (msgpack.packb(value), msgpack.packb([1, 1, 0, value]), msgpack.packb([1, 1, 0, [value]])):
        with suppress(CorruptBatch):
            decode_batch(sealed(body, version), SPOKEN, HeadBook(), SEAL)


@given(st.integers(1, 11), st.lists(anything, max_size=6), st.sampled_from(ALL))
def test_any_fields_of_any_kind_are_read_or_corrupt(kind: int, fields: list[Any], version: int) -> None:
    body = msgpack.packb([1, 0 if kind >= 10 else 1, 0, [[kind, *fields]]])
    with suppress(CorruptBatch):
        decode_batch(sealed(body, version), SPOKEN, HeadBook(), SEAL)


@given(st.data(), st.sampled_from((1, 2)))
def test_a_head_with_one_field_of_another_type_is_read_or_corrupt(data: st.DataObject, version: int) -> None:
    raw: Any = msgpack.unpackb(encode_frame(Call(1, a_head()), version, HeadBook()), strict_map_key=False)
    raw[2][data.draw(st.integers(0, len(raw[2]) - 1))] = data.draw(anything)
    with suppress(CorruptBatch):
        decode_batch(sealed(msgpack.packb([1, 1, 0, [raw]]), version), SPOKEN, HeadBook(), SEAL)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgpack.packb([1, 1, 0]),
        msgpack.packb([0, 1, 0, []]),
        msgpack.packb([1, -1, 0, []]),
        msgpack.packb([1, 1, MAX_NUMBER, []]),
        msgpack.packb([1, 1, True, []]),
        msgpack.packb([1, 1, 0, {}]),
        msgpack.packb([1, 1, 0, [[4, 1]] * 5000]),
        msgpack.packb([1, 1, 0, [[99, 1]]]),
        msgpack.packb([1, 1, 0, [[4, 0]]]),
        msgpack.packb([1, 1, 0, [[4, 1, 2]]]),
        msgpack.packb([1, 1, 0, [[5, 1, 99, [], b"", False]]]),
        msgpack.packb([1, 1, 0, [[5, 1, 200, [b"odd"], b"", False]]]),
        msgpack.packb([1, 1, 0, [[6, 1, "text", False]]]),
        msgpack.packb([1, 1, 0, [[9, 1, "x" * 257]]]),
        msgpack.packb([1, 1, 0, [[10, 1]]]),
        msgpack.packb([1, 0, 0, [[4, 1]]]),
        msgpack.packb([1, 1, 0, []]) + b"\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 3000,
    ],
)
def test_a_batch_of_a_wrong_shape_is_corrupt(body: bytes) -> None:
    with pytest.raises(CorruptBatch):
        decode_batch(sealed(body), SPOKEN, HeadBook(), SEAL)


def test_a_version_that_is_not_spoken_is_foreign() -> None:
    with pytest.raises(ForeignBatch, match="version 5"):
        decode_batch(sealed(msgpack.packb([1, 1, 0, []]), 5), SPOKEN, HeadBook(), SEAL)
    with pytest.raises(ForeignBatch):
        decode_batch(sealed(msgpack.packb([1, 1, 0, []]), 2), (1, 1), HeadBook())


class Plan(StrEnum):
    GOLD = "gold"


@pytest.mark.parametrize(
    "head",
    [
        a_head(tenant=TenantContext("acme", "bob", claims={"groups": {"a"}})),
        a_head(tenant=TenantContext("acme", "bob", claims={"pair": (1, 2)})),
        a_head(tenant=TenantContext("acme", "bob", claims={"huge": 2**70})),
        a_head(budget=math.inf),
        a_head(budget=math.nan),
        a_head(hops=256),
        a_head(hops=-1),
        a_head(path="/\ud800"),
        a_head(path=Plan.GOLD),
        a_head(headers=[(b"name", "text")]),
    ],
)
@pytest.mark.parametrize("version", ALL)
def test_a_head_that_the_other_end_would_refuse_is_not_sent(head: CallHead, version: int) -> None:
    # A batch that cannot be read would be sent again and again, and hold up all that comes after it.
    with pytest.raises(Unsendable):
        encode_frame(Call(1, head), version, HeadBook())


@pytest.mark.parametrize(
    "frame",
    [
        NotRunFrame(1, "x" * 257, {}),
        NotRunFrame(1, "busy", {1: 2}),  # type: ignore[dict-item]
        NotRunFrame(1, "busy", {"at": datetime(2026, 7, 1)}),
        NotRunFrame(1, "busy", {"of": object()}),
    ],
)
def test_a_refusal_that_the_other_end_would_not_read_is_not_sent(frame: Frame) -> None:
    with pytest.raises(Unsendable):
        encode_frame(frame, 2, HeadBook())


def test_claims_may_hold_a_time() -> None:
    moment = datetime(2026, 7, 1, tzinfo=UTC)
    frame = Call(1, a_head(tenant=TenantContext("acme", "bob", claims={"since": moment})))
    (back,) = carried([frame], 2)
    assert isinstance(back, Call)
    assert back.head.tenant.claims["since"] == moment


def test_contexts_that_differ_in_claims_only_are_told_apart() -> None:
    ours, theirs = TenantBook(), TenantBook()
    all_claims: list[dict[str, int]] = [{"n": 1}, {"n": 2}, {}, {"n": 1}]
    told = [theirs.unpack(ours.pack(TenantContext("acme", "bob", claims=claims))) for claims in all_claims]
    assert [dict(tenant.claims) for tenant in told] == all_claims


def test_claims_that_change_are_packed_as_they_are() -> None:
    book = TenantBook()
    claims = {"n": 1}
    tenant = TenantContext("acme", "bob", claims=claims)
    book.pack(tenant)
    claims["n"] = 2
    assert dict(book.unpack(book.pack(tenant)).claims) == {"n": 2}


def test_a_book_forgets_rather_than_grow() -> None:
    book = TenantBook()
    packed = [book.pack(TenantContext("acme", str(number))) for number in range(3000)]
    assert [book.unpack(one).principal for one in packed] == [str(number) for number in range(3000)]


@pytest.mark.parametrize(
    ("mine", "theirs", "common"),
    [((1, 2), (1, 2), 2), ((1, 2), (1, 1), 1), ((1, 2), (2, 3), 2), ((1, 1), (2, 2), None), ((2, 3), (1, 1), None)],
)
def test_two_nodes_speak_the_newest_version_that_both_know(
    mine: tuple[int, int], theirs: tuple[int, int], common: int | None
) -> None:
    assert negotiate(mine, theirs) == common
    assert negotiate(theirs, mine) == common


@pytest.mark.parametrize("versions", [(0, 1), (2, 1), (1, 5)])
def test_versions_that_this_code_does_not_speak_are_refused(versions: tuple[int, int]) -> None:
    with pytest.raises(ConfigurationError, match="link versions"):
        checked_versions(versions)


def test_the_scope_of_a_call_is_that_of_its_request() -> None:
    scope = a_head().scope()
    assert (scope["type"], scope["method"], scope["path"], scope["query_string"]) == ("http", "POST", "/mcp", b"a=1")
    assert scope["headers"] == a_head().headers
    assert scope["client"] == ("10.0.0.1", 5123)
