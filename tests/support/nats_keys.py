"""NKeys and JWTs for tests of NATS, as the tool `nsc` makes them."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SEED = 18 << 3
_PREFIXES = {"operator": 14 << 3, "account": 0, "user": 20 << 3}


class NKey:
    """A new key pair of an operator, an account or a user."""

    def __init__(self, kind: str) -> None:
        self._private = Ed25519PrivateKey.generate()
        prefix = _PREFIXES[kind]
        raw = serialization.Encoding.Raw
        public = self._private.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
        private = self._private.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        self.public = _encoded(bytes([prefix]) + public)
        self.seed = _encoded(bytes([_SEED | prefix >> 5, (prefix & 31) << 3]) + private)

    def jwt(self, subject: NKey, claims: dict[str, Any]) -> str:
        """A JWT about `subject`, signed by this key."""
        body = {
            "jti": secrets.token_hex(16).upper(),
            "iat": int(time.time()),
            "iss": self.public,
            "name": "test",
            "sub": subject.public,
            "nats": {"version": 2, **claims},
        }
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = ".".join(_base64(json.dumps(part).encode()) for part in (head, body))
        return f"{text}.{_base64(self._private.sign(text.encode()))}"


@dataclass(frozen=True, slots=True)
class Operator:
    """A server's configuration in which accounts and users are told by JWTs, and the file of one user."""

    config: dict[str, Any]
    creds: Path
    creds_without_jetstream: Path
    creds_of_a_stranger: Path


def make_operator(directory: Path) -> Operator:
    """An operator with an account that may use JetStream, one that may not, and a user that nobody knows."""
    directory.mkdir(exist_ok=True)
    operator, system = NKey("operator"), NKey("account")
    accounts = {"creds": NKey("account"), "creds_without_jetstream": NKey("account")}
    stranger = NKey("account")
    files: dict[str, Path] = {}
    for name, account in [*accounts.items(), ("creds_of_a_stranger", stranger)]:
        user = NKey("user")
        jwt = account.jwt(user, {"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1})
        files[name] = directory / f"{name}.creds"
        files[name].write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )
    preload = {system.public: operator.jwt(system, _account(jetstream=False))}
    preload |= {
        account.public: operator.jwt(account, _account(jetstream=name == "creds")) for name, account in accounts.items()
    }
    config = {
        "operator": operator.jwt(operator, {"type": "operator"}),
        "system_account": system.public,
        "resolver": "MEMORY",
        "resolver_preload": preload,
    }
    return Operator(config, **files)


def _account(*, jetstream: bool) -> dict[str, Any]:
    limits: dict[str, Any] = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    limits["wildcards"] = True
    if jetstream:
        limits |= dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    return {"type": "account", "limits": limits, "default_permissions": {"pub": {}, "sub": {}}}


def _encoded(raw: bytes) -> str:
    return base64.b32encode(raw + _crc16(raw).to_bytes(2, "little")).decode().rstrip("=")


def _crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
