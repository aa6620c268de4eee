"""A request that is refused before its body has been read: a client that sends all before it listens hears why.

Not over granian, whose engine may close a connection as soon as its answer is complete: there it mostly does.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from edge.client import hosting
from edge.server import make_server
from edge.sockets import carried, dialled, head
from understudy.runtime import TenantContext, Unauthenticated


@pytest.mark.parametrize("server", ["hypercorn", "uvicorn"])
@pytest.mark.parametrize("refused", ["too large", "compressed", "of no known tenant", "by host", "by type"])
async def test_a_client_that_sends_all_before_it_listens_hears_why_it_is_refused(server: str, refused: str) -> None:
    def nobody(_: object) -> TenantContext:
        raise Unauthenticated

    options: dict[str, Any] = {"tenants": nobody} if refused == "of no known tenant" else {}
    size = 12 * 2**20
    cases: dict[str, tuple[int, tuple[str, ...]]] = {
        "too large": (413, ()),
        "compressed": (415, ("Content-Encoding: gzip",)),
        "of no known tenant": (401, ()),
        "by host": (421, ()),
        "by type": (415, ()),
    }
    status, line_of = cases[refused]
    async with hosting(make_server(), max_body=size - 1 if refused == "too large" else size, **options) as client:
        text = head(client, *line_of, f"Content-Length: {size}").decode()
        if refused == "by host":
            text = text.replace("Host: ", "Host: elsewhere.")
        if refused == "by type":
            text = text.replace("application/json\r\n", "text/plain\r\n", 1)
        async with carried(client, server) as port, dialled(port) as line:
            await line.say(text.encode() + b" " * size)
            answer = await line.answer()
            assert answer.status == status
            assert json.loads(answer.body)["error"]["message"]
