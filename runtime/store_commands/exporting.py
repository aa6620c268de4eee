"""`store export`: the sessions of a store as JSON lines, their state readable, in bounded memory."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any, cast

import click

from ...actors.errors import SnapshotError
from ...actors.session import SESSION, SessionSnapshot
from ...actors.session.state import unpack_state
from ...stores import KeyRing, Record, SessionStore, StoreCorrupt, StoreVersionError
from ...stores.encryption import Encryption
from ...stores.seal import Place, is_sealed
from .reaching import opened

__all__ = ["as_json_value", "export_lines"]

Line = dict[str, Any]

PAGE = 200
AT_ONCE = 8
"""Snapshots that are read, and in memory, at a time."""


async def export_lines(url: str, *, tenant: str | None, keys: Path | None) -> int:
    """Print the sessions, and return the exit code: 1 if some could not be read.

    Raises:
        NoStore, StoreError: As `opened`; or the store fails in the middle.
        KeyRingError: `keys` is no file of keys.
    """
    encryption = None if keys is None else Encryption(KeyRing.from_file(keys), allow_plain=True)
    unreadable = 0
    async with opened(url) as (store, _, _), aclosing(_lines(store, encryption, tenant)) as lines:
        async for line in lines:
            unreadable += "error" in line
            sys.stdout.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()
    if unreadable:
        click.echo(f"understudy: {unreadable} could not be read; they are printed with what is stored", err=True)
    return 1 if unreadable else 0


def as_json_value(value: Any) -> Any:
    """A value of a session's state as JSON can say it, nothing lost; see `understudy store export --help`."""
    if isinstance(value, bytes):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, float) and not isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, list):
        return [as_json_value(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        items = list(cast("dict[Any, Any]", value).items())
        if all(isinstance(key, str) for key, _ in items) and not (len(items) == 1 and items[0][0] in _MARKS):
            return {key: as_json_value(item) for key, item in items}
        return {"$map": [[as_json_value(key), as_json_value(item)] for key, item in items]}
    return value


_MARKS = ("$bytes", "$datetime", "$float", "$map")


async def _lines(store: SessionStore, encryption: Encryption | None, tenant: str | None) -> AsyncGenerator[Line]:
    cursor: str | None = None
    while True:
        page = await store.list(tenant=tenant, cursor=cursor, limit=PAGE)
        for start in range(0, len(page.records), AT_ONCE):
            some = page.records[start : start + AT_ONCE]
            for record in await asyncio.gather(*(store.load(info.address) for info in some)):
                # Some end between the page and the load.
                if record is not None:
                    yield await _line(record, encryption)
        cursor = page.cursor
        if cursor is None:
            return


async def _line(record: Record, encryption: Encryption | None) -> Line:
    sealed = is_sealed(record.snapshot)
    line: Line = {
        "kind": record.address.kind,
        "id": record.address.id,
        "tenant": record.tenant,
        "epoch": record.epoch,
        "version": record.version,
        "owner": record.owner,
        "created": record.created,
        "updated": record.updated,
        "expires": record.expires,
        "encrypted": sealed,
    }
    if sealed and encryption is None:
        why = "it is encrypted: name its keys with --encryption-keys FILE"
        return line | {"error": why, "snapshot": as_json_value(record.snapshot)}
    try:
        plain = record.snapshot
        if encryption is not None:
            place = Place(record.address, record.tenant, "snapshot", record.version)
            plain = await encryption.opened(place, plain, names_tenant=False)
        if record.address.kind != SESSION:
            return line | {"snapshot": as_json_value(plain)}
        return line | _session(plain)
    except (SnapshotError, StoreCorrupt, StoreVersionError) as error:
        return line | {"error": str(error), "snapshot": as_json_value(record.snapshot)}


def _session(packed: bytes) -> Line:
    snapshot = SessionSnapshot.unpack(packed)
    return {
        "origin": snapshot.origin,
        "principal": snapshot.principal,
        "protocol": snapshot.protocol_version,
        "client": snapshot.client.decode(errors="replace"),
        "log_level": snapshot.log_level,
        "subscriptions": list(snapshot.subscriptions),
        "state": as_json_value(unpack_state(snapshot.state)),
    }
