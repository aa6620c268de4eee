"""The stored form of a session: each version ever written can be read, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from understudy.actors.errors import SnapshotError, SnapshotTooNew
from understudy.actors.session import SessionSnapshot
from understudy.actors.session.snapshot import SNAPSHOT_VERSION
from understudy.actors.session.state import pack_state, unpack_state

GOLDEN = Path(__file__).with_name("golden")

HANDSHAKE = SessionSnapshot(
    origin="handshake",
    tenant="acme",
    principal="ada@acme.example",
    protocol_version="2025-11-25",
    client=b'{"protocolVersion":"2025-11-25","capabilities":{"roots":{}},"clientInfo":{"name":"c","version":"1"}}',
    log_level="warning",
    subscriptions=("demo://a", "demo://ü"),
    state=pack_state(
        {
            "none": None,
            "yes": True,
            "count": 3,
            "large": 2**64 - 1,
            "small": -(2**63),
            "ratio": 0.5,
            "text": "tea at four ☕",
            "bytes": b"\x00\xff",
            "when": datetime(2026, 7, 28, 16, 0, 0, 250_000, tzinfo=UTC),
            "facts": ["one", {"two": [2, {}]}],
        },
        2**20,
    ),
)
HANDLE = SessionSnapshot(origin="handle", tenant="anonymous", principal="anonymous", protocol_version="2026-07-28")
UPDATED = replace(HANDLE, updates=("evt_1", "evt_2"))
SAMPLES = [("handshake", HANDSHAKE), ("handle", HANDLE), ("updated", UPDATED)]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
snapshots = st.builds(
    SessionSnapshot,
    origin=st.sampled_from(["handshake", "handle"]),
    tenant=texts,
    principal=texts,
    protocol_version=texts,
    client=st.binary(max_size=50),
    log_level=st.none() | texts,
    subscriptions=st.lists(texts, max_size=4).map(tuple),
    updates=st.lists(texts, max_size=4).map(tuple),
    state=st.dictionaries(texts, st.integers(0, 9) | texts, max_size=4).map(lambda state: pack_state(state, 2**20)),
)


@pytest.mark.parametrize(("name", "snapshot"), SAMPLES)
def test_a_snapshot_of_version_1_is_read_as_it_was_written(name, snapshot):
    stored = bytes.fromhex((GOLDEN / f"snapshot-1-{name}.hex").read_text())
    assert SessionSnapshot.unpack(stored) == snapshot
    assert unpack_state(SessionSnapshot.unpack(stored).state) == unpack_state(snapshot.state)


@pytest.mark.parametrize(("name", "snapshot"), SAMPLES)
def test_what_is_written_now_is_version_1_to_the_byte(name, snapshot):
    """Fails when the form changes: then raise SNAPSHOT_VERSION and store a sample of the new version beside this."""
    assert SNAPSHOT_VERSION == 1
    assert snapshot.pack().hex() == (GOLDEN / f"snapshot-1-{name}.hex").read_text().strip()


@given(snapshots)
def test_a_snapshot_comes_back_equal(snapshot):
    assert SessionSnapshot.unpack(snapshot.pack()) == snapshot


def fields(**changes: Any) -> dict[str, Any]:
    return {**msgpack.unpackb(HANDSHAKE.pack()), **changes}


def test_unknown_keys_are_ignored():
    packed = msgpack.packb(fields(invented_later={"deep": [1]}, node="b"))
    assert SessionSnapshot.unpack(packed) == HANDSHAKE


@pytest.mark.parametrize("version", [SNAPSHOT_VERSION + 1, 99, 2**63])
def test_a_newer_version_is_told_apart_from_damage(version):
    with pytest.raises(SnapshotTooNew, match=rf"version {version}, written by a newer understudy"):
        SessionSnapshot.unpack(msgpack.packb({"v": version, "all": "different"}))


def test_a_truncated_snapshot_is_refused():
    whole = HANDSHAKE.pack()
    for length in range(len(whole)):
        with pytest.raises(SnapshotError):
            SessionSnapshot.unpack(whole[:length])


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage):
    with pytest.raises(SnapshotError):
        SessionSnapshot.unpack(garbage)


@given(st.integers(0, len(HANDSHAKE.pack()) - 1), st.integers(0, 255))
def test_a_flipped_byte_is_refused_or_gives_a_whole_snapshot(position, byte):
    damaged = bytearray(HANDSHAKE.pack())
    damaged[position] = byte
    try:
        snapshot = SessionSnapshot.unpack(bytes(damaged))
    except SnapshotError:
        return
    assert isinstance(unpack_state(snapshot.state), dict)
    assert SessionSnapshot.unpack(snapshot.pack()) == snapshot


def test_more_bytes_than_the_snapshot_has_are_refused():
    with pytest.raises(SnapshotError, match="not msgpack"):
        SessionSnapshot.unpack(HANDSHAKE.pack() + b"\x00")


@pytest.mark.parametrize("packed", [[], "text", 1, None, b"bytes"])
def test_what_is_no_map_is_refused(packed):
    with pytest.raises(SnapshotError, match="must be a msgpack map, not"):
        SessionSnapshot.unpack(msgpack.packb(packed))


@pytest.mark.parametrize("version", [0, -1, "1", None, 1.0, True])
def test_a_version_that_is_no_positive_number_is_refused(version):
    with pytest.raises(SnapshotError, match="it must be a positive number") as refused:
        SessionSnapshot.unpack(msgpack.packb(fields(v=version)))
    assert not isinstance(refused.value, SnapshotTooNew)


@pytest.mark.parametrize("name", [name for name in fields() if name != "v"])
def test_a_missing_field_is_refused_by_name(name):
    some = fields()
    del some[name]
    with pytest.raises(SnapshotError, match=f"damaged.*{name}"):
        SessionSnapshot.unpack(msgpack.packb(some))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("origin", "elsewhere"),
        ("origin", ["handshake"]),
        ("tenant", None),
        ("tenant", b"acme"),
        ("principal", 1),
        ("protocol", None),
        ("client", "text"),
        ("client", None),
        ("log_level", 3),
        ("log_level", b"info"),
        ("subscriptions", None),
        ("subscriptions", "demo://a"),
        ("subscriptions", {"demo://a": 1}),
        ("subscriptions", ["demo://a", 2]),
        ("state", {"count": 1}),
        ("state", "text"),
        ("state", b""),
        ("state", b"\xc1"),
        ("state", msgpack.packb([1])),
        ("state", HANDSHAKE.state[:-1]),
    ],
)
def test_a_field_of_another_type_is_refused(name, value):
    with pytest.raises(SnapshotError, match="damaged"):
        SessionSnapshot.unpack(msgpack.packb(fields(**{name: value})))


def test_a_state_with_other_keys_than_str_is_refused():
    with pytest.raises(SnapshotError, match="damaged"):
        SessionSnapshot.unpack(replace(HANDSHAKE, state=msgpack.packb({1: 2})).pack())
