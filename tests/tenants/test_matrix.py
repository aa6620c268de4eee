"""no-wrong-tenant, as a matrix: every kind of request, by everybody who is not the session's principal, at every node.

To a stranger a session that is there is one that never was: status, headers and body are the same, byte for byte; and
nothing that he asks changes anything.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from cluster.household import Member, household
from edge.call import HTTPCall, scope
from edge.client import Client, put_to_sleep
from mcp_types.methods import CLIENT_NOTIFICATIONS, CLIENT_REQUESTS, CLIENT_RESULTS
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION
from tenants.issuer import AUDIENCE, ISSUER, claims, public_jwk, token
from tenants.kinds import REQUESTS, Kind, Target, every_kind, unclassified
from understudy.actors.session import SessionActor
from understudy.runtime import JwtTokens
from understudy.stores import Address

KINDS = list(every_kind())

OWNER = token()
STRANGERS = {
    "another tenant's": token(tenant="globex"),
    "another principal's": token(sub="bob"),
}


def _unsigned() -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}."


WORTHLESS: dict[str, tuple[str | None, int]] = {
    "none": (None, 401),
    "expired": (token(exp=int(time.time()) - 3600), 401),
    "for another audience": (token(aud="https://elsewhere.example.com"), 401),
    "of another issuer": (token(iss="https://auth.example.org"), 401),
    "alg none": (_unsigned(), 401),
    "signed by somebody else": (token(2, headers={"kid": "key-1"}), 401),
    "without a tenant": (token(tenant=None), 401),
    "without the scope": (token(scope="read"), 403),
}


def resolver(number: int) -> JwtTokens:
    return JwtTokens(issuer=ISSUER, audience=AUDIENCE, keys=[public_jwk(1)], required_scopes=["use"])


# Asking


def ask(node: Member, kind: Kind, target: Target, credential: str | None) -> HTTPCall:
    method, headers, body = kind.request(target)
    every: dict[str, str | None] = {"host": "localhost:8000", **headers}
    if method == "POST":
        every["content-type"] = "application/json"
    if credential is not None:
        every["authorization"] = f"Bearer {credential}"
    lines = [(name.encode(), value.encode("latin-1")) for name, value in every.items() if value is not None]
    call = HTTPCall(scope(method, "/mcp", lines), body)
    node.connections.start(call)
    return call


@dataclass(frozen=True)
class Answer:
    """All that a client can tell an answer by, but for the session's own name in it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    complete: bool


async def answer(node: Member, kind: Kind, target: Target, credential: str | None) -> Answer:
    call = ask(node, kind, target, credential)
    if kind.streams:
        await call.until(lambda: call.complete or (call.status == 200 and call.body))
    else:
        await call.done()
    seen = Answer(
        call.status,
        tuple((name, _unnamed(value, target)) for name, value in call.headers if name != b"date"),
        _unnamed(call.body, target),
        call.complete,
    )
    if not call.complete:
        call.disconnect()
        await call.done()
    assert call.error is None, (kind.name, call.error)
    return seen


def _unnamed(value: bytes, target: Target) -> bytes:
    return value.replace(target.session.encode(), b"<session>")


# What may not change


class World:
    """All that is known of some sessions: in the store, at their nodes, in their streams, of what has run."""

    def __init__(self, nodes: list[Member], sessions: list[str]) -> None:
        self.nodes = nodes
        self.addresses = [Address("session", session) for session in sessions]
        self.store: Any = nodes[0].runtime._options.store

    async def look(self) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for address in self.addresses:
            record = await self.store.load(address)
            seen[f"record {address.id}"] = None if record is None else asdict(record)
            for node in self.nodes:
                seen[f"{node.name} {address.id}"] = self._at(node, address)
        for node in self.nodes:
            stats = node.registry.stats()
            told = ("activations", "rehydrated", "passivated", "ended", "saves", "touches", "turns_started", "live")
            seen[f"{node.name} counts"] = {name: stats[name] for name in told}
            stage = node.stage
            seen[f"{node.name} tools"] = (stage.runs, stage.running, stage.cancelled, stage.finished, dict(stage.noted))
        return seen

    def _at(self, node: Member, address: Address) -> Any:
        cell = node.registry._cells.get(address)
        streams = node.streams._sessions.get(address)
        held = [] if streams is None else [(e.id, e.generation, e.attached, e.last, e.read) for e in streams.all]
        if cell is None:
            return ("not in memory", held)
        actor = getattr(cell, "actor", None)
        if not isinstance(actor, SessionActor):
            return (cell.state, held)
        asked = [] if actor._back_channel is None else list(actor._back_channel._pending)
        return (
            cell.state,
            node.registry._host.idle.get(cell),
            cell.writer.renewed,
            (cell.pins, cell.shared_count, len(cell.mailbox or ())),
            asdict(actor.snap),
            actor.listened,
            [call.id for call in actor.calls_in_flight],
            asked,
            held,
        )


