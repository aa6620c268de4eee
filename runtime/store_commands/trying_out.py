"""`store check`: everything that a node does to a store, done once, to a session of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Literal, TypeVar

import click

from ...stores import Address, RecordNotFound, SessionStore, StaleEpoch, StoreError, StoreURLError, event_log_of
from ..commands.operator_errors import OperatorError
from .reaching import opened

__all__ = ["try_out"]

T = TypeVar("T")

WELL, WARNINGS, BROKEN = 0, 1, 2

_OWNER = "understudy store check"
_TENANT = "understudy-check"
_SHORT = 0.2
"""Seconds that the session lives in the end."""
_PATIENCE = 2.0
"""Seconds after its end that it may take to be gone: clocks of two machines differ by less, or by far too much."""


class Broken(OperatorError):
    """The store answers, but not what it must."""


class Trial:
    """The steps, with the seconds that each took."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self.under_way = "connect"

    async def step(self, name: str, work: Awaitable[T]) -> T:
        """Await `work` and note how long it took."""
        self.under_way = name
        began = time.perf_counter()
        result = await work
        self.times[name] = time.perf_counter() - began
        return result


async def try_out(url: str, *, as_json: bool, timeout: float) -> int:
    """Try the store at `url`, print how that went, and return the exit code.

    Raises:
        StoreURLError: `url` cannot be understood.
    """
    trial = Trial()
    found: dict[str, Any] = {"store": None, "format": None}
    warnings: tuple[str, ...] = ()
    error: str | None = None
    began = time.perf_counter()
    try:
        async with asyncio.timeout(timeout), opened(url) as (store, layout, _):
            trial.times["connect"] = time.perf_counter() - began
            found = {"store": layout.where, "format": layout.version}
            warnings = layout.warnings
            await _round(store, trial)
    except StoreURLError:
        raise
    except (StoreError, OperatorError) as failure:
        error = str(failure)
    except TimeoutError:
        error = f"it took longer than {timeout:g} s and was given up; give it more with --timeout"
    verdict: Literal["broken", "warnings", "well"] = "broken" if error else "warnings" if warnings else "well"
    failed = trial.under_way if error else None
    if as_json:
        seconds = {name: round(taken, 6) for name, taken in trial.times.items()}
        click.echo(
            json.dumps(
                found
                | {"verdict": verdict, "failed": failed, "error": error, "warnings": warnings, "seconds": seconds},
                indent=2,
            )
        )
    else:
        if found["store"] is not None:
            click.echo(f"{found['store']}, format {found['format']}")
        for name, taken in trial.times.items():
            click.echo(f"  {name:<8}{taken * 1000:9.1f} ms")
        for warning in warnings:
            click.echo(f"warning: {warning}")
        click.echo(
            f"broken at {failed}: {error}" if error else {"warnings": "it works", "well": "all is well"}[verdict]
        )
    return {"well": WELL, "warnings": WARNINGS, "broken": BROKEN}[verdict]


async def _round(store: SessionStore, trial: Trial) -> None:
    address = Address.new("check")
    try:
        await _live(store, address, trial)
    except BaseException:
        # What is left would go by itself a minute later.
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(2.0):
                await store.delete(address)
        raise


async def _live(store: SessionStore, address: Address, trial: Trial) -> None:
    await trial.step("ping", store.ping())
    await trial.step("create", store.create(address, tenant=_TENANT, owner=_OWNER, snapshot=b"one", ttl=60.0))
    claimed = await trial.step("claim", store.claim(address, owner=_OWNER))
    _demand(
        (claimed.epoch, claimed.version, claimed.snapshot) == (2, 1, b"one"), "a claim did not return what is there"
    )
    await trial.step("save", store.save(address, epoch=2, version=2, snapshot=b"two", ttl=60.0))
    await trial.step("touch", store.touch(address, epoch=2, ttl=120.0))
    loaded = await trial.step("load", store.load(address))
    _demand(loaded is not None and loaded.snapshot == b"two", "a load did not return what was saved")
    await trial.step("fence", _fence(store, address))
    await trial.step("list", store.list(tenant=_TENANT, limit=100))
    log = event_log_of(store)
    if log is not None:
        await trial.step("append", log.append(address, "check", 1, [b"one"], head=b"", writer="check"))
        logged = await trial.step("read", log.read(address, "check"))
        _demand(logged is not None and logged.events == (b"one",), "the event log did not return what was appended")
        await trial.step("drop", log.drop_all(address))
    await trial.step("expire", _expire(store, address))
    await trial.step("sweep", store.expire(limit=100))


async def _fence(store: SessionStore, address: Address) -> None:
    try:
        await store.save(address, epoch=1, version=2, snapshot=b"late", ttl=60.0)
    except StaleEpoch:
        return
    raise Broken("a save of a former owner was taken: two nodes could write one session")


async def _expire(store: SessionStore, address: Address) -> None:
    await store.save(address, epoch=2, version=3, snapshot=b"three", ttl=_SHORT)
    await asyncio.sleep(_SHORT)
    deadline = time.monotonic() + _PATIENCE
    while await store.load(address) is not None:
        _demand(
            time.monotonic() < deadline, f"a session is still there {_PATIENCE:g} s after its end: look at the clocks"
        )
        await asyncio.sleep(0.01)
    with suppress(RecordNotFound):
        await store.claim(address, owner=_OWNER)
        raise Broken("a session that has expired can be claimed")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)
