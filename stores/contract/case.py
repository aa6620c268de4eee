"""`ContractCase`: what the parts of the store contract share, and what the author of a store fills in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from ..address import Address
from ..record import Record, RecordInfo
from ..store import SessionStore

__all__ = ["ContractCase", "ManualTime", "needs_a_second_store"]

Test = Callable[..., Coroutine[Any, Any, None]]

_NEEDS_A_SECOND_STORE = "needs_a_second_store"


def needs_a_second_store(test: Test) -> Test:
    """Mark a test of the contract that opens the data twice: it exists only where `reopen_store` is overridden."""
    setattr(test, _NEEDS_A_SECOND_STORE, True)
    return test


class ManualTime:
    """A clock that stands still until it is advanced. Call it for the seconds since the Unix epoch."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds


class ContractCase:
    """The base of the suite. A store's author overrides `open_store`, and the rest where the store differs.

    A store that keeps its own time (a server's, with native expiry) takes no notice of `clock`: it sets `lifetime` to
    a fraction of a second, `tolerance` to how far its clock may be off, and overrides `pass_time` to sleep.
    """

    pytestmark = pytest.mark.asyncio

    lifetime: ClassVar[float] = 100.0
    """Seconds that a record lives where a test lets it expire."""

    tolerance: ClassVar[float] = 0.001
    """Seconds that a record's times may be off."""

    sweeps: ClassVar[bool] = True
    """Whether `expire` does the sweeping. False for a store whose server does it."""

    clock: ManualTime

    def __init_subclass__(cls) -> None:
        """Take out the tests that the store cannot be put to, so that none has to be skipped."""
        super().__init_subclass__()
        if cls.reopen_store is not ContractCase.reopen_store or cls.open_store is ContractCase.open_store:
            return
        for name in dir(cls):
            if getattr(getattr(cls, name), _NEEDS_A_SECOND_STORE, False):
                setattr(cls, name, None)

    def setup_method(self) -> None:
        """Called by pytest before each test."""
        self.clock = ManualTime()

    async def open_store(self, clock: ManualTime) -> SessionStore:
        """A new, empty store that reads `clock`. Called once a test; the suite closes the store."""
        raise NotImplementedError(f"{type(self).__name__} must override open_store")

    async def reopen_store(self, clock: ManualTime) -> SessionStore | None:
        """A second store on the data of the one opened last, as after a restart or on another node.

        None, as here, if there cannot be one: where this is not overridden, the tests that need it do not exist.
        """
        return None

    async def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass for the store."""
        self.clock.advance(seconds)

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[SessionStore]:
        """A store for one test."""
        store = await self.open_store(self.clock)
        try:
            yield store
        finally:
            await store.aclose()

    @asynccontextmanager
    async def reopened(self) -> AsyncGenerator[SessionStore]:
        """A second store on the same data."""
        store = await self.reopen_store(self.clock)
        assert store is not None, "reopen_store is overridden, but returned None"
        try:
            yield store
        finally:
            await store.aclose()

    async def expired(self, store: SessionStore, *, snapshot: bytes = b"old") -> Address:
        """The address of a record that has expired and was not swept."""
        address = await self.new(store, snapshot=snapshot, ttl=self.lifetime)
        await self.pass_time(self.lifetime * 1.1)
        return address

    async def new(
        self,
        store: SessionStore,
        *,
        tenant: str = "acme",
        snapshot: bytes = b"one",
        ttl: float = 100_000.0,
        address: Address | None = None,
    ) -> Address:
        """The address of a new record."""
        address = address or Address.new("session")
        await store.create(address, tenant=tenant, owner="node-1", snapshot=snapshot, ttl=ttl)
        return address

    async def loaded(self, store: SessionStore, address: Address) -> Record:
        """The record that must be there."""
        record = await store.load(address)
        assert record is not None, f"there should be a record at {address}"
        return record

    async def walk(self, store: SessionStore, *, tenant: str | None = None, limit: int = 100) -> list[RecordInfo]:
        """All records that `list` shows, page by page."""
        found: list[RecordInfo] = []
        cursor: str | None = None
        while True:
            page = await store.list(tenant=tenant, cursor=cursor, limit=limit)
            assert len(page.records) <= limit, f"a page of {len(page.records)} records, limit {limit}"
            found.extend(page.records)
            cursor = page.cursor
            if cursor is None:
                return found

    def near(self, seconds: float) -> object:
        """Compares equal to a time within the store's tolerance of `seconds`."""
        return pytest.approx(seconds, rel=0, abs=self.tolerance)  # pyright: ignore[reportUnknownMemberType]
