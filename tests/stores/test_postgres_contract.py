"""`PostgresStore` and its event log: the contract, against a real PostgreSQL and through a real PgBouncer."""

from __future__ import annotations

import pytest
from support.postgres import PgBouncer, PostgresServer, fresh_database_name
from understudy.stores import SessionStore, testing
from understudy.stores.contract.events import AppendsContract
from understudy.stores.postgresql.settings import PostgresSettings
from understudy.stores.postgresql.store import PostgresStore
from understudy.stores.testing import ManualTime


def _fresh(server: PostgresServer | PgBouncer) -> str:
    # A schema is made in a tenth of the time that a database takes.
    return f"{server.url()}?schema={fresh_database_name()}"


class TestPostgresStoreKeepsTheContract(testing.StoreContract):
    url: str

    @pytest.fixture(autouse=True)
    def _place(self, postgres_server: PostgresServer) -> None:
        self.url = _fresh(postgres_server)

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return await PostgresStore.from_url(self.url, clock=clock)

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await PostgresStore.from_url(self.url, clock=clock)


class TestPostgresStoreBehindPgBouncerKeepsTheContract(TestPostgresStoreKeepsTheContract):
    @pytest.fixture(autouse=True)
    def _place(self, pgbouncer: PgBouncer) -> None:
        self.url = _fresh(pgbouncer)


class TestPostgresEventLogKeepsTheContract(testing.EventLogContract):
    url: str

    @pytest.fixture(autouse=True)
    def _place(self, postgres_server: PostgresServer) -> None:
        self.url = _fresh(postgres_server)

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return await PostgresStore.open(PostgresSettings.from_url(self.url), clock=clock, event_bounds=self.bounds)

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await self.open_store(clock)


class TestPostgresEventLogBehindPgBouncerKeepsTheContract(AppendsContract):
    """What all writing goes through; the bounds are the same statements."""

    url: str

    @pytest.fixture(autouse=True)
    def _place(self, pgbouncer: PgBouncer) -> None:
        self.url = _fresh(pgbouncer)

    async def open_store(self, clock: ManualTime) -> SessionStore:
        return await PostgresStore.open(PostgresSettings.from_url(self.url), clock=clock, event_bounds=self.bounds)

    async def reopen_store(self, clock: ManualTime) -> SessionStore:
        return await self.open_store(clock)
