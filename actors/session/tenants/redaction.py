"""`Redactor`: blots out the secrets that it knows, in logs and in what tools say of their failures."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final, cast
from urllib.parse import quote

__all__ = ["BLOT", "RedactingFilter", "Redactor"]

BLOT: Final = "***"
SHORTEST: Final = 6
"""Characters of a secret that is looked for; a shorter one would blot out words that are none."""
MOST_KNOWN: Final = 65_536
"""Spellings that are looked for; beyond, those are forgotten that were learned first."""
LONGEST_KNOWN: Final = 65_536
WORK: Final = 32
"""Characters that are compared for each one of a text, and `WORK_AT_LEAST` for all: what would take more, as texts do
that are made of the beginnings of secrets, is blotted out from there on."""
WORK_AT_LEAST: Final = 2**20

_WATCHED: Final = ("understudy", "mcp")
"""Loggers, and those below them, that say what our code and the SDK have to say of a call."""


class Redactor:
    """Knows secrets by value, for as long as the bound allows: also those that have been changed since, as somebody may
    still hold them. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._by_start: dict[str, _Alike] = {}
        self._filter = RedactingFilter(self)
        self._watched: set[str] = set()
        self.blotted = 0

    def learn(self, values: Iterable[str]) -> None:
        """Look for these from now on, also as Python, JSON and URLs write them."""
        with self._lock:
            for value in values:
                if not SHORTEST <= len(value) <= LONGEST_KNOWN:
                    continue
                if value in self._known:
                    self._known.move_to_end(value)
                    continue
                escaped = (repr(value), json.dumps(value), json.dumps(value, ensure_ascii=False))
                for spelling in {value, quote(value, safe="", errors="replace"), *(each[1:-1] for each in escaped)}:
                    self._add(spelling)
        self.watch()

    def _add(self, spelling: str) -> None:
        if spelling in self._known:
            return
        self._known[spelling] = None
        self._by_start.setdefault(spelling[:SHORTEST], _Alike()).add(spelling)
        while len(self._known) > MOST_KNOWN:
            oldest, _ = self._known.popitem(last=False)
            alike = self._by_start[oldest[:SHORTEST]]
            alike.remove(oldest)
            if not alike.lengths:
                del self._by_start[oldest[:SHORTEST]]

    @property
    def knows(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._known)

    def redact(self, text: str) -> str:
        """`text`, with `***` in the place of each secret. The same object where there is none."""
        # One look into a dict at each character, however many secrets there are.
        starts, kept, at = self._by_start, 0, 0
        found: list[str] = []
        if not starts:
            return text
        end = len(text) - SHORTEST
        work = max(WORK * len(text), WORK_AT_LEAST)
        while at <= end:
            alike = starts.get(text[at : at + SHORTEST])
            if alike is None:
                at += 1
                continue
            length = 0
            for each in alike.lengths:
                if at + each > len(text):
                    continue
                work -= each
                if text[at : at + each] in alike.spellings:
                    length = each
                    break
            if work < 0:
                found += (text[kept:at], BLOT)
                at = kept = len(text)
            elif length:
                found += (text[kept:at], BLOT)
                at = kept = at + length
            else:
                at += 1
        if not kept:
            return text
        self.blotted += 1
        return "".join((*found, text[kept:]))

    def redact_within(self, value: Any) -> Any:
        """`value`, made of JSON's types, with all its texts redacted; keys too. The same object where there is none."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            items = cast("dict[Any, Any]", value)
            made: dict[Any, Any] = {self.redact_within(key): self.redact_within(item) for key, item in items.items()}
            same = len(made) == len(items) and all(
                key is old and item is items[old] for (key, item), old in zip(made.items(), items, strict=True)
            )
            return items if same else made
        if isinstance(value, list):
            parts = cast("list[Any]", value)
            new = [self.redact_within(part) for part in parts]
            return parts if all(part is old for part, old in zip(new, parts, strict=True)) else new
        return value

    @property
    def filter(self) -> logging.Filter:
        """For handlers of the host program: `handler.addFilter(...)`."""
        return self._filter

    def watch(self) -> None:
        """Have our own loggers, and the SDK's, redact what they say. Those that are new since the last time too."""
        for name in list(logging.root.manager.loggerDict):
            if name not in self._watched and name.partition(".")[0] in _WATCHED:
                self._watched.add(name)
                logging.getLogger(name).addFilter(self._filter)

    def unwatch(self) -> None:
        """Undo `watch`, and forget all secrets."""
        for name in self._watched:
            logging.getLogger(name).removeFilter(self._filter)
        self._watched.clear()
        with self._lock:
            self._known.clear()
            self._by_start.clear()


class _Alike:
    """Spellings that begin alike, as the keys of one service do."""

    __slots__ = ("lengths", "spellings")

    def __init__(self) -> None:
        self.spellings: set[str] = set()
        self.lengths: tuple[int, ...] = ()
        """Which they have, the longest first: one that holds another is found whole. Replaced, never changed, as
        threads read it."""

    def add(self, spelling: str) -> None:
        self.spellings.add(spelling)
        if len(spelling) not in self.lengths:
            self.lengths = tuple(sorted((*self.lengths, len(spelling)), reverse=True))

    def remove(self, spelling: str) -> None:
        self.spellings.discard(spelling)
        if not any(len(other) == len(spelling) for other in self.spellings):
            self.lengths = tuple(length for length in self.lengths if length != len(spelling))


class RedactingFilter(logging.Filter):
    """Lets every record through, without the secrets that its redactor knows."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        redactor = self._redactor
        if not redactor.knows:
            return True
        try:
            said = record.getMessage()
        except Exception:
            # Its arguments do not fit. Whoever formats it may print them.
            said = f"{record.msg!r} {record.args!r}"
        clean = redactor.redact(said)
        if clean is not said:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            trace = logging.Formatter().formatException(record.exc_info)
            clean = redactor.redact(trace)
            if clean is not trace:
                record.exc_text, record.exc_info = clean, None
        elif record.exc_text:
            record.exc_text = redactor.redact(record.exc_text)
        return True
