"""Tokens: what is taken, what is not, and where the keys come from."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import random
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from support.patience import PATIENCE
from tenants.asking import ask, in_era, refusal, request
from tenants.issuer import AUDIENCE, ISSUER, Issuer, claims, private_key, public_jwk, token
from understudy.actors.testing import ManualClock
from understudy.runtime import (
    ClaimNames,
    ClaimsRefused,
    ConfigurationError,
    CredentialUnchecked,
    Forbidden,
    JwtTokens,
    SigningKeyError,
    TenantContext,
    Unauthenticated,
)


def fixed(**options: Any) -> JwtTokens:
    keys = options.pop("keys", {"keys": [public_jwk(1), public_jwk(2, "ES256"), public_jwk(3, "EdDSA")]})
    return JwtTokens(issuer=ISSUER, audience=AUDIENCE, keys=keys, **options)


def published(issuer: Issuer, **options: Any) -> JwtTokens:
    return JwtTokens(issuer=ISSUER, audience=AUDIENCE, jwks_url=issuer.url, **options)


async def unchecked(tokens: JwtTokens, credential: str) -> None:
    with pytest.raises(CredentialUnchecked):
        await ask(tokens, credential)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer(1) as running:
        yield running


def signed(head: dict[str, Any], payload: bytes, key: Any = None) -> str:
    """A token made by hand: with any head and any payload."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (json.dumps(head).encode(), payload)]
    signer: Any = jwt.get_algorithm_by_name("RS256")
    signature = signer.sign(b".".join(parts), key or private_key(1))
    return b".".join((*parts, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


@pytest.mark.parametrize(("number", "algorithm"), [(1, "RS256"), (2, "ES256"), (3, "EdDSA")])
async def test_a_good_token_says_who_it_is(number: int, algorithm: str) -> None:
    tokens = fixed()
    for _ in range(2):
        context = await ask(tokens, token(number, algorithm, plan="pro", exp=2_000_000_000))
        assert (context.tenant, context.principal, context.plan) == ("acme", "ada", "pro")
        assert context.scopes == {"use", "read"}
        assert context.expires == 2_000_000_030.0
        assert context.claims["iss"] == ISSUER


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"exp": int(time.time()) - 31}, "has expired"),
    "without an end": ({"exp": None}, "lacks the claim exp"),
    "with an end that is none": ({"exp": "soon"}, "malformed"),
    "not valid yet": ({"nbf": int(time.time()) + 86_400}, "not valid yet"),
    "made in the future": ({"iat": int(time.time()) + 86_400}, "not valid yet"),
    "for another audience": ({"aud": "https://other.example.com"}, "another audience"),
    "for no audience": ({"aud": None}, "lacks the claim aud"),
    "for an odd audience": ({"aud": [5]}, "another audience"),
    "of another issuer": ({"iss": "https://evil.example.com"}, "another issuer"),
    "of no issuer": ({"iss": None}, "lacks the claim iss"),
    "of nobody": ({"sub": None}, "the claim sub must be there"),
    "of no tenant": ({"tenant": None}, "the claim tenant must be there"),
    "of an empty tenant": ({"tenant": ""}, "the claim tenant must be there"),
    "of a tenant that is no text": ({"tenant": ["acme"]}, "the claim tenant must be there"),
    "of a tenant that no store keeps": ({"tenant": "a\0b"}, "cannot be used as they are"),
    "with a plan that is no text": ({"plan": 7}, "the claim plan must be text"),
    "with scopes that are none": ({"scope": {"a": 1}}, "the claim scope must be text"),
}


@pytest.mark.parametrize(("changed", "reason"), BAD.values(), ids=BAD)
async def test_a_token_that_is_not_in_order_is_refused(changed: dict[str, Any], reason: str) -> None:
    bad = token(**changed)
    error = await refusal(fixed(), bad)
    assert reason in str(error)
    assert error.challenge.startswith('Bearer error="invalid_token", error_description="')
    assert bad not in str(error) + error.challenge


