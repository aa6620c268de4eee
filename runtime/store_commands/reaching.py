"""`inspected` and `opened`: a store for a command, reached without making anything there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ...stores import SessionStore, open_store
from ...stores.inspection import Inspector, Layout, inspect_store
from ..commands.operator_errors import OperatorError

__all__ = ["NoStore", "inspected", "opened", "require_current"]


class NoStore(OperatorError):
    """There is no store at the place of a URL, or one that has to be brought forward first."""


@asynccontextmanager
async def inspected(url: str) -> AsyncGenerator[Inspector]:
    """An `Inspector` of the place. Raises as `inspect_store`."""
    inspector = await inspect_store(url)
    try:
        yield inspector
    finally:
        await inspector.aclose()


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[tuple[SessionStore, Layout, Inspector]]:
    """The store at `url`, which is there and of this version: opening it changes nothing.

    Raises:
        NoStore: It is not.
        StoreError: As `Inspector.look` and `open_store`.
    """
    async with inspected(url) as inspector:
        layout = await inspector.look()
        require_current(layout)
        store = await open_store(url)
        try:
            yield store, layout, inspector
        finally:
            await store.aclose()


def require_current(layout: Layout) -> None:
    """
    Raises:
        NoStore: There is no store, or one of an older format.
    """
    if layout.version is None:
        raise NoStore(f"there is no store at {layout.where}; `understudy store init` makes one")
    if layout.version < layout.newest:
        raise NoStore(
            f"{layout.where} has format {layout.version}, and this understudy writes {layout.newest}; "
            "`understudy store migrate` brings it forward"
        )
