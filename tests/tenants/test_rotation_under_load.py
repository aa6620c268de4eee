"""Credentials change while hundreds of calls are in flight through a real node: none is wrongly refused."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from chaos.http import Answer, Connection
from edge.client import hosting, initialize_params
from edge.sockets import carried
from support.patience import PATIENCE
from tenants import asking
from tenants import issuer as issuing
from tenants.asking import tenants_server
from tenants.issuer import AUDIENCE, ISSUER, Issuer
from understudy.runtime import ApiKey, ApiKeys, JwtTokens, TenantContext, new_api_key
from understudy.runtime.credentials.api_key_lines import key_line

ADA = TenantContext("acme", "ada")
IN_FLIGHT = 200
SESSIONS = 6
HEADERS = "accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n"


class Load:
    """Connections to a node, each with one call in flight at most."""

    def __init__(self, port: int) -> None:
        self._idle = [Connection("127.0.0.1", port) for _ in range(IN_FLIGHT * 2 + 60)]
        self._sessions: list[str] = []
        self._ids = count(1)

    async def ask(self, credential: str, opening: bool = False) -> Answer:
        connection = self._idle.pop()
        number = next(self._ids)
        try:
            lines = f"{HEADERS}authorization: Bearer {credential}\r\n"
            if opening:
                message = {"method": "initialize", "params": initialize_params()}
            else:
                message = {"method": "tools/list"}
                lines += self._sessions[number % SESSIONS]
            body = json.dumps({"jsonrpc": "2.0", "id": number, **message}).encode()
            return await connection.request("POST", "/mcp", lines, body)
        finally:
            self._idle.append(connection)

    async def open(self, credential: str) -> None:
        for _ in range(SESSIONS):
            answer = await self.ask(credential, opening=True)
            session = answer.headers["mcp-session-id"]
            self._sessions.append(f"mcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n")

    async def all(self, credentials: Iterable[str]) -> Counter[int]:
        """How the answers to one call with each, all in flight together, are spread over HTTP statuses."""
        answers = await asyncio.gather(*(self.ask(credential) for credential in credentials))
        return Counter(answer.status for answer in answers)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


@asynccontextmanager
async def node(tenants: Any) -> AsyncGenerator[Load]:
    async with (
        hosting(tenants_server(), tenants=tenants) as client,
        carried(client, "hypercorn") as port,
    ):
        load = Load(port)
        try:
            yield load
        finally:
            load.close()


def public_jwk(number: int) -> dict[str, Any]:
    return issuing.public_jwk(number, "EdDSA")


def token(number: int, **more: Any) -> str:
    # Quick to sign: the load is the node's.
    return issuing.token(number, "EdDSA", **more)


def tokens_of(*numbers: int, many: int = IN_FLIGHT) -> list[str]:
    """New tokens, signed with these keys in turn: nothing of them is remembered."""
    return [token(numbers[place % len(numbers)], jti=f"{time.time()} {place}") for place in range(many)]


PAUSE = 0.25
MAX_AGE = 1.0


async def test_signing_keys_rotate_under_load_without_one_wrongly_refused_call() -> None:
    async with Issuer() as issuer:
        issuer.keys = [public_jwk(1)]
        resolver = JwtTokens(
            issuer=ISSUER, audience=AUDIENCE, jwks_url=issuer.url, pause=PAUSE, max_age=MAX_AGE, deadline=3.0
        )
        old = tokens_of(1, many=1)[0]
        async with node(resolver) as load:
            await load.open(old)
            # The new key is good as soon as it is published, and the old one still is.
            issuer.keys = [public_jwk(1), public_jwk(2)]
            asked = issuer.asked
            assert await load.all(tokens_of(1, 2)) == {200: IN_FLIGHT}
            assert issuer.asked - asked <= 3

            # The issuer is out of reach: what is known serves on, and what cannot be told is no verdict.
            issuer.status = 500
            await asyncio.sleep(MAX_AGE)
            assert await load.all(tokens_of(1, 2)) == {200: IN_FLIGHT}
            issuer.status, issuer.hangs = 200, True
            assert await load.all(tokens_of(1, 2)) == {200: IN_FLIGHT}
            assert (await load.ask(token(3))).status == 503
            issuer.hangs = False

            # A key that is removed is refused once the keys have been fetched again, at the latest when they are old.
            issuer.keys = [public_jwk(2)]
            removed = time.monotonic()
            while (await load.ask(old)).status == 200:
                await asyncio.sleep(0.02)
                # The failures before may have made the pause between fetches longer.
                assert time.monotonic() - removed < PATIENCE
            assert (await load.ask(old)).status == 401
            assert await load.all(tokens_of(2)) == {200: IN_FLIGHT}


async def test_forged_keys_neither_make_a_storm_of_fetches_nor_push_out_good_tokens() -> None:
    async with Issuer() as issuer:
        issuer.keys = [public_jwk(1)]
        resolver = JwtTokens(issuer=ISSUER, audience=AUDIENCE, jwks_url=issuer.url, pause=PAUSE)
        good = tokens_of(1, many=20)
        async with node(resolver) as load:
            await load.open(good[0])
            began, asked = time.monotonic(), issuer.asked
            forged = [token(9, headers={"kid": f"forged-{place}"}) for place in range(IN_FLIGHT)]
            async with asyncio.TaskGroup() as tasks:
                storm = tasks.create_task(load.all(forged))
                await asyncio.sleep(PAUSE / 2)
                # Who brings a good key waits for the next fetch beside all of them.
                issuer.keys = [public_jwk(1), public_jwk(2)]
                assert await load.all(good + tokens_of(2, many=IN_FLIGHT - len(good))) == {200: IN_FLIGHT}
            assert storm.result() == {401: IN_FLIGHT}
            assert issuer.asked - asked <= (time.monotonic() - began) / PAUSE + 1


def write_in_place(file: Path, *keys: ApiKey) -> None:
    """As an editor may: the file is empty first, then there in part, then whole."""
    text = "".join(f"{key_line(key)}\n" for key in keys)
    with file.open("w") as opened:
        opened.flush()
        time.sleep(0.02)
        opened.write(text[: len(text) // 2 + 1])
        opened.flush()
        time.sleep(0.02)
        opened.write(text[len(text) // 2 + 1 :])


async def test_api_keys_rotate_under_load_without_one_wrongly_refused_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.runtime.credentials.api_key_file.READ_TIMEOUT", PATIENCE)
    file = tmp_path / "keys.toml"
    texts = [new_api_key() for _ in range(3)]
    keys = [ApiKey.of(text, ADA) for text in texts]
    write_in_place(file, keys[0])
    resolver = ApiKeys.from_file(file, check_every=0.5)
    async with node(resolver) as load:
        await load.open(texts[0])
        wrong: Counter[int] = Counter()
        served = 0
        current = [texts[0]]
        stop = asyncio.Event()

        async def call() -> None:
            nonlocal served
            while not stop.is_set():
                status = (await load.ask(current[0])).status
                served += status == 200
                wrong[status] += status != 200

        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(call())
            for number in range(1, len(texts)):
                # The file is written under the node's eyes, and who has the new key uses it at once.
                await asyncio.to_thread(write_in_place, file, keys[number - 1], keys[number])
                assert await load.all([texts[number]] * IN_FLIGHT) == {200: IN_FLIGHT}
                current[0] = texts[number]
                await asyncio.sleep(0.1)
                await asyncio.to_thread(write_in_place, file, keys[number])
                removed = time.monotonic()
                while (await load.ask(texts[number - 1])).status == 200:
                    await asyncio.sleep(0.02)
                    assert time.monotonic() - removed < PATIENCE
            stop.set()
        assert +wrong == Counter()
        assert served > 100
        assert resolver.stats()["key_reload_failures_total"] == 0


async def test_what_was_never_a_key_does_not_keep_threads_at_work(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    text = new_api_key()
    write_in_place(file, ApiKey.of(text, ADA))
    resolver = ApiKeys.from_file(file)
    looks = 0
    assert resolver._file is not None
    look_again = resolver._file._look_again

    def counted() -> Any:
        nonlocal looks
        looks += 1
        return look_again()

    resolver._file._look_again = counted  # type: ignore[method-assign]
    async with node(resolver) as load:
        await load.open(text)
        began = time.monotonic()
        for _ in range(2):
            assert await load.all(new_api_key() for _ in range(IN_FLIGHT)) == {401: IN_FLIGHT}
        assert looks <= (time.monotonic() - began) / 0.25 + 1
        assert (await load.ask(text)).status == 200


async def test_a_thousand_who_bring_tokens_of_a_new_key_at_once_are_all_let_in() -> None:
    async with Issuer() as issuer:
        issuer.keys = [public_jwk(1)]
        resolver = JwtTokens(issuer=ISSUER, audience=AUDIENCE, jwks_url=issuer.url, pause=PAUSE)
        assert (await asking.ask(resolver, token(1))).principal == "ada"
        issuer.keys = [public_jwk(1), public_jwk(2)]
        asked = issuer.asked
        told = await asyncio.gather(*(asking.ask(resolver, each) for each in tokens_of(2, many=1000)))
    assert {each.principal for each in told} == {"ada"}
    assert issuer.asked == asked + 1
