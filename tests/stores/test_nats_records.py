"""How records are written in NATS: what was ever written stays readable."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from understudy.stores import Address, RecordInfo, StoreCorrupt, StoreVersionError
from understudy.stores.nats.records import Head, Parts, address_of, pack_head, part_prefix, record_key, unpack_head

ADDRESS = Address("session", "abc.DEF/1")
INFO = RecordInfo(ADDRESS, "acme", 7, 42, "node-1", 1_800_000_000.0, 1_800_000_001.5, 1_800_086_400.25)

GOLDEN = {
    "one message": (
        Head(INFO, b"snapshot"),
        "9901a461636d65072aa66e6f64652d31cb41dad27480000000cb41dad27480600000cb41dad2c8e0100000c408736e617073686f74",
    ),
    "parts": (
        Head(INFO, Parts("0123456789abcdef", 3, 2_500_000)),
        "9901a461636d65072aa66e6f64652d31cb41dad27480000000cb41dad27480600000cb41dad2c8e010000093b0303132333435363738"
        "3961626364656603ce002625a0",
    ),
}
"""Format 1. Never to be changed: sessions of running clusters look like this."""

ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)
kinds = st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)
times = st.floats(0, 1e12)
counts = st.integers(1, 2**63)


@pytest.mark.parametrize(("head", "value"), GOLDEN.values(), ids=GOLDEN.keys())
def test_a_record_is_written_as_it_always_was(head: Head, value: str) -> None:
    assert pack_head(head).hex() == value
    assert unpack_head("s.80.session.abc=2eDEF=2f1", bytes.fromhex(value)) == head


def test_a_key_is_what_it_always_was() -> None:
    assert record_key(ADDRESS) == "s.80.session.abc=2eDEF=2f1"
    assert part_prefix(ADDRESS, "0123456789abcdef") == "p.80.session.abc=2eDEF=2f1.0123456789abcdef"


@given(kinds, ids)
def test_a_key_holds_its_address_in_characters_that_nats_takes(kind: str, id: str) -> None:
    address = Address.checked(kind, id)
    key = record_key(address)
    assert address_of(key) == address
    assert set(key) <= set("-/_=.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    assert len(key) < 512


@given(kinds, ids, texts, texts, counts, counts, times, times, times, st.binary(max_size=100))
def test_a_record_comes_back_as_it_was(
    kind: str, id: str, tenant: str, owner: str, epoch: int, version: int, a: float, b: float, c: float, body: bytes
) -> None:
    head = Head(RecordInfo(Address(kind, id), tenant, epoch, version, owner, a, b, c), body)
    assert unpack_head(record_key(head.info.address), pack_head(head)) == head


@given(st.binary(max_size=200))
def test_no_bytes_are_read_as_a_record_by_chance_or_crash_the_reader(value: bytes) -> None:
    with pytest.raises((StoreCorrupt, StoreVersionError)):
        unpack_head(record_key(ADDRESS), value)


@given(st.integers(0, 52), st.integers(0, 255))
def test_a_changed_byte_is_a_record_or_an_error_of_ours(place: int, byte: int) -> None:
    value = bytearray.fromhex(GOLDEN["one message"][1])
    value[place] = byte
    with contextlib.suppress(StoreCorrupt, StoreVersionError):
        assert isinstance(unpack_head(record_key(ADDRESS), bytes(value)), Head)


@pytest.mark.parametrize("key", ["", "s", "ping", "s.00.session.x", "s.80.session", "s.80.session.a.b", "s.80.X.a"])
def test_a_key_of_somebody_else_is_no_address(key: str) -> None:
    with pytest.raises(StoreCorrupt):
        address_of(key)
