"""Asking a session whether it answers to a principal."""

from __future__ import annotations

from ...stores import Address
from ..actor import Access
from ..errors import TurnCancelled
from ..registry import Registry
from .messages import Authorize

__all__ = ["authorize"]


async def authorize(registry: Registry, address: Address, question: Authorize, *, timeout: float) -> None:
    """Return if there is such a session for this principal; it is woken for the question if need be.

    Raises:
        UnderstudyError: There is none, or it cannot be reached now, or not within `timeout` seconds.
    """
    try:
        await registry.ask(address, question, access=Access.SHARED, timeout=timeout)
    except TurnCancelled:
        # The session was ended, or the node stops, before the question's turn: asked again, it says which.
        await registry.ask(address, question, access=Access.SHARED, timeout=timeout)
