"""`tenant.secrets`: there when a tool asks, and nowhere else."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import logging
import os
import pickle  # noqa: TID251
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import pydantic_core
import pytest
from edge.client import Client, ModernClient, hosting, hosting_modern
from edge.test_session_ids import by_bearer
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from tenants.running import as_tenant
from understudy.actors.session.state import pack_state
from understudy.actors.session.tenants.errors import NotOffered
from understudy.actors.session.tenants.helpers import TenantHelpers
from understudy.actors.session.tenants.redaction import MOST_KNOWN, RedactingFilter, Redactor
from understudy.actors.session.tenants.secrets import MOST_PARTIES, SecretKeeper
from understudy.actors.session.tenants.secrets_file import SecretsFileError
from understudy.runtime import (
    ProtectedResource,
    Runtime,
    Secret,
    SecretMissing,
    SecretsFile,
    SecretsUnavailable,
    Session,
    StateError,
    TenantContext,
    WrongTenant,
    by_host,
    current_tenant,
)

TEXT = "sk-live-Zx9'\"\\\n%ü"


class Vault:
    """The operator's function."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None
        self.version = 1

    async def __call__(self, tenant: TenantContext) -> Mapping[str, str | Secret]:
        self.asked.append(f"{tenant.tenant}/{tenant.principal}")
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return {"TOKEN": f"token-of-{tenant.tenant}-{tenant.principal}-{self.version}"}


def offering(source: Any, **options: Any) -> TenantHelpers:
    return TenantHelpers(secrets=SecretKeeper(source, **options))


# A secret


def test_a_secret_shows_itself_to_nobody_but_who_asks() -> None:
    secret = Secret(TEXT)
    assert secret.reveal() == TEXT
    try:
        raise ValueError(secret)
    except ValueError as error:
        trace = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    shown = [
        repr(secret),
        str(secret),
        f"{secret} {secret!r} {secret:>30} {secret!s}",
        "%s %r" % (secret, secret),  # noqa: UP031
        trace.replace("TEXT", "").replace(repr(TEXT), ""),
        repr([secret]),
        repr(dir(secret)),
        pydantic_core.to_json({"a": secret}, fallback=str).decode(),
    ]
    for text in shown:
        assert "Zx9" not in text, text
    for write in (
        pickle.dumps,
        json.dumps,
        msgpack.packb,
        lambda value: pack_state({"a": value}, 10_000),
        vars,
        pydantic_core.to_json,
    ):
        with pytest.raises((TypeError, StateError, pydantic_core.PydanticSerializationError)) as caught:
            write(secret)
        assert "Zx9" not in str(caught.value)
    with pytest.raises(AttributeError):
        secret.other = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        secret.__init__("another")  # type: ignore[misc]
    assert copy.deepcopy(secret) is copy.copy(secret) is secret
    assert secret == Secret(TEXT) != Secret("other")
    assert hash(secret) == hash(Secret(TEXT))
    assert secret
    assert not Secret("")
    text: Any = b"bytes-Zx9"
    with pytest.raises(TypeError) as wrong:
        Secret(text)
    assert "Zx9" not in str(wrong.value)


def test_a_secret_in_the_claims_is_refused_as_claims_cross_between_nodes() -> None:
    with pytest.raises(ValueError, match="the claim 'key' is a Secret") as caught:
        TenantContext("acme", "ada", claims={"key": Secret(TEXT)})
    assert "Zx9" not in str(caught.value)


# Their source


async def test_each_principal_has_his_own_and_is_asked_for_once() -> None:
    vault = Vault()
    async with offering(vault) as helpers:
        assert vault.asked == []
        with as_tenant(helpers, "acme", "ada") as ada:
            assert (await ada.secrets.get("TOKEN")).reveal() == "token-of-acme-ada-1"
            assert await ada.secrets.reveal("TOKEN") == "token-of-acme-ada-1"
            assert await ada.secrets.reveal_all() == {"TOKEN": "token-of-acme-ada-1"}
            assert await ada.secrets.names() == ["TOKEN"]
            assert await ada.secrets.get("OTHER", None) is None
            with pytest.raises(SecretMissing, match="no secret 'OTHER'"):
                await ada.secrets.get("OTHER")
            kept = ada.secrets
        with as_tenant(helpers, "acme", "bob") as bob:
            assert await bob.secrets.reveal("TOKEN") == "token-of-acme-bob-1"
            with pytest.raises(WrongTenant):
                await kept.reveal("TOKEN")
        with as_tenant(helpers, "evil", "ada"):
            with pytest.raises(WrongTenant):
                await kept.get("TOKEN")
            with pytest.raises(WrongTenant):
                _ = ada.secrets
        assert vault.asked == ["acme/ada", "acme/bob"]
    async with TenantHelpers() as helpers:
        with as_tenant(helpers, "acme") as acme, pytest.raises(NotOffered, match=r"Runtime\(\.\.\., secrets=\)"):
            await acme.secrets.get("TOKEN")