async def test_clocks_may_differ_by_the_leeway() -> None:
    now = int(time.time())
    late = token(exp=now - 20, nbf=now + 20)
    assert (await ask(fixed(leeway=30), late)).expires == pytest.approx(now + 10)
    await refusal(fixed(leeway=5), late)


def forged() -> dict[str, str]:
    good = token()
    head, payload, signature = good.split(".")
    public = private_key(1).public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    # By hand: PyJWT would not make it.
    secret_of_pem: Any = jwt.get_algorithm_by_name("HS256")
    confused_head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "key-1"}).encode()).rstrip(b"=")
    confused = confused_head + b"." + payload.encode()
    confused_signature = base64.urlsafe_b64encode(secret_of_pem.sign(confused, public)).rstrip(b"=").decode()
    none_heads = {
        spelling: base64.urlsafe_b64encode(json.dumps({"alg": spelling, "kid": "key-1"}).encode()).rstrip(b"=").decode()
        for spelling in ("none", "None", "NONE", "nOnE", "")
    }
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    own_jwk: Any = jwt.get_algorithm_by_name("RS256").to_jwk(stranger.public_key(), as_dict=True)
    body = json.dumps(claims()).encode()
    rs256 = {"alg": "RS256", "kid": "key-1"}
    dotted = {
        name: part for spelling, head_of in none_heads.items()
        for name, part in (
            (f"alg {spelling!r}", f"{head_of}.{payload}."),
            (f"alg {spelling!r} with a signature", f"{head_of}.{payload}.{signature}"),
        )
    }  # fmt: skip
    return {
        **dotted,
        "RS256 as HS256": f"{confused.decode()}.{confused_signature}",
        "without its signature": f"{head}.{payload}.",
        "with another signature": f"{head}.{payload}.{'A' * len(signature)}",
        "with another payload": f"{head}.{token(sub='eve').split('.')[1]}.{signature}",
        "of a stranger": signed({"alg": "RS256", "kid": "key-1"}, body, stranger),
        "bringing its own key": signed({"alg": "RS256", "kid": "key-1", "jwk": own_jwk}, body, stranger),
        "bringing its own key's address": signed(
            {"alg": "RS256", "kid": "key-1", "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}, body, stranger
        ),
        "of a key that RS256 may not use": token(2, "ES256", headers={"kid": "key-1"}),
        "kid that is a path": token(headers={"kid": "../../../../dev/null"}),
        "kid that is SQL": token(headers={"kid": "x' UNION SELECT 'secret"}),
        "kid that is a URL": token(headers={"kid": "http://127.0.0.1:1/keys"}),
        "kid that is huge": token(headers={"kid": "k" * 2000}),
        "kid that is a number": signed({"alg": "RS256", "kid": 1}, body),
        "kid that is a list": signed({"alg": "RS256", "kid": ["key-1"]}, body),
        "alg that is a list": signed({"alg": ["RS256"], "kid": "key-1"}, body),
        "alg that is missing": signed({"kid": "key-1"}, body),
        "typ of a logout token": signed({**rs256, "typ": "logout+jwt"}, body),
        "typ that is a number": signed({**rs256, "typ": 5}, body),
        "typ that is empty": signed({**rs256, "typ": ""}, body),
        "nested": signed({**rs256, "cty": "JWT"}, good.encode()),
        "crit that is empty": signed({**rs256, "crit": []}, body),
        "crit of what everybody knows": signed({**rs256, "crit": ["exp"]}, body),
        "nbf that is a list": signed(rs256, json.dumps(claims(nbf=[1])).encode()),
        "exp that is a list": signed(rs256, json.dumps(claims(exp=[2_000_000_000])).encode()),
        "exp that is negative": signed(rs256, json.dumps(claims(exp=-1e300)).encode()),
        "exp twice, once long ago": signed(rs256, body[:-1] + b', "exp": 1}'),
        "sub that is a number": signed(rs256, json.dumps(claims(sub=5)).encode()),
        "aud within a list within a list": signed(rs256, json.dumps(claims(aud=[[AUDIENCE]])).encode()),
        "crit that nobody knows": signed({"alg": "RS256", "kid": "key-1", "crit": ["x"], "x": 1}, body),
        "payload that is not encoded": signed({"alg": "RS256", "kid": "key-1", "b64": False, "crit": ["b64"]}, body),
        "payload that is a list": signed({"alg": "RS256", "kid": "key-1"}, b"[]"),
        "payload that is no JSON": signed({"alg": "RS256", "kid": "key-1"}, b"\xff"),
        "payload that is deep": signed({"alg": "RS256", "kid": "key-1"}, b"[" * 4000),
        "exp that is infinite": signed(rs256, body.replace(b'"exp": ', b'"exp": 1e999, "x": ')),
        "exp that is not a number": signed(rs256, body.replace(b'"exp": ', b'"exp": NaN, "x": ')),
        "exp that is too long": signed(
            {"alg": "RS256", "kid": "key-1"}, body.replace(b'"exp": ', b'"exp": ' + b"9" * 5000 + b', "x": ')
        ),
        "huge": token(padding="x" * 100_000),
        "five parts": f"{good}.{signature}.{signature}",
        "two parts": f"{head}.{payload}",
        "dots": "...",
        "no base64": "\x7f~\xff.\xe9.*",
        "JSON": json.dumps(claims()),
    }  # fmt: skip


FORGED = forged()


@pytest.mark.parametrize("bad", FORGED.values(), ids=FORGED)
async def test_a_forged_token_is_refused(bad: str) -> None:
    tokens = fixed()
    error = await refusal(tokens, bad)
    assert bad not in str(error) + error.challenge
    assert error.challenge.isascii()
    assert (await ask(tokens, token())).principal == "ada"
    assert tokens.stats()["tokens_cached"] == 1


@given(st.binary(min_size=1, max_size=200) | st.binary(max_size=60).map(lambda tail: token().encode()[:-40] + tail))
@settings(max_examples=150, deadline=None)
def test_garbage_is_refused_whatever_it_is(garbage: bytes) -> None:
    if garbage.strip() == token().encode():
        return
    with pytest.raises(Unauthenticated):
        fixed()(request(garbage))


def test_what_is_made_by_hand_is_good_but_for_what_is_wrong_with_it() -> None:
    """Else all that is forged so would be refused for its signature, and nothing would be said of the rest."""
    body = json.dumps(claims()).encode()
    for more in ({}, {"typ": "JWT"}, {"typ": "jwt"}, {"typ": "AT+JWT"}, {"typ": "application/at+jwt"}):
        context = fixed()(request(signed({"alg": "RS256", "kid": "key-1", **more}, body)))
        assert isinstance(context, TenantContext)
    other = signed({"alg": "RS256", "kid": "key-1", "typ": "okta+jwt"}, body)
    assert fixed(types=["okta+jwt"])(request(other))


async def test_an_end_may_be_a_fraction_and_an_audience_one_of_several() -> None:
    context = await ask(fixed(), token(exp=2_000_000_000.7, aud=["https://other.example.com", AUDIENCE]))
    assert context.expires == 2_000_000_030.0


async def test_a_huge_exp_is_taken_as_never() -> None:
    assert (await ask(fixed(), token(exp=10**30))).expires == 2**40 + 30


async def test_a_token_without_kid_is_tried_with_the_keys_that_fit() -> None:
    assert (await ask(fixed(), token(headers={"kid": None}))).principal == "ada"
    with pytest.raises(Unauthenticated, match="unknown key"):
        await ask(fixed(), token(9, headers={"kid": None}))


async def test_claims_are_found_by_their_names_or_by_a_function() -> None:
    named = fixed(claims=ClaimNames(tenant="https://x.example/org", principal="client_id", plan=None, scopes="scp"))
    context = await ask(
        named, token(**{"https://x.example/org": "big", "client_id": "bot", "scp": ["a", "b"], "plan": 7})
    )
    assert (context.tenant, context.principal, context.plan, context.scopes) == ("big", "bot", None, {"a", "b"})

    def by_hand(given: Any) -> TenantContext:
        if "org" not in given:
            raise ClaimsRefused("no organisation")
        return TenantContext(given["org"]["id"], given["sub"])

    context = await ask(fixed(claims=by_hand), token(org={"id": "deep"}, exp=2_000_000_000))
    assert (context.tenant, context.expires) == ("deep", 2_000_000_030.0)
    assert "no organisation" in str(await refusal(fixed(claims=by_hand), token()))
    assert "cannot be used" in str(await refusal(fixed(claims=by_hand), token(org={"id": ""})))


async def test_a_token_must_have_the_claims_and_scopes_that_are_required() -> None:
    assert "lacks the claim jti" in str(await refusal(fixed(required_claims=["jti"]), token()))
    with pytest.raises(Forbidden) as caught:
        await ask(fixed(required_scopes=["use", "admin"]), token())
    assert caught.value.challenge == 'Bearer error="insufficient_scope", scope="use admin"'


@pytest.mark.parametrize("waits", [False, True])
async def test_a_revoked_token_is_refused_from_the_next_request_on(waits: bool) -> None:
    gone: set[str] = set()

    async def later(given: Any) -> bool:
        await asyncio.sleep(0)
        return given["jti"] in gone

    def at_once(given: Any) -> bool:
        return given["jti"] in gone

    tokens = fixed(revoked=later if waits else at_once)
    good = token(jti="t1")
    assert (await ask(tokens, good)).principal == "ada"
    gone.add("t1")
    assert "has been revoked" in str(await refusal(tokens, good))


async def test_remembered_tokens_are_bounded_and_end_when_they_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, now = fixed(cached_tokens=3), time.time()
    made = [token(sub=f"user-{number}", exp=int(now) + 600) for number in range(5)]
    for each in made:
        await ask(tokens, each)
    assert tokens.stats()["tokens_cached"] == 3
    await ask(tokens, made[4])
    assert tokens.stats()["tokens_verified_total"] == 5
    await ask(tokens, made[0])
    assert tokens.stats()["tokens_verified_total"] == 6
    monkeypatch.setattr("understudy.runtime.credentials.jwt_tokens.time.time", lambda: now + 700)
    assert "has expired" in str(await refusal(tokens, made[4]))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"algorithms": ["none"]}, "HS\\* and none"),
        ({"algorithms": ["HS256", "RS256"]}, "HS\\* and none"),
        ({"algorithms": []}, "algorithms"),
        ({"algorithms": "RS256"}, "algorithms"),
        ({"issuer": ""}, "issuer and audience"),
        ({"audience": []}, "issuer and audience"),
        ({"audience": [""]}, "issuer and audience"),
        ({"keys": None}, "either jwks_url or keys"),
        ({"jwks_url": "https://a.example"}, "either jwks_url or keys"),
        ({"keys": None, "jwks_url": "http://keys.example.com/"}, "https URL"),
        ({"keys": None, "jwks_url": "file:///etc/passwd"}, "https URL"),
        ({"keys": None, "jwks_url": "https://a.example", "pause": 0}, "pause"),
        ({"leeway": -1}, "leeway"),
        ({"cached_tokens": 0}, "cached_tokens"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], reason: str) -> None:
    given: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "keys": [public_jwk(1)], **options}
    with pytest.raises(ConfigurationError, match=reason):
        JwtTokens(**given)


