"""Log lines of `understudy serve`: text for people, JSON lines for machines.

Only `serve` calls `configure_logging`. Embedded in somebody's app, understudy logs through loggers under `understudy`
and leaves handlers, levels and formats to that app.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from types import TracebackType
from typing import Any, TextIO

from ...actors.session import ANONYMOUS
from .asker import ASKER
from .trace import TRACE

__all__ = ["JSONFormatter", "TextFormatter", "configure_logging"]

FIELDS = ("node", "tenant", "principal", "session", "request_id")
"""What a line carries besides its message, when given as `extra={...}`. Else node comes from the formatter, and tenant,
principal and request_id from the request that is being handled. The anonymous tenant is not named."""

SESSION_SHOWN = 8
"""Characters of a session id that are logged: enough to follow one, too few to be one. Whoever holds a whole id of an
anonymous session holds the session."""

_TALKATIVE = (
    "mcp",
    "hpack",
    "h2",
    "h11",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "sse_starlette",
    "asyncio",
    "aiosqlite",
)
"""Libraries that print headers or bodies at DEBUG. They stay at INFO or above whatever the level."""

_SERVERS = (
    "hypercorn",
    "hypercorn.error",
    "hypercorn.access",
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "_granian",
)

_OWN_HANDLERS = ("fastmcp",)
"""Libraries that print by handlers of their own, which would write beside ours and in another form."""

_SECRETS = (
    (re.compile(r"\b(bearer|basic|dpop)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\b((?:session|handle|task)/[A-Za-z0-9_-]{8})[A-Za-z0-9_-]{16,}"), r"\1..."),
    (re.compile(r"\bunderstudy_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"), "understudy_***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), "***"),
    (re.compile(r"://[^/\s:@'\"]*:[^/\s@'\"]+@"), "://***@"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class _Formatter(logging.Formatter):
    def __init__(self, node: str | None = None) -> None:
        super().__init__()
        self.node = node

    def fields(self, record: logging.LogRecord) -> dict[str, str]:
        """The fields of `FIELDS` that this record has."""
        found: dict[str, str] = {}
        asker = ASKER.get()
        if asker == ANONYMOUS:
            asker = None
        for name in FIELDS:
            value = getattr(record, name, None)
            if value is None and name == "node":
                value = self.node
            elif value is None and name == "request_id":
                value = TRACE.get() or None
            elif value is None and asker is not None and name in ("tenant", "principal"):
                value = getattr(asker, name)
            if value is not None:
                text = str(value)
                found[name] = text[:SESSION_SHOWN] if name == "session" else text[:128]
        return found

    def message(self, record: logging.LogRecord) -> str:
        try:
            return without_secrets(record.getMessage())
        except Exception as error:
            # A log call with wrong arguments must not cost the line, nor print what it held.
            return f"{record.msg!r} (its arguments do not fit: {type(error).__name__})"

    def trace(self, record: logging.LogRecord) -> str:
        parts: list[str] = []
        if record.exc_info and record.exc_info[0] is not None:
            parts.append(self.formatException(record.exc_info))
        elif record.exc_text:
            parts.append(record.exc_text)
        if record.stack_info:
            parts.append(record.stack_info)
        return without_secrets("\n".join(parts))


class JSONFormatter(_Formatter):
    """One JSON object a line: ts (RFC 3339, UTC), level, logger, msg, then node, tenant, principal, session,
    request_id and exc where there are such."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": self.message(record),
            **self.fields(record),
        }
        if trace := self.trace(record):
            line["exc"] = trace
        return json.dumps(line, ensure_ascii=True)


class TextFormatter(_Formatter):
    """`12:30:01.250 INFO    understudy.serve: message  session=… tenant=…`, local time; a traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        # One line a record: what a client sent must not look like a line of ours.
        message = _CONTROL.sub(_escaped, self.message(record))
        # The node is the same on every line of a console; it stands in JSON, where lines of many nodes meet.
        pairs = [f"{name}={value!r}" for name, value in self.fields(record).items() if name != "node"]
        clock = f"{time.strftime('%H:%M:%S', time.localtime(record.created))}.{int(record.msecs):03d}"
        line = f"{clock} {record.levelname:<7} {record.name}: {message}"
        if pairs:
            line = f"{line}  {' '.join(pairs)}"
        # A traceback has lines of its own, but what a client sent must not speak to the terminal.
        trace = "\n".join(_CONTROL.sub(_escaped, shown) for shown in self.trace(record).split("\n"))
        return f"{line}\n{trace}" if trace else line


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


def without_secrets(text: str) -> str:
    """`text` with bearer tokens, basic credentials, passwords in URLs and the rest of actors' ids blotted out."""
    for pattern, blot in _SECRETS:
        text = pattern.sub(blot, text)
    return text


def configure_logging(format: str, level: str, *, node: str | None = None, stream: TextIO | None = None) -> None:
    """Take over the process's logging: one handler on the root logger, in `format` ("text" or "json"), from `level` up.

    Called before the target is loaded, so that its import logs in the same form, and again after, because the
    SDK's `MCPServer` and much user code configure the root logger at import. Uncaught exceptions of any thread are
    logged too. Idempotent.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONFormatter(node) if format == "json" else TextFormatter(node))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(number, logging.INFO))
    for name in (*_SERVERS, *_OWN_HANDLERS):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _SERVERS:
        # Their news of starting and stopping is ours to tell.
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("understudy").critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: Any) -> None:
    if args.exc_type is SystemExit:
        return
    name = args.thread.name if args.thread else "a thread"
    logging.getLogger("understudy").critical(
        "uncaught exception in %s", name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
    )
