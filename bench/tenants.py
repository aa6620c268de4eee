"""`understudy bench tenants`: what it costs to know whose a call is, and to say so, beside the call itself."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.requests import Request

from ..actors.session import TenantContext
from ..actors.session.exchange import Exchange
from ..actors.session.messages import Call
from ..runtime import ApiKey, ApiKeys, JwtTokens, new_api_key
from ..runtime.credentials.tenants import TenantResolver, resolve_tenant
from ..runtime.telemetry.asker import ASKER
from ..runtime.telemetry.tenant_numbers import TenantNumbers
from ..runtime.telemetry.tenant_tally import TALLY
from .clients import HandshakeClient, PreparedCall
from .measure import Effort, Progress, Side, in_flight, interleave
from .report import Comparison, Report, Scenario, Series, Target, ratio
from .servers import ARGUMENTS, TOOL, ten_tools
from .sides import understudy_app

__all__ = ["bench_tenants"]

KEYS = 1000
TENANTS = 100
BATCH = 50
"""Resolutions to one operation of a side: one alone is as short as what measures it."""

API_KEY, JWT, LABELS = "an API key, resolved", "a JWT, remembered", "logs, metrics: whose it is"
PLAIN, BY_KEY, BY_TOKEN = "everybody anonymous", "by API key", "by JWT"
KEY_TARGET = Target("at most", 5)
TOKEN_TARGET = Target("at most", 20)
LABELS_TARGET = Target("at most", 1)

_ISSUER = "https://auth.example.com"
_AUDIENCE = "https://mcp.example.com/mcp"


async def bench_tenants(effort: Effort, progress: Progress) -> Report:
    """Measure; `effort` says how long."""
    key, keys = _api_keys()
    token, tokens = _jwt_tokens()
    async with AsyncExitStack() as stack:
        hosts: dict[str, tuple[TenantResolver | None, str | None]] = {
            PLAIN: (None, None),
            BY_KEY: (keys, key),
            BY_TOKEN: (tokens, token),
        }
        clients: dict[str, HandshakeClient] = {}
        for name, (resolver, credential) in hosts.items():
            app = await stack.enter_async_context(understudy_app(ten_tools(), tenants=resolver))
            headers = {} if credential is None else {"authorization": f"Bearer {credential}"}
            clients[name] = await HandshakeClient.open(app, headers)
        call = PreparedCall(TOOL, ARGUMENTS)
        # A coroutine of its own each, so that the loop below does not share its client.
        sides = [Side(name, in_flight([_calling(client, call)])) for name, client in clients.items()]
        parts = [
            Side(API_KEY, _resolving(keys, key), at_once=BATCH),
            Side(JWT, _resolving(tokens, token), at_once=BATCH),
            Side(LABELS, _labelling(), at_once=BATCH),
        ]
        # Nothing here waits: the processor's time is the whole of it, and no other process's.
        seconds = await interleave([*sides, *parts], effort, progress, time.process_time)
    series = [
        Series(side.name, "us", tuple(each * 1e6 for each in figures))
        for side, figures in zip([*sides, *parts], seconds, strict=True)
    ]
    plain, by_key, by_token, resolved, remembered, labels = series
    calls = Scenario(
        "one local call, JSON in and out",
        (plain, by_key, by_token),
        (ratio(f"{BY_KEY} / {PLAIN}", by_key, plain), ratio(f"{BY_TOKEN} / {PLAIN}", by_token, plain)),
    )
    alone = Scenario(
        "of each call",
        (resolved, remembered, labels),
        (
            _in_microseconds(resolved, KEY_TARGET),
            _in_microseconds(remembered, TOKEN_TARGET),
            _in_microseconds(labels, LABELS_TARGET),
            ratio("an API key / a call", resolved, plain),
            ratio("a JWT / a call", remembered, plain),
            ratio("saying whose it is / a call", labels, plain),
        ),
    )
    return Report("tenants", (calls, alone), effort.quick)


def _in_microseconds(series: Series, target: Target) -> Comparison:
    return Comparison(series.name, series.unit, series.rounds, target)


def _calling(client: HandshakeClient, call: PreparedCall) -> Callable[[], Awaitable[object]]:
    return lambda: client.call(call)


def _api_keys() -> tuple[str, ApiKeys]:
    """One key among as many as a service may have, and who knows them."""
    texts = [new_api_key() for _ in range(KEYS)]
    of = [TenantContext(f"tenant-{number % TENANTS}", f"principal-{number}") for number in range(KEYS)]
    return texts[KEYS // 2], ApiKeys(ApiKey.of(text, context) for text, context in zip(texts, of, strict=True))


def _jwt_tokens() -> tuple[str, JwtTokens]:
    """A token that is good for as long as the bench lasts, and who knows its key."""
    private = Ed25519PrivateKey.generate()
    jwk: Any = jwt.get_algorithm_by_name("EdDSA").to_jwk(private.public_key(), as_dict=True)
    claims = {"iss": _ISSUER, "aud": _AUDIENCE, "exp": int(time.time()) + 86_400, "sub": "ada", "tenant": "acme"}
    token = jwt.encode(claims, private, algorithm="EdDSA", headers={"kid": "one"})
    return token, JwtTokens(issuer=_ISSUER, audience=_AUDIENCE, keys=[{**jwk, "kid": "one"}])


def _resolving(resolver: TenantResolver, credential: str) -> Callable[[int], Awaitable[None]]:
    """What the edge does with a request before it knows whose it is, but for its deadline."""
    lines = [
        (b"host", b"localhost:8000"),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
        (b"authorization", b"Bearer " + credential.encode()),
        (b"content-length", b"100"),
    ]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": lines}

    async def run(operations: int) -> None:
        for _ in range(operations):
            await resolve_tenant(resolver, Request(scope))

    return run


def _labelling() -> Callable[[int], Awaitable[None]]:
    """What the labels of one call cost: the edge says who asks, the call's outcome and its time are counted."""
    numbers = TenantNumbers()
    for number in range(TENANTS):
        numbers.of(f"tenant-{number}")
    asker = TenantContext("tenant-50", "ada")
    call = Call(1, "tools/call", {}, asker, Exchange(1, "tools/call"))
    result: dict[str, Any] = {"content": [], "isError": False}

    async def run(operations: int) -> None:
        for _ in range(operations):
            ASKER.set(None)
            ASKER.set(asker)
            TALLY.set(numbers.of(asker.tenant))
            tally = call.audit = TALLY.get()
            assert tally is not None
            tally(call, result)
            tally.took(0.0001)

    return run