def test_keys_that_must_not_check_tokens_are_passed_over() -> None:
    weak: Any = jwt.get_algorithm_by_name("RS256").to_jwk(
        rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key(), as_dict=True
    )
    useless: list[Any] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "key-1"},
        public_jwk(1, use="enc"),
        public_jwk(1, key_ops=["encrypt"]),
        public_jwk(1, alg="HS256"),
        public_jwk(1, alg=5),
        public_jwk(1, kid=5),
        {**public_jwk(1), "n": "!"},
        {**public_jwk(2, "ES256"), "crv": "P-384"},
        {**public_jwk(2, "ES384"), "crv": "P-256"},
        {**public_jwk(2, "ES384"), "alg": "ES256"},
        {**public_jwk(3, "EdDSA"), "crv": "Ed448"},
        {**public_jwk(3, "EdDSA"), "crv": "X25519"},
        {**public_jwk(1), "e": "AQ"},
        weak,
        "text",
        {},
    ]
    for key in useless:
        with pytest.raises(SigningKeyError):
            fixed(keys=[key])
    assert fixed(keys=[*useless, public_jwk(1)])(request(token()))


# Keys that are published


async def test_keys_are_fetched_once_and_used_for_all(issuer: Issuer) -> None:
    tokens = published(issuer)
    told = await asyncio.gather(*(ask(tokens, token(sub=f"user-{number}")) for number in range(50)))
    assert len({context.principal for context in told}) == 50
    assert issuer.asked == 1


