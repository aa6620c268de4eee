"""An issuer of tokens: real keys, and a real HTTP server that publishes them."""

from __future__ import annotations

import asyncio
import json
import time
from functools import cache
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from support.serving import serving

ISSUER = "https://auth.example.com"
AUDIENCE = "https://mcp.example.com/mcp"


def private_key(number: int, algorithm: str = "RS256") -> Any:
    """The same for the same arguments: an RSA key takes long to make."""
    # Not cached itself: with its default left out, and with it written, it would be two keys.
    return _private_key(number, algorithm)


@cache
def _private_key(number: int, algorithm: str) -> Any:
    if algorithm.startswith("ES"):
        return ec.generate_private_key({"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}[algorithm])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_jwk(number: int, algorithm: str = "RS256", **more: Any) -> dict[str, Any]:
    jwk: Any = jwt.get_algorithm_by_name(algorithm).to_jwk(private_key(number, algorithm).public_key(), as_dict=True)
    return {**jwk, "kid": f"key-{number}", **more}


def claims(**changed: Any) -> dict[str, Any]:
    """Good claims; those of value None are left out."""
    # Long, as some are made when tests are collected.
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 86_400, "sub": "ada", "tenant": "acme", "scope": "use read"}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def token(number: int = 1, algorithm: str = "RS256", *, headers: dict[str, Any] | None = None, **changed: Any) -> str:
    head = {"kid": f"key-{number}", **(headers or {})}
    head = {name: value for name, value in head.items() if value is not None}
    return jwt.encode(claims(**changed), private_key(number, algorithm), algorithm=algorithm, headers=head)


class Issuer:
    """Publishes `keys` at `url`, on loopback, and counts who asks."""

    def __init__(self, *numbers: int) -> None:
        self.keys: list[dict[str, Any]] = [public_jwk(number) for number in numbers]
        self.body: bytes | None = None
        self.status = 200
        self.encoding: str | None = None
        """What `body` is said to be compressed with."""
        self.head = b""
        """Of the latest question."""
        self.hangs = False
        self.asked = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._serving = serving(self._answer)
        self.url = f"http://127.0.0.1:{await self._serving.__aenter__()}/jwks.json"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._serving.__aexit__(exc_type, exc, tb)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.head = await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if self.hangs:
                # Until the client gives up.
                await reader.read()
                return
            body = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body
            encoding = "" if self.encoding is None else f"content-encoding: {self.encoding}\r\n"
            head = f"HTTP/1.1 {self.status} X\r\n{encoding}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass
