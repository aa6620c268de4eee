"""Encryption at rest, from the command line down to the file."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mcp.client import Client
from mcp.server.mcpserver import MCPServer
from support import ServerProcess
from understudy.runtime import ConfigurationError, Runtime
from understudy.runtime.commands.cli import main
from understudy.runtime.commands.config import ConfigError, ServeOptions
from understudy.runtime.commands.serve import make_runtime
from understudy.runtime.commands.target import Target
from understudy.stores import KeyRing, KeyRingError, MasterKey, MemoryEventLog, MemoryStore, SealBroken

DEMO = "understudy.runtime.demo:server"
SECRET = "the fact that nobody should find"

Serve = Callable[..., ServerProcess]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"first {base64.b64encode(os.urandom(32)).decode()}\n")
    return file


async def test_sessions_outlive_their_server_and_cannot_be_read_in_its_file(
    serve: Serve, tmp_path: Path, keys: Path
) -> None:
    (data := tmp_path / "data").mkdir()
    args = ("--store", f"sqlite:///{data / 'sessions.db'}", "--encryption-keys", str(keys))
    async with serve(DEMO, *args) as server, Client(server.url, mode="legacy") as client:
        await client.call_tool("remember", {"fact": SECRET})
        found = _everything_in(data)
        await server.akill()
        _put_first("second", keys)
        await server.astart()
        result = await client.call_tool("recall", {})
        assert SECRET in str(result.content)
        await client.call_tool("remember", {"fact": "another"})
        found += _everything_in(data)
    assert b"\xc1us\x01\x05first" in found
    assert b"\xc1us\x01\x06second" in found
    assert SECRET.encode() not in found


async def test_a_runtime_encrypts_what_it_is_given(keys: Path) -> None:
    store = MemoryStore()
    runtime = Runtime(MCPServer("s"), store=store, encryption=KeyRing.from_file(keys))
    async with runtime:
        assert runtime.stats()["store_encryption_sealed_total"] == 0
        assert b"understudy_store_encryption_refused_total" in runtime.metrics()[0]


def test_what_contradicts_itself_is_refused(tmp_path: Path, keys: Path) -> None:
    ring = KeyRing.from_file(keys)
    with pytest.raises(ConfigurationError, match="event_log"):
        Runtime(MCPServer("s"), encryption=ring, event_log=MemoryEventLog())
    with pytest.raises(ConfigurationError, match="encryption_allows_plain"):
        Runtime(MCPServer("s"), encryption_allows_plain=True)
    with pytest.raises(ConfigError, match="--encryption-keys"):
        ServeOptions(encryption_allow_plain=True)
    with pytest.raises(KeyRingError, match="cannot be read"):
        ServeOptions(encryption_keys=tmp_path / "nowhere")


def test_the_command_line_says_in_one_line_what_is_wrong_with_the_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("c2VjcmV0\n")
    result = CliRunner().invoke(main, ["serve", "m:a", "--encryption-keys", str(file)])
    assert result.exit_code == 2
    assert "line 1" in result.output
    assert "c2VjcmV0" not in result.output


def test_the_keys_reach_the_runtime(monkeypatch: pytest.MonkeyPatch, keys: Path) -> None:
    monkeypatch.setattr("understudy.runtime.runtime.Runtime", lambda server, **given: given)
    options = ServeOptions(encryption_keys=keys, encryption_allow_plain=True)
    made: Any = make_runtime(Target("m:a", "s", None), "memory://", options, 8000)
    assert made["encryption"].ids == ("first",)
    assert made["encryption_allows_plain"] is True


async def test_a_session_whose_key_is_gone_gets_an_error_and_keeps_its_record(keys: Path) -> None:
    from understudy.stores import Address, EncryptedStore

    inner, address = MemoryStore(), Address.new("session")
    await EncryptedStore(inner, KeyRing.from_file(keys)).create(
        address, tenant="acme", owner="n", snapshot=b"one", ttl=60
    )
    before = await inner.load(address)
    other = EncryptedStore(inner, KeyRing([MasterKey("other", bytes(32))]))
    with pytest.raises(SealBroken, match="put it back"):
        await other.load(address)
    assert await inner.load(address) == before


def _put_first(id: str, file: Path) -> None:
    file.write_text(f"{id} {base64.b64encode(os.urandom(32)).decode()}\n{file.read_text()}")


def _everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())
