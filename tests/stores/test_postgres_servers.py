"""`PostgresStore` with several servers, and with TLS."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from support.certificates import self_signed
from support.patience import PATIENCE
from support.postgres import PASSWORD, SUPERUSER, PostgresServer, postgres_missing, postgres_programs
from understudy.stores import Address, StoreUnavailable, open_store
from understudy.stores.postgresql.errors import PostgresReadOnly, PostgresRefused
from understudy.stores.postgresql.store import PostgresStore


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    """One that speaks TLS, and only that."""
    reason = postgres_missing()
    if reason is not None:
        pytest.skip(reason)
    # From the directory of its data.
    server = PostgresServer(
        settings={"ssl": "on", "ssl_cert_file": "../tls/cert.pem", "ssl_key_file": "../tls/key.pem"}
    )
    try:
        directory = server._make_directory() / "tls"
        for file in self_signed(directory):
            file.chmod(0o600)
            server._hand_over(file)
        server._hand_over(directory)
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        directory = server._make_directory()
        programs = postgres_programs()
        assert programs is not None
        assert primary.directory is not None
        copy = [programs / "pg_basebackup", "--pgdata", directory / "data", "--write-recovery-conf", "--no-sync"]
        where = ["--host=127.0.0.1", f"--port={primary.port}", f"--username={SUPERUSER}", "--checkpoint=fast"]
        subprocess.run(
            server._as_other(*copy, *where), env={**os.environ, "PGPASSWORD": PASSWORD}, check=True, timeout=60
        )
        (directory / "tls").symlink_to(primary.directory / "tls")
        server.start()
        yield server
    finally:
        server.close()


def tls(server: PostgresServer, file: str) -> Path:
    assert server.directory is not None
    return server.directory / "tls" / file


async def test_tls_is_spoken_and_the_servers_certificate_checked(primary: PostgresServer, tmp_path: Path) -> None:
    own = tls(primary, "cert.pem")
    store = await PostgresStore.from_url(f"{primary.url()}?sslmode=verify-full&sslrootcert={own}")
    connection = next(iter(store._lanes._connections))
    [(encrypted,)] = await connection.fetch("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", writing=False)
    assert encrypted
    await store.aclose()

    other, _ = self_signed(tmp_path / "other")
    with pytest.raises(PostgresRefused, match=r"TLS with PostgreSQL .* failed: .*self.signed certificate") as caught:
        await open_store(f"{primary.url()}?sslmode=verify-ca&sslrootcert={other}")
    assert "sslrootcert" in str(caught.value)


async def test_a_fail_over_is_followed_to_the_server_that_takes_writes(
    primary: PostgresServer, standby: PostgresServer
) -> None:
    with pytest.raises(PostgresReadOnly, match="is a standby"):
        await open_store(standby.url())

    both = primary.url().replace(f":{primary.port}/", f":{standby.port},127.0.0.1:{primary.port}/")
    store = await PostgresStore.from_url(both)
    addresses = [Address.new("session") for _ in range(10)]
    for address in addresses:
        await store.create(address, tenant="acme", owner="node-1", snapshot=b"one", ttl=1000.0)
    # In order, so that the standby has all of it.
    await asyncio.to_thread(primary.stop)
    with pytest.raises(StoreUnavailable):
        await store.claim(addresses[0], owner="node-2")
    admin = await asyncpg.connect(standby.url())
    assert await admin.fetchval("SELECT pg_promote()")
    await admin.close()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await store.ping()
                break
            except StoreUnavailable:
                await asyncio.sleep(0.05)
    for address in addresses:
        record = await store.claim(address, owner="node-2")
        assert (record.epoch, record.snapshot) == (2, b"one")
        await store.save(address, epoch=2, version=2, snapshot=b"two", ttl=1000.0)
    await store.aclose()
