"""Host and Origin allowlists, which keep a web page from its visitor's own servers (DNS rebinding)."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["HostGuard"]

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_REMEMBERED = 256


class HostGuard:
    """Decides by the `Host` and `Origin` headers whether a request is answered at all.

    Hosts: `name` allows any port, `name:8000` only that one, `*.name` any one label in front, `*` everything. Origins:
    `https://name` with the same rules. None allows localhost only. A request without an Origin comes from no browser
    and passes.
    """

    def __init__(self, hosts: Sequence[str] | None, origins: Sequence[str] | None) -> None:
        self._hosts = _Patterns(hosts if hosts is not None else _LOCAL_HOSTS)
        local = [f"{scheme}://{host}" for scheme in ("http", "https") for host in _LOCAL_HOSTS]
        self._origins = _Patterns(origins if origins is not None else local)
        # The same few header values come with every request: what passed once passes without a second look.
        self._passed_hosts: set[bytes] = set()
        self._passed_origins: set[bytes] = set()

    def allows_host(self, host: bytes | None) -> bool:
        return host is not None and _allows(host, self._hosts, self._passed_hosts)

    def allows_origin(self, origin: bytes | None) -> bool:
        return origin is None or _allows(origin, self._origins, self._passed_origins)


class _Patterns:
    """What is allowed: texts that are compared as they are, and some with a star for any letters of one label."""

    def __init__(self, allowed: Sequence[str]) -> None:
        spelled = [pattern.lower().rstrip("/").removesuffix(":*") for pattern in allowed]
        self.everything = "*" in spelled
        self._exact = frozenset(pattern for pattern in spelled if "*" not in pattern)
        starred = ["[a-z0-9_-]+".join(map(re.escape, pattern.split("*"))) for pattern in spelled if "*" in pattern]
        self._starred = re.compile("|".join(starred)) if starred else None

    def match(self, *texts: str) -> bool:
        if self.everything or not self._exact.isdisjoint(texts):
            return True
        starred = self._starred
        return starred is not None and any(starred.fullmatch(text) for text in texts)


def _allows(value: bytes, patterns: _Patterns, passed: set[bytes]) -> bool:
    if value in passed:
        return True
    text = value.decode("latin-1").lower()
    name, colon, port = text.rpartition(":")
    if not patterns.match(text, name if colon and port.isdecimal() else text):
        return False
    if len(passed) < _REMEMBERED:
        passed.add(value)
    return True
