"""What `understudy nodes`, `sessions` and `session show` find out and print."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from .console import age, plural, short_id, table
from .finding import Found, NoCluster
from .operator import Operator
from .operator_errors import OperatorError

__all__ = ["find_session", "show_node_table", "show_nodes", "show_session", "show_sessions"]

PAGE = 500
WHOLE_ID = 32
"""Characters of an id as understudy makes them."""
SHORTEST_PREFIX = 6
MOST_SEARCHED = 200_000
"""Sessions that are looked at for one prefix."""

SHOWN = 40
_ID = re.compile(r"[\x21-\x7e]{1,128}")

_ASLEEP = {"node": None, "state": "asleep", "waiting": 0, "reading": 0}


async def show_nodes(found: Found, *, as_json: bool) -> None:
    """Print the cluster's nodes.

    Raises:
        NoCluster, NatsUnavailable: They cannot be seen.
    """
    async with Operator.reach(found) as operator:
        nodes = await operator.nodes()
    rows: list[dict[str, Any]] = [
        {
            "node": seen.news.node,
            "state": seen.condition,
            "url": seen.news.url,
            "pid": seen.news.pid,
            "host": seen.news.host,
            "sessions": seen.news.sessions,
            "capacity": seen.news.capacity,
            "draining": seen.news.draining,
            "lease_age": round(seen.age, 3),
            "lease": seen.news.lease,
            "incarnation": seen.news.incarnation,
            "version": seen.news.build,
            "link_versions": list(seen.news.versions),
        }
        for seen in nodes
    ]
    if as_json:
        click.echo(json.dumps({"cluster": operator.names.cluster, "nodes": rows}, indent=2))
    elif rows:
        click.echo(show_node_table(rows))
    else:
        click.echo(f"cluster {operator.names.cluster} has no nodes at the moment")


def show_node_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The nodes as a table."""
    headers = ("NODE", "STATE", "PID", "URL", "SESSIONS", "LEASE AGE", "INCARNATION", "VERSION")
    return table(
        headers,
        [
            (
                row["node"], row["state"], row["pid"], row["url"], row["sessions"], age(row["lease_age"]),
                row["incarnation"].rpartition(".")[2], row["version"],
            )
            for row in rows
        ],
    )  # fmt: skip


async def show_sessions(
    found: Found, *, tenant: str | None, node: str | None, limit: int, full: bool, as_json: bool
) -> None:
    """Print sessions: those in memory at `node`, or, without, all that the store has.

    Raises:
        NoCluster, NatsUnavailable, OperatorError: They cannot be seen.
    """
    async with Operator.reach(found) as operator:
        living = [seen.news.node for seen in await operator.living()]
        if node is not None:
            answer = await operator.ask(node, "sessions", tenant=tenant, limit=min(limit, PAGE))
            rows = [_live_row(node, look) for look in answer["sessions"]]
            more = answer["total"] > len(rows)
        else:
            rows, more = await _all_sessions(operator, living, tenant, limit)
    for row in rows:
        row["id"] = short_id(row["id"], full=full)
    if as_json:
        click.echo(json.dumps({"cluster": operator.names.cluster, "sessions": rows, "more": more}, indent=2))
        return
    now = time.time()
    headers = ("SESSION", "TENANT", "STATE", "NODE", "WAITING", "EPOCH", "VERSION", "SAVED", "EXPIRES")
    cells = [
        (
            row["id"], row["tenant"], row["state"], row["node"], row["waiting"], row["epoch"], row["version"],
            f"{age(now - row['updated'])} ago" if "updated" in row else None,
            f"in {age(row['expires'] - now)}" if "expires" in row else None,
        )
        for row in rows
    ]  # fmt: skip
    click.echo(table(headers, cells) if rows else "no sessions")
    if more:
        how = (
            "--limit and --tenant" if node is None or len(rows) < PAGE else f"--tenant (a node tells of {PAGE} at most)"
        )
        click.echo(f"... and there are more than {plural(len(rows), 'session')}; see {how}")


async def _all_sessions(
    operator: Operator, living: Sequence[str], tenant: str | None, limit: int
) -> tuple[list[dict[str, Any]], bool]:
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = await _ask_any(
            operator, living, "records", tenant=tenant, cursor=cursor, limit=min(PAGE, limit - len(rows))
        )
        ids = [record["id"] for record in page["records"]]
        live = await _live(operator, living, ids) if ids else {}
        rows += [{**record, **_ASLEEP, **live.get(record["id"], {})} for record in page["records"]]
        cursor = page["cursor"]
        if cursor is None or len(rows) >= limit:
            return rows, cursor is not None


