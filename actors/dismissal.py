"""Actors that leave because somebody asks: for good, to sleep, or for another node. The answer tells what came of it.

Who asks may be cancelled; the actor leaves all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from ..stores import Address, StoreUnavailable
from .actor import ActorKind
from .cell import LiveCell
from .departure import Departure
from .errors import ActorError, ActorUnavailable, Elsewhere, OwnershipLost
from .host import Host
from .lifecycle import State, leave

__all__ = ["end", "hand_off", "passivate"]

Cells = Mapping[Address, LiveCell]
"""Those of the node, as they come and go."""


async def end(address: Address, cells: Cells, host: Host, kind_at: Callable[[Address], ActorKind]) -> bool:
    """See `Registry.end`. `kind_at` raises `UnknownKind`."""
    gate = host.gate
    if gate is not None and not gate.may_run():
        raise Elsewhere(address)
    while (cell := cells.get(address)) is not None:
        leave(cell, Departure.ENDED)
        activating = cell.state is State.ACTIVATING
        try:
            ended = await asyncio.shield(cell.when_left())
        except ActorError as error:
            if cell.departure is Departure.ENDED and not activating:
                if gate is not None and isinstance(error, OwnershipLost):
                    raise Elsewhere(address) from error
                raise
        except Exception:
            if not activating:
                raise
        else:
            if cell.departure is Departure.ENDED:
                return ended
    if gate is not None and not (gate.may_run() and gate.may_claim(address)):
        raise Elsewhere(address)
    if not kind_at(address).durable:
        return False
    try:
        return await host.storage.delete(address)
    except StoreUnavailable as error:
        raise ActorUnavailable(
            f"the record of {address} may still be there: {error}",
            address,
            retry_after=error.retry_after,
            outcome_unknown=error.outcome_unknown,
        ) from error


async def passivate(address: Address, cells: Cells, host: Host) -> bool:
    """See `Registry.passivate`."""
    cell = cells.get(address)
    if cell is None or cell not in host.idle:
        return False
    leave(cell, Departure.PASSIVATED)
    await asyncio.shield(cell.when_left())
    return True


async def hand_off(address: Address, cells: Cells) -> bool:
    """See `Registry.hand_off`."""
    cell = cells.get(address)
    while cell is not None:
        leave(cell, Departure.HANDED_OFF)
        with suppress(Exception):
            await asyncio.shield(cell.when_left())
        if cell.departure is Departure.HANDED_OFF and cell.state is State.LEAVING:
            return True
        # What waited has brought it back, unless it is gone for good.
        cell = cells.get(address)
    return False
