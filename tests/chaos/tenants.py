"""Many tenants in one cluster while owners are killed: no secret of one ever reaches another."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from chaos.cluster import ChaosCluster
from chaos.guests import make_guests
from chaos.many_tenants import ManyTenants
from chaos.scale import Scale
from chaos.tenants_host import DATABASE, FOLDER
from chaos.vault import Vault

__all__ = ["play_tenants"]

TARGET = "tests/chaos/tenants_server.py:server_for"
HOST = (sys.executable, "-P", "tests/chaos/tenants_host.py", "serve")
WORKERS = 24


async def play_tenants(directory: Path, scale: Scale, *, seed: int = 1) -> tuple[dict[str, Any], list[str]]:
    """Numbers and faults."""
    keys = directory / "keys.toml"
    guests = make_guests(scale.tenants, scale.tenant_sessions, keys, directory / "secrets.toml")
    (directory / "files").mkdir()
    env = {FOLDER: str(directory)}
    async with AsyncExitStack() as stack:
        vault = await stack.enter_async_context(Vault())
        if vault.url is not None:
            env[DATABASE] = vault.url
        cluster = await stack.enter_async_context(
            ChaosCluster(
                directory,
                target=TARGET,
                store=scale.store,
                serve=("--api-keys", str(keys)),
                command=HOST,
                env=env,
            )
        )
        many = ManyTenants(cluster, guests, seed=seed, books=vault.url is not None)
        began = time.monotonic()
        try:
            await many.open_all()
            listeners = {(guest.tenant, guest.era): guest for guest in guests}.values()
            for guest in listeners:
                await many.subscribe(guest)
            async with asyncio.TaskGroup() as tasks:
                listening = [tasks.create_task(many.listen(guest)) for guest in listeners]
                async with asyncio.TaskGroup() as workers:
                    workers.create_task(many.kill_owners(scale.tenant_kills, scale.tenant_calls))
                    for _ in range(WORKERS):
                        workers.create_task(many.work(scale.tenant_calls))
                await many.reckon()
                for task in listening:
                    task.cancel()
        finally:
            many.close()
        faults = many.faults + many.watch.faults + cluster.complaints()
    proving = ["keep", "recall", "recite", "whoami", "stash", "resources/read", "prompts/get", "standing", "listen"]
    for where in [*proving, "book"] if vault.url is not None else proving:
        if not many.watch.own[where]:
            faults.append(f"nobody got a secret of his own by {where}: the scene proves nothing of it")
    numbers = {
        "tenants": scale.tenants,
        "sessions": len(guests),
        "calls": many.done,
        **many.numbers,
        "megabytes looked at": round(many.watch.bytes / 2**20, 1),
        "own secrets seen": {where: number for where, number in many.watch.own.items() if number},
        "seconds": round(time.monotonic() - began),
    }
    return numbers, faults
