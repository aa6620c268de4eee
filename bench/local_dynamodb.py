"""The DynamoDB that a benchmark starts for itself: moto, which has the API and nothing of the service behind it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.util import find_spec

from .local_server import LocalServer

__all__ = ["dynamodb_missing", "local_dynamodb"]

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_EC2_METADATA_DISABLED": "true"}


def dynamodb_missing() -> str | None:
    """Why there can be no moto here; None if there can."""
    if find_spec("moto") is None or find_spec("aiobotocore") is None:
        return "dynamodb: there is no moto, or no aiobotocore: pip install 'moto[server]' 'understudy[dynamodb]'"
    return None


@asynccontextmanager
async def local_dynamodb() -> AsyncGenerator[str]:
    """The URL of a table on a free port of 127.0.0.1. Until it ends, this process has credentials that mean nothing.

    Raises:
        Refused: It does not start.
    """
    from ..stores.dynamodb.creating import create_table
    from ..stores.dynamodb.settings import DynamoSettings

    before = {name: os.environ.get(name) for name in _CREDENTIALS}
    os.environ.update(_CREDENTIALS)
    try:
        with LocalServer("moto") as server:
            server.start(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server.port))
            await server.answers(b"GET /moto-api/ HTTP/1.0\r\n\r\n", b"HTTP/")
            endpoint = f"http://127.0.0.1:{server.port}"
            await create_table(DynamoSettings("understudy-bench", "us-east-1", endpoint))
            yield f"dynamodb://understudy-bench?region=us-east-1&endpoint={endpoint}"
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
