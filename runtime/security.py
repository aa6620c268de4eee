"""Host and Origin allowlists, which keep a web page from its visitor's own servers (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["HostGuard"]

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_REMEMBERED = 256


class HostGuard:
    """Decides by the `Host` and `Origin` headers whether a request is answered at all.

    Hosts: `name` allows any port, `name:8000` only that one, `*` everything. Origins: `https://name` with the same
    rules. None allows localhost only. A request without an Origin comes from no browser and passes.
    """

    def __init__(self, hosts: Sequence[str] | None, origins: Sequence[str] | None) -> None:
        self._hosts = _patterns(hosts if hosts is not None else _LOCAL_HOSTS)
        local = [f"{scheme}://{host}" for scheme in ("http", "https") for host in _LOCAL_HOSTS]
        self._origins = _patterns(origins if origins is not None else local)
        # The same few header values come with every request: what passed once passes without a second look.
        self._passed_hosts: set[bytes] = set()
        self._passed_origins: set[bytes] = set()

    def allows_host(self, host: bytes | None) -> bool:
        return host is not None and _allows(host, self._hosts, self._passed_hosts)

    def allows_origin(self, origin: bytes | None) -> bool:
        return origin is None or _allows(origin, self._origins, self._passed_origins)


def _patterns(allowed: Sequence[str]) -> frozenset[str]:
    return frozenset(pattern.lower().rstrip("/").removesuffix(":*") for pattern in allowed)


def _allows(value: bytes, patterns: frozenset[str], passed: set[bytes]) -> bool:
    if value in passed:
        return True
    text = value.decode("latin-1").lower()
    name, colon, port = text.rpartition(":")
    without_port = name if colon and port.isdecimal() else text
    if "*" not in patterns and text not in patterns and without_port not in patterns:
        return False
    if len(passed) < _REMEMBERED:
        passed.add(value)
    return True
