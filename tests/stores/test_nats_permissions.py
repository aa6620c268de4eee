"""A user of NATS with permissions of its own: those that stores/README.md lists are enough, and what lacks is said."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.patience import PATIENCE
from understudy.runtime.commands.nats_server import NatsServer
from understudy.stores import Address, SessionStore, StoreUnavailable, event_log_of, open_store
from understudy.stores.nats.errors import NatsRefused

Servers = Callable[..., NatsServer]
README = Path(__file__).parents[2] / "stores" / "README.md"
BIG = bytes(2_000_000)


def permissions() -> list[str]:
    """What README says that a user must be allowed to publish, for the bucket `sessions`."""
    listed = re.search(r"publish: (\[.*?\])", README.read_text(), re.DOTALL)
    assert listed is not None
    return json.loads(listed[1])


def of_users(**publish: list[str]) -> dict[str, Any]:
    users = [
        {
            "user": name,
            "password": "p",
            "permissions": {"publish": allowed, "subscribe": ["nothing"] if name == "deaf" else ["_INBOX.>"]},
        }
        for name, allowed in publish.items()
    ]
    return {"authorization": {"users": users}}


async def use(store: SessionStore) -> Address:
    """Each kind of request."""
    address = Address.new("session")
    log = event_log_of(store)
    assert log is not None
    await store.ping()
    await store.create(address, tenant="acme", owner="one", snapshot=b"", ttl=60)
    record = await store.claim(address, owner="two")
    await store.save(address, epoch=record.epoch, version=2, snapshot=BIG, ttl=60)
    await store.touch(address, epoch=record.epoch, ttl=90)
    loaded = await store.load(address)
    assert loaded is not None
    assert loaded.snapshot == BIG
    assert len((await store.list()).records) == 1
    await log.append(address, "call", 1, [b"one"], head=b"", writer="two")
    assert (await log.read(address, "call")).events == (b"one",)
    await log.drop([(address, "call")])
    await log.drop_all(address)
    await store.expire()
    return address


async def test_the_permissions_that_are_listed_are_enough(nats_servers: Servers) -> None:
    async with nats_servers(more=of_users(me=permissions())) as server:
        url = f"{server.url.replace('//', '//me:p@')}/sessions"
        store = await open_store(url)
        try:
            async with asyncio.timeout(PATIENCE):
                address = await use(store)
                assert await store.delete(address)
        finally:
            await store.aclose()


async def test_a_permission_that_lacks_is_said_at_once(nats_servers: Servers) -> None:
    allowed = permissions()
    reads = [each for each in allowed if not each.startswith(("$KV", "understudy"))]
    async with nats_servers(more=of_users(me=allowed, reader=reads, nobody=["$JS.API.INFO"], deaf=allowed)) as server:
        url = f"{server.url}/sessions".replace("//", "//me:p@")
        store = await open_store(url)
        address = await use(store)
        await store.aclose()
        began = time.monotonic()
        for user, lacks in (("nobody", "js.api.stream.info.kv_sessions"), ("deaf", "subscription to")):
            with pytest.raises(NatsRefused, match="does not permit it to this user") as refused:
                await open_store(url.replace("me:", f"{user}:"))
            assert lacks in str(refused.value)
            assert "see 'Permissions' in stores/README.md" in str(refused.value)
        reader = await open_store(url.replace("me:", "reader:"))
        try:
            assert await reader.load(address) is not None
            with pytest.raises(NatsRefused, match="permissions violation for publish") as refused:
                await reader.claim(address, owner="three")
            assert not refused.value.outcome_unknown
            with pytest.raises(StoreUnavailable, match="does not permit it"):
                await reader.ping()
        finally:
            await reader.aclose()
        # Each of these would otherwise have taken the five seconds that an answer may take.
        assert time.monotonic() - began < 5
