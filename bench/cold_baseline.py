"""The process that `understudy bench coldstart` compares with: `python -m understudy.bench.cold_baseline hypercorn FD`.

The SDK's own stateless HTTP application, on the HTTP server and the event loop that `understudy serve` takes. There is
nothing of understudy in it but this file and the server that it hosts.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from importlib.util import find_spec
from typing import Any

from .cold_server import server

__all__ = ["main"]


async def main(http: str, sock: socket.socket) -> None:
    """Serve on `sock`, which listens already, until the process is killed."""
    # As untyped as each other: both take any ASGI application.
    app: Any = server.streamable_http_app(stateless_http=True, json_response=True, host="0.0.0.0")
    if http == "uvicorn":
        import uvicorn

        config = uvicorn.Config(app, ws="none", log_config=None, access_log=False)
        await uvicorn.Server(config).serve(sockets=[sock])
        return
    from hypercorn import asyncio as hypercorn
    from hypercorn.config import Config

    settings = Config()
    settings.loglevel = "WARNING"
    settings.bind = [f"fd://{sock.detach()}"]
    serve: Any = hypercorn.serve  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    await serve(app, settings, mode="asgi")


if __name__ == "__main__":
    listening = socket.socket(fileno=int(sys.argv[2]))
    listening.setblocking(False)
    if find_spec("uvloop") is not None:
        import uvloop

        uvloop.run(main(sys.argv[1], listening))
    else:
        asyncio.run(main(sys.argv[1], listening))