async def test_they_are_asked_for_again_after_their_time_and_when_forgotten() -> None:
    vault, now = Vault(), 0.0
    async with offering(vault, ttl=60.0, clock=lambda: now) as helpers:
        for step in ("first", "again", "late", "forgotten"):
            if step == "late":
                now = 60.0
            if step == "forgotten":
                helpers.forget("acme")
            with as_tenant(helpers, "acme") as acme:
                vault.version = len(vault.asked) + 1
                assert await acme.secrets.reveal("TOKEN") == f"token-of-acme-ada-{len(vault.asked)}"
        assert len(vault.asked) == 3


async def test_many_who_ask_at_once_are_one_question_and_one_who_gives_up_spoils_nothing() -> None:
    vault = Vault()
    vault.gate = asyncio.Event()
    async with offering(vault) as helpers:
        with as_tenant(helpers, "acme") as acme:
            async with asyncio.TaskGroup() as tasks:
                first = tasks.create_task(acme.secrets.reveal("TOKEN"))
                others = [tasks.create_task(acme.secrets.reveal("TOKEN")) for _ in range(5)]
                await asyncio.sleep(0)
                first.cancel()
                await asyncio.sleep(0)
                vault.gate.set()
            assert {task.result() for task in others} == {"token-of-acme-ada-1"}
            assert len(vault.asked) == 2


async def test_what_was_being_read_when_it_was_forgotten_is_not_kept() -> None:
    vault = Vault()
    vault.gate = asyncio.Event()
    async with offering(vault) as helpers:
        with as_tenant(helpers, "acme") as acme:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(acme.secrets.reveal("TOKEN"))
                await asyncio.sleep(0)
                helpers.forget("acme")
                vault.gate.set()
            vault.version = 2
            assert await acme.secrets.reveal("TOKEN") == "token-of-acme-ada-2"


async def test_a_source_that_fails_is_told_of_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    vault = Vault()
    async with offering(vault, timeout=0.05) as helpers:
        with as_tenant(helpers, "acme") as acme:
            for error in (RuntimeError(f"denied with {TEXT}"), KeyError(TEXT), SystemExit(f"denied with {TEXT}")):
                vault.error = error
                with pytest.raises(SecretsUnavailable, match="failed") as caught:
                    await acme.secrets.get("TOKEN")
                assert caught.value.__cause__ is None
                assert caught.value.__suppress_context__
            vault.error, vault.gate = None, asyncio.Event()
            with pytest.raises(SecretsUnavailable, match=r"within 0\.05 s"):
                await acme.secrets.get("TOKEN")
            vault.gate.set()
            assert await acme.secrets.reveal("TOKEN")
    assert "Zx9" not in caplog.text
    assert "RuntimeError" in caplog.text
    told: Any
    for told in ({"A": 1}, {1: "a"}, None, "text", {"A": "x" * 70_000}, {str(n): "x" for n in range(300)}):
        async with offering(lambda _, told=told: told) as helpers:
            with as_tenant(helpers, "acme") as acme, pytest.raises(SecretsUnavailable):
                await acme.secrets.names()


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_PARTIES == 10_000
    monkeypatch.setattr("understudy.actors.session.tenants.secrets.MOST_PARTIES", 2)
    async with offering(Vault()) as helpers:
        for user in ("a", "b", "c"):
            with as_tenant(helpers, "acme", user) as context:
                await context.secrets.names()
        assert helpers.stats()["secrets_parties"] == 2


# Files


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


TOML = """
[all]
REGION = "eu"
TOKEN = "everybody's"
[tenants.acme]
TOKEN = "acme's"
[users.acme.ada]
TOKEN = "ada's"
[users."a.b"."c/d"]
TOKEN = "odd"
"""


async def secrets_of(helpers: TenantHelpers, tenant: str, principal: str) -> dict[str, str]:
    with as_tenant(helpers, tenant, principal) as context:
        return await context.secrets.reveal_all()


