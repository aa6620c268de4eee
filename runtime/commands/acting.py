"""What `understudy session end`, `understudy drain`, `understudy rotate-keys` and `understudy tenant changed` do."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Any, Final

import click

from .console import plural, short_id
from .finding import Found
from .looking import find_session
from .operator import Operator
from .operator_errors import OperatorError

__all__ = ["drain_node", "end_session", "rotate_keys", "tell_tenant_changed"]

TRIES: Final = 10
PAUSE: Final = 0.3
LOOK_EVERY: Final = 0.25
TELL_EVERY: Final = 1.0
BEGIN: Final = 1.0
"""Seconds in which a drain has begun; the answer comes when it is over."""
KEYS_DEADLINE: Final = 10.0
"""Seconds that a new key is waited for."""


async def end_session(found: Found, given: str, *, as_json: bool) -> None:
    """End a session, wherever it is.

    Raises:
        NoCluster, NatsUnavailable, OperatorError: There is none, or its node does not answer.
    """
    async with Operator.reach(found) as operator:
        living = [seen.news.node for seen in await operator.living()]
        id = await find_session(operator, living, given)
        ended = await _end(operator, living, id)
    if not ended:
        raise OperatorError(f"there is no session {short_id(id)}")
    click.echo(json.dumps({"ended": short_id(id)}) if as_json else f"ended {short_id(id)}")


async def _end(operator: Operator, living: list[str], id: str) -> bool:
    node = living[0]
    error: OperatorError | None = None
    for attempt in range(TRIES):
        try:
            answer = await operator.ask(node, "end", id=id)
        except OperatorError as failed:
            # Its node may have died just now; others know that sooner or later.
            error, node = failed, living[attempt % len(living)]
            await asyncio.sleep(PAUSE)
            continue
        if "ended" in answer:
            return bool(answer["ended"])
        node = str(answer.get("elsewhere") or living[0])
    raise error or OperatorError(f"session {short_id(id)} keeps moving; try again in a moment")


async def drain_node(found: Found, node: str, *, undo: bool, wait: bool, as_json: bool) -> None:
    """Have a node move its sessions away, or take new ones again. With `wait`, tell how it goes until it is done.

    Raises:
        NoCluster, NatsUnavailable, OperatorError: There is no such node, or it refuses.
    """
    async with Operator.reach(found) as operator:
        if undo:
            status = await operator.ask(node, "undrain")
            _tell(as_json, {"node": node, **status}, f"{node} takes new sessions again")
            return
        before = await operator.ask(node, "status")
        with suppress(OperatorError):
            # It answers when all have moved, which may take longer than anybody waits for an answer.
            await operator.ask(node, "drain", timeout=BEGIN)
        status = await operator.ask(node, "status")
        if not status["draining"]:
            raise OperatorError(f"node {node!r} does not drain: {status['not_ready'] or 'it took the order back'}")
        if wait:
            status = await _until_empty(operator, node, status, quiet=as_json)
        alone = not any(seen.condition == "up" and seen.news.node != node for seen in await operator.nodes())
    gone = max(0, before["left"] - status["left"])
    done = status["left"] == 0
    left = f"{plural(gone, 'session')} {'left it for the store' if alone else 'moved'}"
    words = f"{node} is empty: {left}" if done else (
        f"{node} drains: {plural(status['left'], 'session')} to go (--wait tells when it is done)"
    )  # fmt: skip
    result = {"node": node, "draining": True, "left": status["left"], "moved": gone, "others": not alone}
    _tell(as_json, result, f"{words}; `understudy drain {node} --undo` has it take new ones" if done else words)
    if alone:
        click.echo("understudy: no other node takes sessions now: clients are refused (503) until one does", err=True)


async def _until_empty(operator: Operator, node: str, status: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    told = time.monotonic()
    while status["left"]:
        await asyncio.sleep(LOOK_EVERY)
        status = await operator.ask(node, "status")
        if not status["draining"]:
            raise OperatorError(f"node {node!r} does not drain any more: somebody took the order back")
        if not quiet and time.monotonic() - told >= TELL_EVERY:
            told = time.monotonic()
            click.echo(f"{node}: {plural(status['left'], 'session')} to go")
    return status


async def rotate_keys(found: Found, *, as_json: bool) -> None:
    """Have the cluster take a new key for `requestState` into use, and wait some seconds until all nodes have it.

    Raises:
        NoCluster, NatsUnavailable, OperatorError: There is none, or its keys are given by its operator.
    """
    async with Operator.reach(found) as operator:
        node = (await operator.living())[0].news.node
        keys = await operator.ask(node, "rotate_keys")
        begun = bool(keys["begun"])
        until = time.monotonic() + KEYS_DEADLINE
        while keys["changing"] and time.monotonic() < until:
            await asyncio.sleep(LOOK_EVERY)
            keys = await operator.ask(node, "keys")
    waiting = ", ".join(keys["waiting_for"]) or "no node any more"
    words = (
        f"a new key ({keys['opens'][-1]}) is opened with; it seals when all nodes have it, and waits for {waiting}"
        if keys["changing"]
        else f"requestState is sealed with a new key ({keys['seals']}); the old one opens for one more hour"
    )
    _tell(as_json, {**keys, "begun": begun}, words if begun else f"a change was under way already: {words}")


async def tell_tenant_changed(found: Found, tenant: str, *, as_json: bool) -> None:
    """Have the nodes of a cluster resolve a tenant anew.

    Raises:
        NoCluster, NatsUnavailable, OperatorError: There is none, or no node of it takes the order.
    """
    async with Operator.reach(found) as operator:
        error: OperatorError | None = None
        for seen in (await operator.living())[:TRIES]:
            try:
                answer = await operator.ask(seen.news.node, "tenant_changed", tenant=tenant)
                break
            except OperatorError as failed:
                # It may have died just now, or be of a version that does not know of this.
                error = failed
        else:
            raise error or OperatorError("no node of the cluster is alive")
    nodes = [str(node) for node in answer["nodes"]]
    _tell(as_json, answer, f"tenant {tenant!r} is resolved anew at {', '.join(nodes)}")


def _tell(as_json: bool, value: dict[str, Any], words: str) -> None:
    click.echo(json.dumps(value) if as_json else words)
