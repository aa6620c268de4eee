"""moto's DynamoDB as a server process: `python moto_front.py PORT [CERTIFICATE KEY]`. See `support.dynamodb`.

One request at a time, as moto is not made for threads, and DynamoDB does each item's writes one after the other. It
counts requests, and does to some of them what `POST /_faults` says. Requests go to moto's DynamoDB straight: on the way
that its own server has for them, it lists its modules and builds a Flask response each time, in twice the time.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from collections import Counter
from functools import lru_cache
from typing import Any

from aiohttp import web
from moto.core import responses
from moto.core.request import Request
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler
from werkzeug.test import EnvironBuilder

# It is asked by each request, and reads the whole class.
responses.method_names_from_class = lru_cache(responses.method_names_from_class)


def items_in_order(table: Table) -> list[Any]:
    """For `Table.all_items`, which compares keys in Python: for each page of a scan, a second in a large table."""
    items = [item for each in table.items.values() for item in (each.values() if table.range_key_attr else (each,))]
    return sorted(items, key=lambda item: (item.hash_key.value, item.range_key.value if item.range_key else ""))


Table.all_items = items_in_order

MAX_BODY = 64 * 2**20


class Front:
    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.faults: list[dict[str, Any]] = []
        self.away = False

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.path.startswith("/_"):
            return self.control(request.path, body)
        if self.away:
            return self.cut(request)
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        table = str(json.loads(body or b"{}").get("TableName", ""))
        self.counts.setdefault(table, Counter())[operation] += 1
        fault = self.fault_for(table, operation)
        if fault is None:
            return self.answer(request, body)
        if fault["done"]:
            self.answer(request, body)
        if fault["action"] == "cut":
            return self.cut(request)
        if fault["action"] == "hang":
            await asyncio.sleep(fault["seconds"])
            return self.cut(request)
        return web.Response(
            status=fault["status"], text=fault["text"], content_type=fault["type"], headers={"x-amzn-RequestId": "TEST"}
        )

    def control(self, path: str, body: bytes) -> web.Response:
        if path == "/_faults":
            self.faults.append(json.loads(body))
        return web.json_response(self.counts)

    def fault_for(self, table: str, operation: str) -> dict[str, Any] | None:
        for fault in self.faults:
            if fault["table"] == table and fault["operation"] in (operation, "*"):
                if fault["skip"]:
                    fault["skip"] -= 1
                    return None
                fault["times"] -= 1
                if not fault["times"]:
                    self.faults.remove(fault)
                return fault
        return None

    def answer(self, request: web.Request, body: bytes) -> web.Response:
        environ = EnvironBuilder(
            path=request.path, method=request.method, headers=list(request.headers.items()), data=body
        ).get_environ()
        status, headers, text = DynamoHandler.dispatch(Request(environ))
        kept = {name: str(value) for name, value in headers.items() if name.lower() not in ("content-length", "status")}
        return web.Response(status=int(status), body=text.encode() if isinstance(text, str) else text, headers=kept)

    @staticmethod
    def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


async def main() -> None:
    app = web.Application(client_max_size=MAX_BODY)
    front = Front()
    app.router.add_route("*", "/{path:.*}", front.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = None
    if len(sys.argv) > 2:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[2], sys.argv[3])
    changes: asyncio.Queue[bool] = asyncio.Queue()
    for number, away in ((signal.SIGUSR1, True), (signal.SIGUSR2, False)):
        asyncio.get_running_loop().add_signal_handler(number, changes.put_nowait, away)
    changes.put_nowait(False)
    site: web.TCPSite | None = None
    parent = os.getppid()
    while os.getppid() == parent:  # it ends with the tests, however those end
        try:
            async with asyncio.timeout(1):
                front.away = await changes.get()
        except TimeoutError:
            continue
        if front.away and site is not None:
            await site.stop()
            site = None
        elif not front.away and site is None:
            site = web.TCPSite(runner, "127.0.0.1", int(sys.argv[1]), ssl_context=context)
            await site.start()


if __name__ == "__main__":
    asyncio.run(main())