@pytest.mark.parametrize("form", ["toml", "json"])
async def test_a_file_has_everybodys_a_tenants_and_a_users(tmp_path: Path, form: str) -> None:
    tables = {
        "all": {"REGION": "eu", "TOKEN": "everybody's"},
        "tenants": {"acme": {"TOKEN": "acme's"}},
        "users": {"acme": {"ada": {"TOKEN": "ada's"}}, "a.b": {"c/d": {"TOKEN": "odd"}}},
    }
    path = written(tmp_path / f"secrets.{form}", TOML if form == "toml" else json.dumps(tables))
    async with offering(SecretsFile(path)) as helpers:
        for tenant, principal, token in (
            ("acme", "ada", "ada's"),
            ("acme", "bob", "acme's"),
            ("other", "ada", "everybody's"),
            ("a.b", "c/d", "odd"),
            ("ACME", "ada", "everybody's"),
        ):
            assert await secrets_of(helpers, tenant, principal) == {"REGION": "eu", "TOKEN": token}


async def test_a_changed_file_is_read_again_and_a_bad_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, now = written(tmp_path / "s.toml", '[all]\nTOKEN = "one"'), 0.0
    async with offering(SecretsFile(path), clock=lambda: now) as helpers:
        assert await secrets_of(helpers, "acme", "ada") == {"TOKEN": "one"}
        written(path, '[all]\nTOKEN = "two"')
        os.utime(path, (1, 1))
        assert await secrets_of(helpers, "acme", "ada") == {"TOKEN": "one"}
        helpers.forget("acme")
        assert await secrets_of(helpers, "acme", "ada") == {"TOKEN": "two"}
        written(path, '[all]\nTOKEN = "three')
        now = 5.0
        assert await secrets_of(helpers, "acme", "ada") == {"TOKEN": "two"}
        assert "the secrets stay as they were" in caplog.text
        assert "three" not in caplog.text
        written(path, '[all]\nTOKEN = "four"')
        now = 10.0
        assert await secrets_of(helpers, "acme", "ada") == {"TOKEN": "four"}


