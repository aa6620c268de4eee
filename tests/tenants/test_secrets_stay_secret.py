"""No credential, good or bad, of a client or of the operator's, stands in a log line, an answer or an error."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import os
import secrets
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from chaos.http import Connection
from edge.client import hosting, initialize_params
from support import ServerProcess
from tenants.asking import tenants_server
from tenants.issuer import AUDIENCE, ISSUER, Issuer, claims, private_key, public_jwk, token
from understudy.actors.session import TenantContext
from understudy.runtime import ApiKey, JwtTokens, new_api_key
from understudy.runtime.commands.nats_server import NatsServer
from understudy.runtime.credentials.api_key_lines import key_line
from understudy.runtime.telemetry.logs import JSONFormatter, TextFormatter
from understudy.stores import KeyRing, UnderstudyError, open_store

DEMO = "understudy.runtime.demo:server"


def leaks(text: str, *among: str) -> list[str]:
    """Those of the secrets that stand in `text`, as they are or in base64."""
    found: list[str] = []
    for secret in among:
        forms = {secret, base64.b64encode(secret.encode()).decode().rstrip("="), secret[: len(secret) // 2 + 4]}
        found += [secret for form in forms if form in text]
    return found


def test_a_leak_would_be_found() -> None:
    secret = secrets.token_urlsafe(24)
    assert leaks(f"Bearer {secret}", secret)
    assert leaks(f"Basic {base64.b64encode(secret.encode()).decode()}", secret)
    assert not leaks("nothing", secret)


class Mouth:
    """Says requests to a node over HTTP, and keeps all that it answers."""

    def __init__(self, port: int) -> None:
        self._connection = Connection("127.0.0.1", port)
        self.answers: list[str] = []
        self.statuses: list[int] = []

    async def say(self, *lines: str, session: str = "", path: str = "/mcp", **message: Any) -> dict[str, str]:
        every = ["accept: application/json, text/event-stream", "content-type: application/json", *lines]
        if session:
            every += [f"mcp-session-id: {session}", "mcp-protocol-version: 2025-11-25"]
        body = json.dumps({"jsonrpc": "2.0", "id": 1, **message}).encode()
        answer = await self._connection.request("POST", path, "".join(f"{line}\r\n" for line in every), body)
        self.statuses.append(answer.status)
        self.answers.append(f"{answer.status} {answer.headers} {answer.body.decode()}")
        return answer.headers

    def close(self) -> None:
        self._connection.close()


OPEN = {"method": "initialize", "params": initialize_params()}


async def test_a_node_of_a_cluster_says_none_of_its_operators_secrets_and_none_of_its_clients(
    serve: Callable[..., ServerProcess], nats_servers: Callable[..., NatsServer], tmp_path: Path
) -> None:
    password, state_key, ring_key = (secrets.token_urlsafe(32) for _ in range(3))
    good, revoked, never = (new_api_key() for _ in range(3))
    ring, state, keys = tmp_path / "ring", tmp_path / "state", tmp_path / "keys.toml"
    ring_key = base64.b64encode(os.urandom(32)).decode()
    state_key = base64.b64encode(os.urandom(32)).decode()
    ring.write_text(f"first {ring_key}\n")
    state.write_text(f"{state_key}\n")
    for file in (ring, state):
        file.chmod(0o600)
    party = TenantContext("acme", "ann")
    keys.write_text(f"{key_line(ApiKey.of(good, party))}\n{key_line(ApiKey.of(revoked, party, revoked=True))}\n")
    args = ["--cluster", "shop", "--node", "n1", "--lease", "1s", "--log-level", "debug"]
    args += ["--log-format", "json", "--audit", "-"]
    args += ["--api-keys", str(keys), "--encryption-keys", str(ring), "--request-state-keys", str(state)]
    async with nats_servers(user="understudy", password=password) as nats:
        url = f"nats://understudy:{password}@127.0.0.1:{nats.port}"
        await assert_store_is_named_without(secrets.token_urlsafe(24), url.replace(password, "{}") + "/bucket")
        async with serve(DEMO, *args, env={"UNDERSTUDY_NATS": url}, fresh=True) as server:
            mouth = Mouth(server.port)
            session = (await mouth.say(f"authorization: Bearer {good}", **OPEN))["mcp-session-id"]
            remember = {"method": "tools/call", "params": {"name": "remember", "arguments": {"fact": "x"}}}
            await mouth.say(f"authorization: Bearer {good}", session=session, **remember)
            for bad in (
                f"Bearer {revoked}", f"Bearer {never}", f"Basic {never}", f"Bearer {never} {never}", f"bearer\t{never}",
                f"Bearer {never}\x01", never, f"Digest username={never}, response={never}",
            ):  # fmt: skip
                await mouth.say(f"authorization: {bad}", session=session, **remember)
            await mouth.say(f"x-api-key: {never}", f"cookie: key={never}", session=session, **remember)
            await mouth.say(path=f"/mcp?api_key={never}", session=session, **remember)
            await mouth.say(f"authorization: Bearer {good}", session=f"{session[:-4]}AAAA", **remember)
            # The node's NATS goes away, and comes back: what it says of that must not say how it gets in.
            nats.kill()
            await asyncio.sleep(0.3)
            await mouth.say(f"authorization: Bearer {good}", session=session, **remember)
            await nats.start()
            # A file of keys in which somebody has written a key in place of its hash.
            keys.write_text(f'"{never}" = {{ tenant = "acme", principal = "ann" }}\n')
            await asyncio.sleep(0.2)
            for _ in range(2):
                await mouth.say(f"authorization: Bearer {never}", session=session, **remember)
            mouth.close()
            await server.astop()
            said = server.output
    assert mouth.statuses[:2] == [200, 200]
    # The server refuses bytes that no header may have before they reach us.
    assert set(mouth.statuses[2:12]) <= {400, 401}
    assert '"event": "called"' in said
    assert '"tenant": "acme"' in said
    assert "the API keys stay as they were" in said
    every = (password, ring_key, state_key, good, revoked, never, session)
    assert leaks(said, *every) == []
    # Its own session is the client's to know.
    assert leaks("".join(mouth.answers[1:]), *every[:-1]) == []


@contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """What all loggers say at DEBUG, in both forms."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers = [logging.StreamHandler(stream) for _ in range(2)]
    handlers[0].setFormatter(JSONFormatter("n1"))
    handlers[1].setFormatter(TextFormatter("n1"))
    level = root.level
    root.setLevel(logging.DEBUG)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield stream
    finally:
        root.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)