def differences(before: Any, after: Any, what: str = "") -> list[str]:
    """What has changed, each thing by itself."""
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        return [line for key in before for line in differences(before[key], after[key], f"{what} {key}".strip())]
    return [] if before == after else [f"{what}: {before!r:.200} -> {after!r:.200}"]


# The house


@dataclass
class House:
    nodes: list[Member]
    busy: Target
    """In the owner's memory at the first node: listening, with a call that runs and a question that waits."""
    idle: Target
    """There too, doing nothing."""
    asleep: Target
    """In no memory."""
    handle: Target
    """Opened in the modern era, in memory at the first node."""
    handle_asleep: Target

    @property
    def targets(self) -> dict[str, Target]:
        return {
            "busy": self.busy,
            "idle": self.idle,
            "asleep": self.asleep,
            "a handle": self.handle,
            "a handle asleep": self.handle_asleep,
        }

    def world(self) -> World:
        return World(self.nodes, [target.session for target in self.targets.values()])


def unknown(target: Target) -> Target:
    """What differs from `target` in nothing but that its session never was."""
    return Target(Address.new("session").id, target.question, target.stream, target.standing)


async def _opened(node: Member) -> Client:
    client = node.client()
    client.headers["authorization"] = f"Bearer {OWNER}"
    await client.open()
    await client.tool("increment")
    await client.ask("resources/subscribe", {"uri": "stage://data"})
    return client


@asynccontextmanager
async def house(nats_url: str) -> AsyncIterator[House]:
    async with household(nats_url, 2, tenants=resolver, settings=lambda _: {"lease": 30.0}) as nodes:
        first = nodes[0]
        busy = await _opened(first)
        standing = await busy.start("GET").started()
        await standing.until(lambda: standing.events)
        finished = busy.begin_tool("report", {"before": 1, "after": 0}, token="t")
        await finished.message("notifications/progress")
        first.stage.go_on.set()
        await finished.done()
        first.stage.go_on.clear()
        asking = busy.begin_tool("ask_name")
        question = await asking.message("elicitation/create")
        held = busy.begin("tools/call", {"name": "watch", "arguments": {}}, id="held")
        await first.stage.began.wait()
        await held.until(lambda: first.stage.running == 1)
        stream, _, _ = str(finished.events[-1].id).rpartition("-")
        idle, asleep = await _opened(first), await _opened(first)
        modern = first.modern()
        modern.headers["authorization"] = f"Bearer {OWNER}"
        handle, handle_asleep = await modern.handle(), await modern.handle()
        for each in (handle, handle_asleep):
            await modern.tool("increment", {"session": each})
        for each in (asleep.session, handle_asleep):
            await put_to_sleep(first.runtime, each)
        assert busy.session is not None
        assert idle.session is not None
        assert asleep.session is not None
        try:
            yield House(
                nodes,
                Target(busy.session, str(question["id"]), stream, str(standing.events[-1].id)),
                Target(idle.session),
                Target(asleep.session),
                Target(handle),
                Target(handle_asleep),
            )
        finally:
            for node in nodes:
                node.stage.go_on.set()
            # The question waits, and a node that stops would wait for its answer.
            await busy.send("DELETE")


# The matrix


