"""`parsed_once`: a tool that is declared again and again, for a server of each test's own, is parsed but once.

What the SDK makes of a function's signature is pydantic models, which takes it a millisecond a tool: a third of what
the tests of the edge would take. It depends on nothing but what stands in the key, and the runtime has the servers of
many sessions share it in the same way. A test whose subject is that says `parsed_anew`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mcp.server.mcpserver.tools import base
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata, func_metadata

PLAIN = (type(None), bool, int, float, str)


@contextmanager
def parsed_once() -> Iterator[None]:
    """Until the end of the block, `MCPServer` knows the signatures that it has parsed since its beginning."""
    parsed: dict[Hashable, tuple[FuncMetadata, dict[str, Any]]] = {}

    def remember(
        fn: Callable[..., Any], skip_names: Sequence[str] = (), structured_output: bool | None = None
    ) -> FuncMetadata:
        key = _key(fn, skip_names, structured_output)
        if key is None:
            return func_metadata(fn, skip_names, structured_output)
        if key not in parsed:
            # With the names of its module, which no other has while it is kept.
            parsed[key] = func_metadata(fn, skip_names, structured_output), fn.__globals__
        return parsed[key][0]

    with _parsing_by(remember):
        yield


@contextmanager
def parsed_anew() -> Iterator[None]:
    """Until the end of the block each is parsed for itself again."""
    with _parsing_by(func_metadata):
        yield


@contextmanager
def _parsing_by(parse: Callable[..., FuncMetadata]) -> Iterator[None]:
    before, base.func_metadata = base.func_metadata, parse
    try:
        yield
    finally:
        base.func_metadata = before


def _key(fn: Callable[..., Any], skip_names: Sequence[str], structured_output: bool | None) -> Hashable | None:
    """All that the signature of a plain function is made of; None: it has another."""
    if hasattr(fn, "__wrapped__") or hasattr(fn, "__signature__") or not hasattr(fn, "__code__"):
        return None
    defaults = [(type(value), value) for value in fn.__defaults__ or ()]
    by_name = [(type(value), value, name) for name, value in (fn.__kwdefaults__ or {}).items()]
    # 1 is True, as far as keys go. And nothing that somebody may ask to be gone is kept.
    if any(kind not in PLAIN for kind, *_ in (*defaults, *by_name)):
        return None
    key = (
        fn.__code__,
        fn.__name__,
        id(fn.__globals__),
        tuple(fn.__annotations__.items()),
        tuple(defaults),
        tuple(by_name),
        tuple(skip_names),
        structured_output,
    )
    try:
        hash(key)
    except TypeError:
        return None
    return key
