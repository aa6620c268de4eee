"""`store stat`: what is in a store, counted in one walk over its records, in bounded memory."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import click

from ...stores import SessionStore
from ...stores.record import RecordInfo
from ..commands.console import age, size, table
from .reaching import opened

__all__ = ["MOST_TENANTS", "Tally", "count"]

PAGE = 1000

MOST_TENANTS = 100_000
"""Tenants that are counted apart; of more, those that have the most sessions are found, their numbers not exactly."""


class Tally:
    """Counts records by kind and tenant.

    Beyond `most` tenants it is the algorithm of Misra and Gries: a tenant with more than one in `most` of the sessions
    is among those kept, and its count is too low by at most `missed`.
    """

    def __init__(self, now: float, soon: float, most: int = MOST_TENANTS) -> None:
        self._now = now
        self._soon = soon
        self._most = most
        self.sessions = 0
        self.expiring = 0
        self.oldest: float | None = None
        self.idle: float | None = None
        self.kinds: Counter[str] = Counter()
        self.tenants: Counter[str] = Counter()
        self.missed = 0

    def add(self, record: RecordInfo) -> None:
        """Count one record."""
        self.sessions += 1
        self.expiring += record.expires - self._now <= self._soon
        self.oldest = record.created if self.oldest is None else min(self.oldest, record.created)
        self.idle = record.updated if self.idle is None else min(self.idle, record.updated)
        # A kind is one of a program's words, so there are few; were there many, they would be counted together.
        kind = record.address.kind
        self.kinds[kind if kind in self.kinds or len(self.kinds) < 1000 else "..."] += 1
        if record.tenant in self.tenants or len(self.tenants) < self._most:
            self.tenants[record.tenant] += 1
            return
        self.missed += 1
        self.tenants = Counter({tenant: count - 1 for tenant, count in self.tenants.items() if count > 1})


async def count(url: str, *, top: int, soon: float, as_json: bool) -> None:
    """Print what is in the store at `url`.

    Raises:
        NoStore, StoreError: As `opened`.
    """
    now = time.time()
    async with opened(url) as (store, layout, inspector):
        sizes = dict(await inspector.sizes())
        tally = await _counted(store, Tally(now, soon))
    if as_json:
        found: dict[str, Any] = {
            "store": layout.where,
            "format": layout.version,
            "sessions": tally.sessions,
            "expiring_soon": tally.expiring,
            "soon_seconds": soon,
            "oldest_created": tally.oldest,
            "oldest_updated": tally.idle,
            "kinds": dict(tally.kinds),
            "tenants": len(tally.tenants),
            "tenants_exact": not tally.missed,
            "top_tenants": dict(tally.tenants.most_common(top)),
            "sizes": sizes,
        }
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{layout.where}, format {layout.version}")
    rows: list[tuple[str, object]] = [("sessions", tally.sessions), *((f"  {k}", n) for k, n in _largest(tally.kinds))]
    rows.append((f"expire within {age(soon)}", tally.expiring))
    if tally.oldest is not None and tally.idle is not None:
        rows += [("oldest was opened", f"{age(now - tally.oldest)} ago")]
        rows += [("longest unchanged", f"{age(now - tally.idle)}")]
    rows += [(name.replace("_", " "), size(n) if name.endswith("bytes") else n) for name, n in sizes.items()]
    click.echo(table(("WHAT", "HOW MUCH"), rows, right_from=1))
    if tally.tenants:
        click.echo()
        click.echo(table(("TENANT", "SESSIONS"), tally.tenants.most_common(top), right_from=1))
        more = len(tally.tenants) - top
        if tally.missed:
            click.echo(f"of more than {MOST_TENANTS} tenants; the numbers are too low by up to {tally.missed}")
        elif more > 0:
            click.echo(f"and {more} more")


async def _counted(store: SessionStore, tally: Tally) -> Tally:
    cursor: str | None = None
    while True:
        page = await store.list(cursor=cursor, limit=PAGE)
        for record in page.records:
            tally.add(record)
        cursor = page.cursor
        if cursor is None:
            return tally


def _largest(counts: Counter[str]) -> list[tuple[str, int]]:
    return counts.most_common(20)