async def _live(operator: Operator, living: Iterable[str], ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What is known of those of `ids` that are in memory somewhere. Nodes that do not answer are passed over."""
    looks: dict[str, dict[str, Any]] = {}
    for node, answer in (await operator.ask_all(living, "sessions", ids=list(ids))).items():
        if isinstance(answer, OperatorError):
            click.echo(f"understudy: {answer}", err=True)
            continue
        for look in answer["sessions"]:
            known = looks.get(look["id"])
            # While a session moves two nodes may have it in memory; the later epoch is the writer's.
            if known is None or known["epoch"] < look["epoch"]:
                looks[look["id"]] = _live_row(node, look)
    return looks


def _live_row(node: str, look: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": look["id"],
        "tenant": look["tenant"],
        "node": node,
        "state": "busy" if look["busy"] else "idle",
        "waiting": look["waiting"],
        "reading": look["reading"],
        "epoch": look["epoch"],
        "version": look["version"],
    }


async def _ask_any(operator: Operator, living: Sequence[str], op: str, **fields: Any) -> dict[str, Any]:
    """What the first node answers that does."""
    error: OperatorError | None = None
    for node in living:
        try:
            return await operator.ask(node, op, **fields)
        except OperatorError as failed:
            error = failed
    raise error or NoCluster("no node is alive")


async def find_session(operator: Operator, living: Sequence[str], given: str) -> str:
    """The whole id that `given` is, or begins.

    Raises:
        OperatorError: There is none, or several begin so, or it is too short.
    """
    if len(given) < SHORTEST_PREFIX:
        raise OperatorError(f"{given!r} is too short for a session's id: give at least {SHORTEST_PREFIX} characters")
    if _ID.fullmatch(given) is None:
        shown = given if len(given) <= SHOWN else f"{given[:SHOWN]}..."
        raise OperatorError(f"{shown!r} is no session's id: that is at most 128 visible ASCII characters")
    if len(given) >= WHOLE_ID:
        return given
    found: list[str] = []
    cursor: str | None = None
    for _ in range(MOST_SEARCHED // PAGE):
        page = await _ask_any(operator, living, "records", prefix=given, cursor=cursor, limit=PAGE)
        found += [record["id"] for record in page["records"]]
        cursor = page["cursor"]
        if len(found) > 1:
            raise OperatorError(f"more than one session begins with {given!r}: give more of its id")
        if cursor is None:
            break
    else:
        raise OperatorError(
            f"there are too many sessions to find the one that begins with {given!r}: give its whole id"
        )
    if not found:
        raise OperatorError(f"there is no session that begins with {given!r}")
    return found[0]


async def show_session(found: Found, given: str, *, full: bool, as_json: bool) -> None:
    """Print one session.

    Raises:
        NoCluster, NatsUnavailable, OperatorError: There is none, or it cannot be seen.
    """
    async with Operator.reach(found) as operator:
        living = [seen.news.node for seen in await operator.living()]
        id = await find_session(operator, living, given)
        answer = await _ask_any(operator, living, "session", id=id)
        node = answer["owner"].rpartition(".")[0] or None
        if answer["live"] is None and node in living:
            answer = {**answer, "live": (await operator.ask(node, "session", id=id))["live"]}
    record, live = answer["record"], answer["live"]
    if record is None and live is None:
        raise OperatorError(f"there is no session {short_id(id)}")
    said: dict[str, Any] = {
        **(record if record is not None else {"tenant": live["tenant"] if live is not None else None}),
        "id": short_id(id, full=full),
        "node": node if live is not None else None,
        "state": "asleep" if live is None else "busy" if live["busy"] else "idle",
        "waiting": 0 if live is None else live["waiting"],
        "reading": 0 if live is None else live["reading"],
    }
    if as_json:
        click.echo(json.dumps(said, indent=2))
        return
    now = time.time()
    lines = [("session", said["id"]), ("tenant", said["tenant"]), ("state", said["state"]), ("node", said["node"])]
    lines += [("waiting", said["waiting"]), ("reading", said["reading"])]
    if record is not None:
        lines += [(name, record[name]) for name in ("epoch", "version")]
        lines += [("last owner", record["owner"]), ("opened", f"{age(now - record['created'])} ago")]
        lines += [("saved", f"{age(now - record['updated'])} ago"), ("expires", f"in {age(record['expires'] - now)}")]
    for name, value in lines:
        click.echo(f"{name:<12}{'-' if value is None else value}")
