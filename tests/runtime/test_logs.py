"""Log lines: their form, what they carry, and what they never do."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from understudy.runtime.telemetry.logs import JSONFormatter, TextFormatter, configure_logging, without_secrets
from understudy.stores import Address


@pytest.fixture
def restored() -> Iterator[None]:
    """Leaves logging and the exception hooks as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    levels = {name: logging.getLogger(name).level for name in ("mcp", "hpack", "asyncio")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


def record(message: str = "hello", *args: Any, exc: bool = False, **extra: Any) -> logging.LogRecord:
    info = None
    if exc:
        try:
            raise ValueError("broken with Bearer abcdefghijkl")
        except ValueError:
            info = sys.exc_info()
    made = logging.LogRecord("understudy.edge", logging.WARNING, __file__, 1, message, args, info)
    made.__dict__.update(extra)
    return made


def as_json(made: logging.LogRecord, node: str | None = None) -> dict[str, Any]:
    line = JSONFormatter(node).format(made)
    assert "\n" not in line
    return json.loads(line)


def test_a_json_line_has_time_level_logger_and_message() -> None:
    made = record("%s sessions", 3)
    line = as_json(made)
    assert {name: line[name] for name in ("level", "logger", "msg")} == {
        "level": "warning",
        "logger": "understudy.edge",
        "msg": "3 sessions",
    }
    assert abs(datetime.fromisoformat(line["ts"]).timestamp() - made.created) < 0.002
    assert set(line) == {"ts", "level", "logger", "msg"}


def test_a_json_line_carries_node_tenant_session_and_request_when_there_are_such() -> None:
    line = as_json(record(tenant="acme", session="abcdefghijklmnop", request_id=7, unrelated="x"), node="n1")
    assert line["node"] == "n1"
    assert line["tenant"] == "acme"
    assert line["request_id"] == "7"
    assert "unrelated" not in line


def test_a_traceback_does_not_speak_to_the_terminal() -> None:
    """A tool raises with what its client sent."""
    try:
        raise ValueError("no item \x1b]0;mine\x07\x1b[2J")
    except ValueError:
        told = logging.LogRecord("understudy", logging.ERROR, "x.py", 1, "failed", None, sys.exc_info())
    text = TextFormatter().format(told)
    assert "\x1b" not in text
    assert text.endswith("ValueError: no item \\x1b]0;mine\\x07\\x1b[2J")
    assert len(text.splitlines()) > 3


@pytest.mark.parametrize("formatter", [JSONFormatter(), TextFormatter()])
def test_a_session_id_is_never_logged_whole(formatter: logging.Formatter) -> None:
    line = formatter.format(record(session="abcdefghijklmnop"))
    assert "abcdefgh" in line
    assert "abcdefghi" not in line


@pytest.mark.parametrize("formatter", [JSONFormatter(), TextFormatter()])
def test_an_exception_comes_with_its_traceback_and_without_credentials(formatter: logging.Formatter) -> None:
    line = formatter.format(record(exc=True))
    assert "Traceback" in line
    assert "ValueError: broken with Bearer ***" in line


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer eyJhbGciOi.J9.s3cr3t-_",
        "b'authorization', b'Basic s3cr3tczNjcjN0'",
        "cannot reach redis://user:s3cr3t@db.internal:6379/0",
        "postgres://:s3cr3t@db/x",
        "the key understudy_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAs3cr3tAAAAA was refused",
        "token=eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.s3cr3tAAAA",
    ],
)
def test_credentials_are_blotted_out(text: str) -> None:
    assert "s3cr3t" not in without_secrets(text)


def test_an_actors_id_is_cut_short_where_its_address_is_logged() -> None:
    address = Address.new("session")
    assert without_secrets(f"touch of {address} failed") == f"touch of session/{address.id[:8]}... failed"


def test_what_is_no_credential_stays() -> None:
    text = "actors/session/session_actor.py; the basic idea; http://127.0.0.1:8000/mcp; 12:30:01 a@b"
    text += "; understudy_shop-of-the-emperor-of-half-the-world-and-more_directory"
    assert without_secrets(text) == text


def test_a_text_line_cannot_be_forged_by_what_a_client_sent() -> None:
    line = TextFormatter().format(record("refused host %s", "x\n12:00:00.000 INFO understudy: all is well\x1b[2J"))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


def test_a_log_call_with_wrong_arguments_still_makes_a_line() -> None:
    assert "'%s and %s'" in as_json(record("%s and %s", "only one"))["msg"]


@pytest.mark.usefixtures("restored")
def test_serve_wins_over_what_the_target_configured() -> None:
    stream = io.StringIO()
    logging.basicConfig(handlers=[logging.StreamHandler(io.StringIO())], force=True)
    configure_logging("json", "info", node="n1", stream=stream)
    configure_logging("json", "info", node="n1", stream=stream)
    logging.getLogger("user.code").info("once")
    assert [json.loads(line)["msg"] for line in stream.getvalue().splitlines()] == ["once"]


@pytest.mark.usefixtures("restored")
def test_libraries_that_print_bodies_at_debug_do_not() -> None:
    stream = io.StringIO()
    configure_logging("text", "debug", stream=stream)
    for name in ("mcp.server.sse", "hpack.hpack", "httpcore2.http11", "sse_starlette.sse"):
        logging.getLogger(name).debug("a body")
    logging.getLogger("understudy.edge").debug("ours")
    assert "a body" not in stream.getvalue()
    assert "ours" in stream.getvalue()


@pytest.mark.usefixtures("restored")
def test_an_uncaught_exception_is_a_log_line_in_any_thread() -> None:
    stream = io.StringIO()
    configure_logging("json", "error", stream=stream)

    def die() -> None:
        raise RuntimeError("in a thread")

    thread = threading.Thread(target=die, name="worker-7")
    thread.start()
    thread.join()
    error = ValueError("in the main thread")
    sys.excepthook(ValueError, error, None)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["msg"] == "uncaught exception in worker-7"
    assert "RuntimeError: in a thread" in first["exc"]
    assert second["level"] == "critical"
    assert "ValueError: in the main thread" in second["exc"]


@pytest.mark.usefixtures("restored")
def test_a_warning_of_python_is_a_log_line() -> None:
    import warnings

    stream = io.StringIO()
    configure_logging("text", "info", stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    assert "py.warnings: " in stream.getvalue()