async def test_a_new_key_is_fetched_once_for_all_who_bring_it(issuer: Issuer) -> None:
    tokens = published(issuer, pause=0.05)
    await ask(tokens, token())
    await asyncio.sleep(0.06)
    issuer.keys = [public_jwk(1), public_jwk(4)]
    await asyncio.gather(*(ask(tokens, token(4, sub=f"user-{number}")) for number in range(50)))
    assert issuer.asked == 2
    assert (await ask(tokens, token())).principal == "ada"


async def test_unknown_keys_have_the_issuer_asked_no_more_often_than_said(issuer: Issuer) -> None:
    clock = ManualClock()
    tokens = published(issuer, pause=5.0, clock=clock)
    await ask(tokens, token())
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        odd = [tasks.create_task(refusal(tokens, token(9, headers={"kid": f"odd-{n}"}))) for n in range(20)]
        await asyncio.sleep(0.05)
        assert issuer.asked == 1
        # Whoever is known is not held up by them.
        assert (await ask(tokens, token(sub="bob"))).principal == "bob"
        await clock.advance(5.1)
    assert {str(task.result()) for task in odd} == {"the token was signed with an unknown key"}
    assert issuer.asked == 2


async def test_what_could_not_be_good_by_any_key_has_none_fetched(issuer: Issuer) -> None:
    tokens = published(issuer)
    await ask(tokens, token())
    claimed = (token(9, exp=1), token(9, aud="x"), token(9, iss="x"), token(9, exp=None))
    for bad in (*claimed, *(FORGED[name] for name in ("alg 'none'", "RS256 as HS256", "kid that is huge"))):
        async with asyncio.timeout(PATIENCE):
            await refusal(tokens, bad)
    assert issuer.asked == 1


