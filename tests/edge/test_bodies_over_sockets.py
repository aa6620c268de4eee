"""Bodies that lie about their length, come late, or never: over each HTTP server that can carry the app."""

from __future__ import annotations

import asyncio
import json

import pytest
from edge.client import Client, hosting
from edge.server import make_server
from edge.sockets import carried, dialled, head
from support.patience import PATIENCE
from understudy.runtime.commands.http_servers import HTTP_SERVERS
from understudy.runtime.edge import unread

pytestmark = pytest.mark.parametrize("server", list(HTTP_SERVERS))


def increment(client: Client) -> bytes:
    return client.message("tools/call", {"name": "increment", "arguments": {}})


async def counts(client: Client, expected: int) -> None:
    assert await client.tool("increment") == expected


async def test_a_body_shorter_than_it_says_is_waited_for_no_longer_than_the_timeout(server: str) -> None:
    async with hosting(make_server(), body_timeout=0.2) as client:
        await client.open()
        async with carried(client, server) as port, dialled(port) as line:
            body = increment(client)
            await line.say(head(client, f"Content-Length: {len(body) + 1}") + body)
            answer = await line.answer()
            assert answer.status == 408
            assert json.loads(answer.body)["error"]["code"] == -32700
        await counts(client, 1)


async def test_a_body_longer_than_it_says_is_cut_where_it_said(server: str) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        async with carried(client, server) as port, dialled(port) as line:
            body = increment(client)
            await line.say(head(client, f"Content-Length: {len(body) - 1}") + body + b"\r\n\r\n")
            assert (await line.answer()).status == 400
            rest = await line.ended()
            assert not rest or b" 400 " in rest.split(b"\r\n")[0], "what is left over is no request"
        await counts(client, 1)


async def test_a_client_that_hangs_up_within_its_body_runs_nothing(server: str) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        async with carried(client, server) as port:
            for _ in range(10):
                async with dialled(port) as line:
                    body = increment(client)
                    await line.say(head(client, f"Content-Length: {len(body)}") + body[:-1])
                    await asyncio.sleep(0.005)
            async with asyncio.timeout(PATIENCE):
                while len(client.runtime.edge._handshake._posts._bodies._patience):
                    await asyncio.sleep(0.01)
        await counts(client, 1)


async def test_a_body_that_says_it_is_too_large_is_refused_at_once(server: str) -> None:
    async with hosting(make_server(), max_body=1000) as client:
        await client.open()
        async with carried(client, server) as port, dialled(port) as line:
            await line.say(head(client, "Content-Length: 1000000000000"))
            assert (await line.answer()).status == 413
        await counts(client, 1)


async def test_a_body_in_chunks_without_end_is_refused_when_it_is_too_large(server: str) -> None:
    async with hosting(make_server(), max_body=1000) as client:
        await client.open()
        async with carried(client, server) as port, dialled(port) as line:
            await line.say(head(client, "Transfer-Encoding: chunked"))
            for _ in range(11):
                await line.say(b"64\r\n" + b" " * 100 + b"\r\n")
            assert (await line.answer()).status == 413
        await counts(client, 1)


async def test_a_body_in_chunks_is_put_together(server: str) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        async with carried(client, server) as port, dialled(port) as line:
            await line.say(head(client, "Transfer-Encoding: chunked"))
            for at in increment(client):
                await line.say(b"1\r\n" + bytes([at]) + b"\r\n")
            await line.say(b"0\r\n\r\n")
            answer = await line.answer()
            assert (answer.status, b'"result":1' in answer.body) == (200, True)
        await counts(client, 2)


async def test_a_body_that_never_ends_is_given_up(server: str) -> None:
    async with hosting(make_server(), body_timeout=0.2) as client:
        await client.open()
        async with carried(client, server) as port, dialled(port) as line:
            await line.say(head(client, "Transfer-Encoding: chunked") + b"1\r\n{\r\n")
            async with asyncio.TaskGroup() as tasks:
                answer = tasks.create_task(line.answer())
                while not answer.done():
                    await line.say(b"1\r\n \r\n")
                    await asyncio.sleep(0.02)
            assert answer.result().status == 408
        await counts(client, 1)


async def test_a_client_that_waits_to_be_told_to_continue_is_told(server: str) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        async with carried(client, server) as port, dialled(port) as line:
            body = increment(client)
            await line.say(head(client, f"Content-Length: {len(body)}", "Expect: 100-continue"))
            assert (await line.answer()).status == 100
            await line.say(body)
            assert (await line.answer()).status == 200
        await counts(client, 2)


async def test_a_refused_client_need_not_send_its_body(server: str) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        async with carried(client, server) as port, dialled(port) as line:
            request = head(client, "Content-Length: 3000000", "Expect: 100-continue", "Origin: https://evil.example")
            await line.say(request)
            answer = await line.answer()
            if answer.status == 100:  # hypercorn says so before it asks the app
                answer = await line.answer()
            assert answer.status == 403
        await counts(client, 1)


async def test_a_length_that_is_no_number_reaches_nobody(server: str) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        async with carried(client, server) as port:
            body = increment(client)
            for lines in (
                ["Content-Length: -1"],
                ["Content-Length: abc"],
                [f"Content-Length: {len(body)}", f"Content-Length: {len(body) - 5}"],
            ):
                async with dialled(port) as line:
                    await line.say(head(client, *lines) + body)
                    said = await line.ended()
                    assert not said or b" 400 " in said.split(b"\r\n")[0], said
        await counts(client, 1)


async def test_requests_behind_each_other_on_one_connection_are_answered_in_order(server: str) -> None:
    async with hosting(make_server()) as client:
        await client.open()
        async with carried(client, server) as port, dialled(port) as line:
            for number in range(1, 6):
                body = client.message("ping", id=number)
                await line.say(head(client, f"Content-Length: {len(body)}") + body)
            for number in range(1, 6):
                assert json.loads((await line.answer()).body)["id"] == number


async def test_a_body_that_does_not_come_is_not_waited_for_before_it_is_refused(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "LINGER", 3600.0)
    async with (
        hosting(make_server(), max_body=1000) as client,
        carried(client, server) as port,
        dialled(port) as line,
    ):
        await line.say(head(client, "Content-Length: 1000000"))
        assert (await line.answer()).status == 413
        line.hang_up()