async def test_a_file_that_is_half_written_takes_no_secret_from_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its second half ada would go by what everybody of her tenant has."""
    text = '[tenants.acme]\nTOKEN = "of all"\n[users.acme.ada]\nTOKEN = "of ada"\n'
    path = written(tmp_path / "s.toml", text)
    now = 0.0
    async with offering(SecretsFile(path), clock=lambda: now) as helpers:
        assert await secrets_of(helpers, "acme", "ada") == {"TOKEN": "of ada"}
        written(path, text[:31])
        monkeypatch.setattr(
            "understudy.stores.settled_file.time.sleep",
            lambda _: path.stat().st_size == len(text) or written(path, text),
        )
        now = 6.0
        assert await secrets_of(helpers, "acme", "ada") == {"TOKEN": "of ada"}


async def test_an_env_file_is_read_as_such_files_are_written(tmp_path: Path) -> None:
    path = written(
        tmp_path / "prod.env",
        '# comment\n\nexport A=plain # note\nB = \'single # quoted\'\nC="two\\nlines \\"x\\""\nD=\nE=a#b\n',
    )
    async with offering(SecretsFile(path)) as helpers:
        assert await secrets_of(helpers, "any", "body") == {
            "A": "plain",
            "B": "single # quoted",
            "C": 'two\nlines "x"',
            "D": "",
            "E": "a#b",
        }


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("s.toml", "[all]\nTOKEN = 'Zx9", "no TOML"),
        ("s.json", '{"all": "Zx9', "no JSON"),
        ("s.json", "[1]", "must be a table"),
        ("s.toml", "[al]\n", "unknown table 'al'"),
        ("s.toml", "[all]\nA = 1", "A of all must be text"),
        ("s.toml", "[users]\nacme = 1", r"users.acme must be a table"),
        ("s.env", "A: Zx9", "line 1 is not NAME=value"),
        ("s.env", "A='Zx9", "line 1"),
        ("s.txt", "Zx9", "must end in"),
    ],
)
def test_a_file_that_is_none_is_refused_without_its_words(tmp_path: Path, name: str, text: str, reason: str) -> None:
    with pytest.raises(SecretsFileError, match=reason) as caught:
        SecretsFile(written(tmp_path / name, text)).load()
    assert "Zx9" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_a_file_that_others_can_read_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    for mode in (0o604, 0o640, 0o620, 0o602, 0o666):
        written(path, TOML, mode)
        with pytest.raises(SecretsFileError, match=f"mode 0{mode:o}.*chmod 600"):
            await offering(SecretsFile(path)).__aenter__()
    SecretsFile(written(path, TOML, 0o640), group_readable=True).load()
    with pytest.raises(SecretsFileError, match="mode 0660"):
        SecretsFile(written(path, TOML, 0o660), group_readable=True).load()
    with pytest.raises(SecretsFileError, match="cannot be read"):
        SecretsFile(tmp_path / "missing.toml").load()
    if os.geteuid() == 0:
        os.chown(written(path, TOML), 65534, 65534)
        with pytest.raises(SecretsFileError, match="belongs to user 65534"):
            SecretsFile(path).load()


# Redaction


def test_every_spelling_of_a_known_secret_is_blotted_out() -> None:
    redactor = Redactor()
    redactor.learn([TEXT, "abcdefgh", "abcdefghijkl", "tiny"])
    for spelling in (TEXT, repr(TEXT), json.dumps(TEXT), json.dumps(TEXT, ensure_ascii=False)):
        assert redactor.redact(f"before {spelling} after").replace("'", "").replace('"', "") == "before *** after"
    assert redactor.redact("x=sk-live-Zx9%27%22%5C%0A%25%C3%BC") == "x=***"
    # Of two that begin alike the longer one.
    assert redactor.redact("abcdefghijkl abcdefghij abcdef tiny") == "*** ***ij abcdef tiny"
    clean = "nothing of it here"
    assert redactor.redact(clean) is clean
    value = {"a": [clean, {"b": 1}]}
    assert redactor.redact_within(value) is value
    assert redactor.redact_within({"abcdefgh": ["abcdefgh", 1, None]}) == {"***": ["***", 1, None]}
    redactor.unwatch()
    assert redactor.redact("abcdefgh") == "abcdefgh"


def test_what_is_looked_for_is_bounded_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_KNOWN == 65_536
    monkeypatch.setattr("understudy.actors.session.tenants.redaction.MOST_KNOWN", 3)
    redactor = Redactor()
    redactor.learn(["secret-1", "secret-2", "secret-3"])
    redactor.learn(["secret-1", "secret-4"])
    assert redactor.redact("secret-1 secret-2 secret-3 secret-4") == "*** secret-2 *** ***"
    assert len(redactor._known) == 3
    redactor.unwatch()


def test_a_text_made_of_the_beginnings_of_secrets_holds_up_nobody() -> None:
    """Keys of one service begin alike, and a client may have a tool repeat him in an error."""
    redactor = Redactor()
    keys = [f"sk_live_{number:032x}" for number in range(5000)]
    redactor.learn(keys)
    began = time.perf_counter()
    text = f"{'sk_live_' * 5000}{keys[17]}"
    assert redactor.redact(text) == f"{'sk_live_' * 5000}***"
    # Some milliseconds. Looking at one secret after the other took 10 s.
    assert time.perf_counter() - began < 2
    redactor.unwatch()


def test_what_cannot_be_looked_through_in_time_is_blotted_out() -> None:
    redactor = Redactor()
    keys = [f"{'a' * (10_000 + number)}b" for number in range(200)]
    redactor.learn(keys)
    said = redactor.redact("a" * 50_000 + keys[0])
    assert said.endswith("***")
    assert len(said) < 1000
    assert redactor.redact(f"{'a' * 20} at {'a' * 9000}") == f"{'a' * 20} at {'a' * 9000}"
    redactor.unwatch()


def test_log_records_of_ours_and_the_sdks_are_redacted(caplog: pytest.LogCaptureFixture) -> None:
    mine, sdk, other = (logging.getLogger(name) for name in ("understudy.a", "mcp.server.b", "their.app"))
    redactor = Redactor()
    redactor.learn(["sk-live-12345"])
    handler = logging.StreamHandler(stream := io.StringIO())
    handler.addFilter(redactor.filter)
    other.addHandler(handler)
    try:
        mine.warning("token %s", "sk-live-12345")
        sdk.error("headers %r", {"authorization": "Bearer sk-live-12345"})
        try:
            raise ValueError("refused sk-live-12345")
        except ValueError as error:
            sdk.exception("it failed")
            mine.error("chained", exc_info=RuntimeError(error))
        mine.warning("wrong %d", "sk-live-12345")
        other.warning("theirs: %s", "sk-live-12345")
        formatted = "\n".join(logging.Formatter().format(record) for record in caplog.records[:-1])
    finally:
        other.removeHandler(handler)
        redactor.unwatch()
    assert "sk-live" not in formatted
    assert formatted.count("***") >= 5
    assert "ValueError: refused ***" in formatted
    assert stream.getvalue() == "theirs: ***\n"
    assert not mine.filters
    assert not sdk.filters


# On the wire


def leaky() -> MCPServer:
    server = MCPServer("leaky", log_level="CRITICAL")

    @server.tool()
    async def fail(how: str) -> str:
        token = await current_tenant().secrets.reveal("TOKEN")
        if how == "protocol":
            raise MCPError(-32000, f"upstream said {token}", {"sent": [token]})
        # An error that its author foresaw, whose text the model gets.
        raise ToolError(f"upstream said {token}")

    @server.tool()
    async def keep(session: Session) -> str:
        session.state["token"] = await current_tenant().secrets.get("TOKEN")
        return "kept"

    @server.tool()
    async def use() -> int:
        return len(await current_tenant().secrets.reveal("TOKEN"))

    @server.prompt()
    async def ask() -> str:
        raise RuntimeError(await current_tenant().secrets.reveal("TOKEN"))

    @server.resource("leaky://it")
    async def it() -> str:
        raise RuntimeError(await current_tenant().secrets.reveal("TOKEN"))

    return server


class Resolver:
    """Tells tenants, and knows their secrets too."""

    def __call__(self, request: Any) -> Any:
        return by_bearer(request)

    def secrets(self, tenant: TenantContext) -> dict[str, str]:
        return {"TOKEN": f"token-of-{tenant.tenant}-{tenant.principal}"}


@pytest.mark.parametrize(
    "around",
    [
        lambda inner: by_host(inner, pattern="{tenant}.example.com"),
        lambda inner: ProtectedResource(
            inner, url="https://x.example.com/mcp", authorization_servers=["https://a.com"]
        ),
    ],
    ids=["by_host", "ProtectedResource"],
)
async def test_a_resolver_that_another_goes_around_still_knows_the_secrets(around: Any) -> None:
    async with hosting_modern(leaky(), tenants=around(Resolver()), allowed_hosts=["*"]) as client:
        ann = client.twin(authorization="Bearer acme/ann", host="acme.example.com")
        assert await ann.tool("use") == len("token-of-acme-ann")


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_no_tool_tells_a_secret_by_its_failure(era: str, caplog: pytest.LogCaptureFixture) -> None:
    client: Client | ModernClient
    before = dict(os.environ)
    async with (hosting if era == "handshake" else hosting_modern)(leaky(), tenants=Resolver()) as client:
        client.headers["authorization"] = "Bearer acme/ann"
        if era == "handshake":
            await client.open()
        assert await client.tool("use") == len("token-of-acme-ann")
        said: list[bytes] = [
            (await client.begin_tool("fail", {"how": how}).answered()).body for how in ("tool", "protocol")
        ]
        arguments = {"session": await client.handle()} if isinstance(client, ModernClient) else {}
        said.append((await client.begin_tool("keep", arguments).answered()).body)
        said.append((await client.ask("prompts/get", {"name": "ask"})).body)
        said.append((await client.ask("resources/read", {"uri": "leaky://it"})).body)
        for body in said:
            assert b"token-of" not in body, body
        assert b"upstream said ***" in said[0]
        assert b"upstream said ***" in said[1]
        assert b"Secret" in said[2], "state refuses a secret by its type"
        assert "token-of" not in "\n".join(logging.Formatter().format(record) for record in caplog.records)
        assert dict(os.environ) == before
    loggers = map(logging.getLogger, list(logging.root.manager.loggerDict))
    assert not [each for logger in loggers for each in logger.filters if isinstance(each, RedactingFilter)]


async def test_options_that_are_none_are_refused_when_the_runtime_is_made(tmp_path: Path) -> None:
    option: Any
    for option in ({"secrets": 1}, {"files": 1}, {"cache": 1}, {"database": "postgresql://localhost/x"}):
        with pytest.raises(Exception, match=next(iter(option))) as caught:
            Runtime(MCPServer("s"), **option)
        assert type(caught.value).__name__ == "ConfigurationError"
    runtime = Runtime(MCPServer("s"), secrets=tmp_path / "missing.toml")
    with pytest.raises(SecretsFileError):
        await runtime.__aenter__()