async def test_too_many_who_wait_for_a_key_are_told_to_come_back(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.runtime.credentials.jwks_url.MOST_WAITING", 3)
    tokens = published(issuer, clock=ManualClock())
    await ask(tokens, token())
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(ask(tokens, token(9))) for _ in range(3)]
        await asyncio.sleep(0.01)
        with pytest.raises(CredentialUnchecked):
            await ask(tokens, token(9))
        for task in waiting:
            task.cancel()


BROKEN_ANSWERS: list[tuple[int, bytes]] = [
    (500, b""),
    (302, b""),
    (200, b"no JSON"),
    (200, b"[]"),
    (200, b'{"keys": 5}'),
    (200, b'{"keys": []}'),
    (200, b'{"keys": [{"kty": "oct", "k": "AAAA"}]}'),
    (200, b'{"keys": [' + b"{}," * 200 + b"{}]}"),
    (200, b"[" * 100_000),
    (200, b" " * (2**20 + 1)),
]


@pytest.mark.parametrize(("status", "body"), BROKEN_ANSWERS, ids=range(len(BROKEN_ANSWERS)))
async def test_keys_stay_while_the_issuer_answers_nonsense(
    issuer: Issuer, status: int, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    tokens = published(issuer, clock=clock, max_stale=1000.0)
    await ask(tokens, token())
    issuer.status, issuer.body = status, body
    with caplog.at_level(logging.WARNING, "understudy"):
        for _ in range(3):
            await clock.advance(301)
            assert (await ask(tokens, token(sub="bob"))).principal == "bob"
    assert tokens.stats()["jwks_failures_total"] == 3
    assert sum("the keys that are known stay" in line for line in caplog.messages) == 1
    # Not known for so long that they may have been withdrawn: no verdict, which is no 401.
    await clock.advance(301)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(unchecked(tokens, token(sub="bob")))
        while not asking.done():
            await asyncio.sleep(0.01)
            await clock.advance(1)
    issuer.status, issuer.body = 200, None
    await clock.advance(301)
    assert (await ask(tokens, token(sub="bob"))).principal == "bob"


async def test_a_key_set_may_come_as_gzip(issuer: Issuer) -> None:
    issuer.encoding, issuer.body = "gzip", gzip.compress(json.dumps({"keys": issuer.keys}).encode())
    assert (await ask(published(issuer), token())).principal == "ada"
    assert b"accept-encoding: gzip, identity\r\n" in issuer.head.lower()


def bomb(size: int) -> bytes:
    """Gzip of so many bytes of white space, which would be JSON."""
    packing = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    mebibyte = b" " * 2**20
    return b"".join(packing.compress(mebibyte) for _ in range(size // 2**20)) + packing.flush()


KEYS = gzip.compress(json.dumps({"keys": [public_jwk(1)]}).encode())
BADLY_PACKED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "a bomb": ("gzip", lambda: bomb(2**28), "the answer is larger than 1048576 bytes"),
    "a bomb in a bomb": (
        "gzip, gzip",
        lambda: gzip.compress(bomb(2**26)),
        "the encoding 'gzip, gzip'; gzip is taken, once",
    ),
    "too much, packed": (
        "gzip",
        lambda: gzip.compress(random.Random(1).randbytes(2**20 + 1)),
        "larger than 1048576 bytes",
    ),
    "broken off": ("gzip", lambda: KEYS[:-9], "does not end as gzip does"),
    "with more behind it": ("gzip", lambda: KEYS + b"{}", "does not end as gzip does"),
    "not packed": ("gzip", lambda: b'{"keys": []}', "says that it is gzip, and is none"),
    "otherwise": ("br", lambda: b"", "the encoding 'br'"),
    "empty": ("gzip", lambda: b"", "does not end as gzip does"),
}


@pytest.mark.parametrize(("encoding", "pack", "reason"), BADLY_PACKED.values(), ids=BADLY_PACKED)
async def test_a_key_set_that_is_packed_to_do_harm_is_refused_in_the_room_of_a_good_one(
    issuer: Issuer, caplog: pytest.LogCaptureFixture, encoding: str, pack: Callable[[], bytes], reason: str
) -> None:
    clock = ManualClock()
    tokens = published(issuer, clock=clock)
    await ask(tokens, token())
    issuer.encoding, issuer.body = encoding, pack()
    await clock.advance(301)
    tracemalloc.start()
    try:
        with caplog.at_level(logging.WARNING, "understudy"):
            assert (await ask(tokens, token(sub="bob"))).principal == "bob"
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert tokens.stats()["jwks_failures_total"] == 1
    assert reason in caplog.text
    assert most < 8 * 2**20


async def test_an_issuer_that_hangs_costs_one_request_its_deadline(issuer: Issuer) -> None:
    clock = ManualClock()
    tokens = published(issuer, clock=clock, deadline=1.0)
    await ask(tokens, token())
    issuer.hangs = True
    await clock.advance(301)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(ask(tokens, token()))
        await asyncio.sleep(0.02)
        await asyncio.gather(*(ask(tokens, token(sub=f"user-{number}")) for number in range(20)))
        assert not first.done()
    assert first.result().principal == "ada"


async def test_nobody_is_refused_because_the_issuer_cannot_be_reached() -> None:
    async with Issuer(1) as issuer:
        url = issuer.url
    tokens = JwtTokens(issuer=ISSUER, audience=AUDIENCE, jwks_url=url, pause=0.01)
    with pytest.raises(CredentialUnchecked):
        await ask(tokens, token())
    async with in_era("modern", tenants=tokens) as client:
        call = await client.ask("tools/list", headers={"authorization": f"Bearer {token()}"})
        assert call.status == 503
        assert call.header("retry-after") == "1"
        assert call.header("www-authenticate") is None


async def test_a_key_that_is_gone_takes_its_remembered_tokens_with_it(issuer: Issuer) -> None:
    clock = ManualClock()
    issuer.keys = [public_jwk(1), public_jwk(4)]
    tokens = published(issuer, clock=clock)
    await ask(tokens, token(4))
    issuer.keys = [public_jwk(1)]
    await clock.advance(301)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(refusal(tokens, token(4)))
        # It waits for the pause to end: the key may have come this very moment.
        while not asking.done():
            await asyncio.sleep(0.01)
            await clock.advance(1)
    assert "unknown key" in str(asking.result())
    assert (await ask(tokens, token(1))).principal == "ada"
    # It is back: whoever brings one of its tokens has it fetched.
    issuer.keys = [public_jwk(1), public_jwk(4)]
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        returning = tasks.create_task(ask(tokens, token(4)))
        while not returning.done():
            await asyncio.sleep(0.01)
            await clock.advance(1)
    assert returning.result().principal == "ada"


async def test_a_resolver_serves_on_another_event_loop(issuer: Issuer) -> None:
    tokens = published(issuer, pause=0.01)
    await asyncio.gather(*(ask(tokens, token(sub=f"user-{number}")) for number in range(5)))

    async def elsewhere() -> None:
        results = await asyncio.gather(*(ask(tokens, token(9)) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(result, Unauthenticated) for result in results), results

    await asyncio.to_thread(asyncio.run, elsewhere())


async def test_keys_change_under_load_without_one_wrongly_refused_call(issuer: Issuer) -> None:
    tokens = published(issuer, pause=0.02, max_age=0.05)
    newest = [1]
    stop = asyncio.Event()
    served = 0

    async def load(client: Any, number: int) -> None:
        nonlocal served
        mine = client.same_session()
        while not stop.is_set():
            # A new token for each call, signed with the newest key: nothing is remembered.
            mine.headers["authorization"] = f"Bearer {token(newest[0], n=served, who=number)}"
            assert await mine.tool("who") == "ada of acme"
            served += 1

    async with in_era("handshake", tenants=tokens) as client:
        client.headers["authorization"] = f"Bearer {token()}"
        await client.open()
        async with asyncio.TaskGroup() as tasks:
            for number in range(4):
                tasks.create_task(load(client, number))
            for number in (5, 6, 7, 5, 6, 7):
                # The old key is still published beside the new one, which is used at once.
                issuer.keys = [public_jwk(newest[0]), public_jwk(number)]
                newest[0] = number
                await asyncio.sleep(0.15)
                issuer.keys = [public_jwk(number)]
                await asyncio.sleep(0.1)
            stop.set()
    assert served > 50
    assert tokens.stats()["refused_total"] == 0
    assert issuer.asked >= 6


def test_a_remembered_token_costs_at_most_twenty_microseconds() -> None:
    tokens, asked = fixed(required_scopes=["use"]), request(token())
    tokens(asked)

    def once() -> float:
        began = time.perf_counter()
        for _ in range(1000):
            tokens(asked)
        return (time.perf_counter() - began) / 1000

    assert min(once() for _ in range(10)) < 20e-6
