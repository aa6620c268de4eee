"""no-wrong-tenant: who writes to the cluster's NATS without having its keys gets nothing done in anybody's name."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cluster.household import Member, household
from nats.aio.client import Client as NatsClient
from session.servers import until
from understudy.actors.session import TenantContext
from understudy.runtime import ClusterOptions
from understudy.runtime.edge.notices import NOTICE
from understudy.runtime.errors import ConfigurationError
from understudy.runtime.link import CallHead, Seals
from understudy.runtime.link.batch import encode_batch
from understudy.runtime.link.codec import encode_frame
from understudy.runtime.link.frames import Call
from understudy.runtime.link.head_book import HeadBook
from understudy.runtime.link.incarnation import to_token
from understudy.runtime.link.seals import Seal
from understudy.stores import Address
from understudy.stores.nats.connection import close, connect
from understudy.stores.nats.settings import NatsSettings

ROGUE = "rogue.00000001"
KEYS = [b"the operator's own, not in NATS!"]


def given(number: int) -> dict[str, Any]:
    return {"request_state_keys": KEYS}


@asynccontextmanager
async def stranger(nats_url: str) -> AsyncIterator[NatsClient]:
    client = await connect(NatsSettings.from_url(nats_url), name="stranger")
    try:
        yield client
    finally:
        await close(client)


def forged(session: str, *, purpose: str = "", version: int = 4, seal: Seal | None, body: bytes) -> bytes:
    head = CallHead(
        "POST",
        "/mcp",
        headers=[
            (b"content-type", b"application/json"),
            (b"mcp-session-id", session.encode()),
            (b"mcp-protocol-version", b"2025-11-25"),
        ],
        tenant=TenantContext("anonymous", "anonymous"),
        address=Address("session", session),
        purpose=purpose,
    )
    return encode_batch(version, 1, 1, 0, [encode_frame(Call(1, head, body), version, HeadBook())], seal)


def owner_of(nodes: list[Member], session: str | None) -> Member:
    return next(node for node in nodes if node.owns(session))


@pytest.mark.parametrize(
    ("version", "sealed", "counted"),
    [(4, True, "link_forged"), (3, False, "link_unsealed_refused"), (2, False, "link_unsealed_refused")],
)
async def test_a_forged_call_or_notice_reaches_nobody(nats_url: str, version: int, sealed: bool, counted: str) -> None:
    async with household(nats_url, 2, settings=given) as nodes, stranger(nats_url) as nats:
        client = nodes[0].client()
        await client.open()
        assert client.session is not None
        owner = owner_of(nodes, client.session)
        cluster = owner.runtime.cluster
        assert cluster is not None
        me, prefix = cluster.ownership.me, cluster.names.prefix
        heard: list[bytes] = []

        async def hear(message: Any) -> None:
            heard.append(message.data)

        await nats.subscribe(f"{prefix}.link.{to_token(ROGUE)}.>", cb=hear)
        call = {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "increment", "arguments": {}}}
        notice = {"session": client.session, "method": "notifications/message", "params": {}, "tenant": None}
        asked = {"jsonrpc": "2.0", "id": 0, "method": "understudy/notice", "params": notice}
        seal = Seal(Seals(cluster.options.name, [b"whatever a stranger thinks of ..."]), ROGUE, me) if sealed else None
        for purpose, body in (("", call), (NOTICE, asked)):
            word = forged(client.session, purpose=purpose, version=version, seal=seal, body=json.dumps(body).encode())
            await nats.publish(f"{prefix}.link.{to_token(me)}.{to_token(ROGUE)}", word)
        await nats.flush()
        await until(lambda: cluster.stats()[counted] == 2)
        assert await client.tool("increment") == 1
        assert heard == []
        assert cluster.stats()["link_served"] == 0


async def test_a_node_that_takes_unsigned_contexts_says_so(nats_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "understudy.cluster"):
        async with household(nats_url, 1, settings=lambda number: {"unsigned_contexts": "accept"}):
            pass
    assert "takes unsigned tenant contexts" in caplog.text


async def test_a_cluster_is_upgraded_node_by_node_while_unsigned_contexts_are_accepted(nats_url: str) -> None:
    """Versions 3 and 4 side by side; a client notices nothing, and between new nodes everything is sealed."""

    def settings(number: int) -> dict[str, Any]:
        return {"unsigned_contexts": "accept", "link_versions": (1, 3) if number == 1 else None}

    async with household(nats_url, 3, settings=settings) as nodes:
        for opens in nodes:
            client = opens.client()
            await client.open()
            for count, node in enumerate(nodes, 1):
                assert await node.same(client).tool("increment") == count
        told = [node.runtime.stats() for node in nodes]
        assert all(numbers["link_unsealed_taken"] > 0 and numbers["link_forged"] == 0 for numbers in told)


async def test_nodes_that_could_speak_without_seals_do_not_do_so_with_each_other(nats_url: str) -> None:
    async with household(nats_url, 2, settings=lambda number: {"unsigned_contexts": "accept"}) as nodes:
        client = nodes[0].client()
        await client.open()
        for _ in range(3):
            await nodes[1].same(client).tool("increment")
        assert nodes[0].runtime.stats()["link_served"] == 3
        assert [node.runtime.stats()["link_unsealed_taken"] for node in nodes] == [0, 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"link_versions": (1, 3)}, "before version 4"),
        ({"link_versions": (1, 9)}, "must be a pair"),
        ({"unsigned_contexts": "yes"}, "unsigned_contexts is 'yes'"),
    ],
)
def test_what_contradicts_itself_is_refused_at_the_start(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ClusterOptions("shop", **options)


def test_without_a_word_only_sealed_versions_are_spoken() -> None:
    assert ClusterOptions("shop").versions == (4, 4)
    assert ClusterOptions("shop", link_versions=(2, 4)).versions == (4, 4)
    assert ClusterOptions("shop", link_versions=(2, 4), unsigned_contexts="accept").versions == (2, 4)