async def test_tokens_good_and_bad_and_the_issuers_url_stay_secret() -> None:
    async with Issuer(1) as issuer:
        url_secret = secrets.token_urlsafe(24)
        url = issuer.url.replace("://", f"://reader:{url_secret}@") + f"?token={url_secret}"
        resolver = JwtTokens(issuer=ISSUER, audience=AUDIENCE, jwks_url=url, pause=0.01, max_age=0.05, deadline=0.5)
        unsigned = jwt.encode(claims(), None, algorithm="none", headers={"kid": "key-1"})
        credentials = [
            token(), token(exp=1), token(aud="https://elsewhere.example"), token(iss="https://evil.example"),
            token(9), token(tenant=None), token(headers={"kid": "x" * 300}), token()[:-8] + "AAAAAAAA", unsigned,
            secrets.token_urlsafe(40), "a.b." + secrets.token_urlsafe(40), "é" * 40, "x" * 9000,
        ]  # fmt: skip
        answers: list[str] = []
        with everything_logged() as stream:
            async with hosting(tenants_server(), tenants=resolver) as client:

                async def ask(credential: str) -> None:
                    call = await client.ask(
                        "initialize", OPEN["params"], headers={"authorization": f"Bearer {credential}"}
                    )
                    answers.append(f"{call.status} {call.headers} {call.body!r}")

                for credential in credentials:
                    await ask(credential)
                # The issuer answers nonsense, its own keys among it, and then nothing.
                issuer.body = json.dumps({"keys": "no"}).encode()
                await asyncio.sleep(0.06)
                await ask(token())
                issuer.hangs = True
                await asyncio.sleep(0.06)
                await ask(token(8))
        said = stream.getvalue()
    assert answers[0].startswith("200")
    assert {answer[:3] for answer in answers[1 : len(credentials)]} == {"401"}
    assert "the key set of http://127.0.0.1" in said
    # The parts that make a token one: its claims may be anybody's.
    parts = [credential.rpartition(".")[2] or credential for credential in credentials]
    among = [part for part in [*parts, *credentials, url_secret] if len(part) > 16]
    assert leaks(said, *among) == []
    assert leaks("".join(answers), *among) == []
    assert len(private_key(1).private_numbers().d.to_bytes(256, "big")) == 256
    assert public_jwk(1)["n"] not in said


URLS = [
    "nats://user:{}@127.0.0.1:notaport/bucket",
    "nats://user:{}@127.0.0.1:1/bad bucket",
    "sqlite://user:{}@host/file.db",
    "redis://user:{}@127.0.0.1:1/0",
    "rediss://:{}@127.0.0.1:notaport/0",
    "postgresql://user:{}@127.0.0.1:1/shop",
    "postgresql://user:{}@127.0.0.1:1/shop?nonsense=1",
    "dynamodb://user:{}@127.0.0.1:1/table",
    "mysql://user:{}@127.0.0.1/shop",
    "nonsense:user:{}@127.0.0.1",
    "{}",
]


@pytest.mark.parametrize("url", URLS)
async def test_a_store_that_cannot_be_opened_is_named_without_its_password(url: str) -> None:
    await assert_store_is_named_without(secrets.token_urlsafe(24), url)


async def open_and_ask(url: str) -> None:
    store = await open_store(url)
    try:
        await store.ping()
    finally:
        await store.aclose()


async def assert_store_is_named_without(secret: str, url: str) -> None:
    """The store at `url`, whose `{}` is the secret, cannot be opened, and nothing that is said of that has it."""
    with everything_logged() as stream:
        with pytest.raises(UnderstudyError) as caught:
            await asyncio.wait_for(open_and_ask(url.format(secret)), 20)
        # As the command line prints it, and as a log line with its traceback would be.
        logging.getLogger("understudy").error("the store", exc_info=caught.value)
    if url != "{}":
        # What is no URL at all may be anything, and its writer must see what it was.
        assert leaks(str(caught.value), secret) == []
        assert leaks(stream.getvalue(), secret) == []


def test_a_ring_of_keys_that_cannot_be_used_is_refused_without_being_shown(tmp_path: Path) -> None:
    for number, line in enumerate(("first {}", "{}", "first {} extra", "first {}\nfirst {}", "bad id! {}")):
        secret = base64.b64encode(os.urandom(31 if number == 0 else 32)).decode()
        file = tmp_path / f"ring-{number}"
        file.write_text(line.format(secret, secret) + "\n")
        file.chmod(0o600)
        with pytest.raises(UnderstudyError) as caught:
            KeyRing.from_file(file)
        assert leaks("".join(traceback.format_exception_only(caught.value)), secret) == []
