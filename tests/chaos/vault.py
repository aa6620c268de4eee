"""`Vault`: one table of a real PostgreSQL that all tenants' rows are in, behind a PgBouncer of few connections."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import asyncpg
from support.postgres import PgBouncer, PostgresServer, pgbouncer_missing, postgres_missing

__all__ = ["Vault"]

ROLE = "tools"
PASSWORD = "of the tools"
_TABLES = f"""
CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}';
CREATE TABLE vault (
    number bigserial PRIMARY KEY,
    tenant text NOT NULL DEFAULT current_setting('app.tenant'),
    text text NOT NULL
);
ALTER TABLE vault ENABLE ROW LEVEL SECURITY;
ALTER TABLE vault FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON vault USING (tenant = current_setting('app.tenant', true));
GRANT SELECT, INSERT ON vault TO {ROLE};
GRANT USAGE ON SEQUENCE vault_number_seq TO {ROLE};
"""


class Vault:
    """`async with Vault() as vault`; `url` is None where there is no PostgreSQL on this machine."""

    def __init__(self) -> None:
        self.url: str | None = None
        self._server: PostgresServer | None = None
        self._bouncer: PgBouncer | None = None

    async def __aenter__(self) -> Self:
        if postgres_missing() is not None:
            return self
        # In this thread, with which they end: nothing else happens yet.
        self._server = PostgresServer()
        self._server.start()
        admin = await asyncpg.connect(self._server.url())
        await admin.execute(_TABLES)
        await admin.close()
        self.url = self._server.url(user=ROLE, password=PASSWORD)
        if pgbouncer_missing() is None:
            self._bouncer = PgBouncer(self._server)
            self._bouncer.start()
            # A connection of PostgreSQL serves one tenant's transaction after another's.
            self.url = self._bouncer.url(user=ROLE, password=PASSWORD)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for server in (self._bouncer, self._server):
            if server is not None:
                await asyncio.to_thread(server.close)
