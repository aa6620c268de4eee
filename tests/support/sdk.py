"""`python sdk.py TARGET --host H --port P [--events]`: the target on the SDK's own HTTP stack, to compare with."""

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from mcp.server.mcpserver import MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.types import JSONRPCMessage


class Events(EventStore):
    """Every event of the process, in order. Unbounded: for a test run of seconds."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id)
        if not 0 < last <= len(self._events):
            return None
        stream_id = self._events[last - 1][0]
        for number, (stream, message) in enumerate(self._events[last:], last + 1):
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id


def load(target: str) -> MCPServer:
    source, _, attribute = target.rpartition(":")
    return getattr(_module(source), attribute)


def _module(source: str) -> ModuleType:
    if not source.endswith(".py"):
        return importlib.import_module(source)
    spec = importlib.util.spec_from_file_location(Path(source).stem, source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--events", action="store_true")
    options, _ = parser.parse_known_args()
    load(options.target).run(
        "streamable-http",
        host=options.host,
        port=options.port,
        event_store=Events() if options.events else None,
        retry_interval=500 if options.events else None,
    )


if __name__ == "__main__":
    main()
