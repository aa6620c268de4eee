"""A name that must not be known, asked for under one that nobody can know.

Some handlers are not the SDK's: they get the name and say in words of their own that they do not know it. The answer
to a hidden name is what they say to a name that they cannot have heard of, with the one put in place of the other.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

from mcp.shared.exceptions import MCPError

__all__ = ["Ask", "ask_disguised"]

Ask = Callable[[Mapping[str, Any] | None], Awaitable[dict[str, Any]]]
"""Runs a request with these params."""

_KEY: Final = secrets.token_bytes(32)
_DEEPEST: Final = 100


def stand_in(name: str) -> str:
    """What `name` is called instead: the same each time, so that who keeps what was asked for keeps it once."""
    digest = hashlib.blake2s(name.encode("utf-8", "surrogatepass"), key=_KEY, digest_size=16).hexdigest()
    scheme, colon, _ = name.partition("://")
    return f"{scheme}{colon}u{digest}" if colon else f"u{digest}"


async def ask_disguised(ask: Ask, params: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """What `ask` answers to `params` with the name at `path` replaced, and then put back into the answer.

    Raises:
        Whatever `ask` raises, with the name in it.
    """
    name = cast("Any", params)
    for step in path:
        name = name[step]
    other = stand_in(name)
    try:
        return _replaced(await ask(_with(params, path, other)), other, name)
    except MCPError as error:
        told = error.error
        raise MCPError(
            code=told.code, message=told.message.replace(other, name), data=_replaced(told.data, other, name)
        ) from error
    except Exception as error:
        error.args = tuple(arg.replace(other, name) if isinstance(arg, str) else arg for arg in error.args)
        raise


def _with(params: Mapping[str, Any], path: tuple[str, ...], value: str) -> dict[str, Any]:
    step, *rest = path
    return {**params, step: _with(params[step], tuple(rest), value) if rest else value}


def _replaced(value: Any, old: str, new: str, depth: int = 0) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if depth > _DEEPEST:
        return value
    if isinstance(value, dict):
        known = cast("dict[str, Any]", value)
        return {key.replace(old, new): _replaced(inner, old, new, depth + 1) for key, inner in known.items()}
    if isinstance(value, list):
        return [_replaced(inner, old, new, depth + 1) for inner in cast("list[Any]", value)]
    return value