def test_every_method_that_the_sdk_knows_is_asked_with_in_every_revision_that_has_it() -> None:
    """Else this would go on proving what it proved before the SDK got another one."""
    assert unclassified() == set()
    sent = {(kind.message["method"], kind.version) for kind in KINDS if kind.message and "method" in kind.message}
    assert {*CLIENT_REQUESTS, *CLIENT_NOTIFICATIONS} <= sent
    answered = {kind.name for kind in KINDS if kind.name.startswith("answer to")}
    assert answered == {f"answer to {method} {version}" for method, version in CLIENT_RESULTS}
    assert len({kind.name for kind in KINDS}) == len(KINDS) > 150


async def test_to_a_stranger_a_session_that_is_there_is_one_that_never_was(nats_url: str) -> None:
    faults: list[str] = []
    asked = 0
    async with house(nats_url) as home:
        world, never = home.world(), Never(home)
        before = await world.look()
        for state, target in home.targets.items():
            for kind in KINDS:
                if not _worth_asking(kind, state):
                    continue
                cells = [(who, node) for who in STRANGERS for node in home.nodes]
                told = await asyncio.gather(*(answer(node, kind, target, STRANGERS[who]) for who, node in cells))
                for (who, node), there in zip(cells, told, strict=True):
                    asked += 1
                    what = f"{kind.name}, {state}, {who}, at {node.name}"
                    expected = await never.told(node, kind, target, STRANGERS[who])
                    if there != expected:
                        faults.append(f"{what}: {there} instead of {expected}")
                    elif not kind.ignores_session and there.status not in (404, 200, 400):
                        faults.append(f"{what}: {there}")
                after = await world.look()
                faults += [f"{kind.name}, {state}: {change}" for change in differences(before, after)]
                before = after
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults[:20])
    assert asked > 1000


class Never:
    """What is told of a session that never was: asked once, as nothing but the request can tell it by."""

    def __init__(self, home: House) -> None:
        self._home = home
        self._told: dict[tuple[Any, ...], Answer] = {}

    async def told(self, node: Member, kind: Kind, target: Target, credential: str | None) -> Answer:
        # The ids of questions and streams that a request names are part of what it says.
        key = (node.name, kind.name, credential, target.question, target.stream, target.standing)
        if key not in self._told:
            self._told[key] = await answer(node, kind, unknown(target), credential)
        return self._told[key]


def _worth_asking(kind: Kind, state: str) -> bool:
    """All with a session in use; of the others what finds them in another way: by another revision nothing does."""
    return (
        state == "busy" or kind.version not in HANDSHAKE_PROTOCOL_VERSIONS or kind.version == LATEST_HANDSHAKE_VERSION
    )


async def test_a_worthless_credential_is_refused_before_anything_else(nats_url: str) -> None:
    faults: list[str] = []
    opening = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": REQUESTS["initialize"]}
    async with house(nats_url) as home:
        world, never = home.world(), Never(home)
        before = await world.look()
        for kind in [*KINDS, Kind("initialize of a new session", message=opening, opens=True)]:
            target = home.handle if kind.by_handle else home.busy
            cells = [(who, node) for who in WORTHLESS for node in home.nodes]
            told = await asyncio.gather(*(answer(node, kind, target, WORTHLESS[who][0]) for who, node in cells))
            for (who, node), there in zip(cells, told, strict=True):
                credential, status = WORTHLESS[who]
                challenge = dict(there.headers).get(b"www-authenticate", b"")
                expected = await never.told(node, kind, target, credential)
                if there != expected or there.status != status or not challenge.startswith(b"Bearer"):
                    faults.append(f"{kind.name}, {who}, at {node.name}: {there}, and for an unknown one {expected}")
            after = await world.look()
            faults += [f"{kind.name}: {change}" for change in differences(before, after)]
            before = after
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults[:20])


async def test_to_its_principal_each_kind_means_something(nats_url: str) -> None:
    """Else the rows above would be equal because all of them are refused alike."""
    faults: list[str] = []
    async with house(nats_url) as home:
        near, far = home.nodes
        for kind in KINDS:
            if kind.ignores_session or kind.ends_session or kind.streams or kind.refused or "hold" in kind.name:
                continue
            target = home.handle if kind.by_handle else home.idle
            for node in (near, far):
                there = await answer(node, kind, target, OWNER)
                never = await answer(node, kind, unknown(target), OWNER)
                if there == never or there.status == 404:
                    faults.append(f"{kind.name} at {node.name}: {there}")
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults[:20])
