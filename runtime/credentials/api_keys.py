"""`ApiKeys`: who is asking, told by a static API key of which only the hash is kept."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, Self

from starlette.requests import Request

from ...actors.session import TenantContext
from .api_key import LONGEST, SHORTEST, ApiKey, ApiKeyError
from .api_key_file import KeyFile
from .api_key_lines import parse_keys
from .challenges import checked_scopes, require_scopes
from .credential_header import CredentialHeader
from .tenants import Unauthenticated

__all__ = ["ApiKeys"]

MOST: Final = 100_000


class ApiKeys:
    """A `TenantResolver` for static API keys; several may stand for one party, so that keys can be changed.

        Runtime(server, tenants=ApiKeys.from_file("keys.toml"))

    An unknown, revoked or expired key gets 401; a good one that lacks a scope of `required_scopes`, 403. What a look-up
    tells by its time depends on the SHA-256 of what was sent, and nothing that is near a key has a hash that is near.
    """

    def __init__(
        self, keys: Iterable[ApiKey] = (), *, header: str = "authorization", required_scopes: Iterable[str] = ()
    ) -> None:
        """
        Args:
            keys: The keys. 100,000 at most.
            header: Where the key stands: `authorization` (`Bearer <key>`), or a header that holds nothing else.
            required_scopes: What each key must have been given.

        Raises:
            ApiKeyError: A key comes twice, or there are too many.
            ConfigurationError: `header` is no header, or a scope is none.
        """
        self._header = CredentialHeader(header)
        self._required = checked_scopes(required_scopes)
        self._file: KeyFile[dict[bytes, ApiKey]] | None = None
        self._refused = 0
        self._keys: dict[bytes, ApiKey] = {}
        self.replace(keys)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        header: str = "authorization",
        required_scopes: Iterable[str] = (),
        check_every: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Keys from a TOML file, a line for each (`understudy key new` prints it), read again when it has changed.

        A request that comes `check_every` seconds or more after the last look has a thread look at the file and waits
        for it, 2 s at most; meanwhile the others use the keys that are known. One with a key that is not known waits
        for a look too, so that a new key is good as soon as it stands in the file; those looks keep a pause of 0.25 s.
        A file that cannot be used then changes nothing: the keys stay, and a log line and
        `tenants_key_reload_failures_total` say so. One that is being written is read once it has been left alone for
        0.1 s.

        Raises:
            ApiKeyError: The file cannot be used now.
        """
        made = cls(header=header, required_scopes=required_scopes)
        made._file = KeyFile(Path(path), _indexed, check_every=check_every, clock=clock)
        made._keys = made._file.read()
        return made

    @classmethod
    def from_environment(
        cls, variable: str, *, header: str = "authorization", required_scopes: Iterable[str] = ()
    ) -> Self:
        """Keys from an environment variable whose text is what a file of keys holds.

        Raises:
            ApiKeyError: It is not set, or cannot be used.
        """
        text = os.environ.get(variable)
        if text is None:
            raise ApiKeyError(f"the environment variable {variable} is not set; it must hold the lines of a key file")
        return cls(
            parse_keys(text, f"the environment variable {variable}"), header=header, required_scopes=required_scopes
        )

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """Use these keys from now on, and no others.

        Raises:
            ApiKeyError: One comes twice, or there are too many; the keys stay as they were.
        """
        self._keys = _indexed(keys)

    def __call__(self, request: Request) -> TenantContext | Awaitable[TenantContext]:
        """A `TenantResolver`: whose key the request carries."""
        credential = self._header.read(request)
        if not SHORTEST <= len(credential) <= LONGEST:
            # A key too short to be safe never opens anything, though somebody may have written its hash into the file.
            raise self._refusal("the API key is not valid")
        digest = hashlib.sha256(credential).digest()
        if self._file is not None:
            if self._file.is_due():
                return self._after_a_look(self._file, digest)
            if digest not in self._keys:
                return self._perhaps_new(self._file, digest)
        return self._find(digest)

    async def _after_a_look(self, file: KeyFile[dict[bytes, ApiKey]], digest: bytes) -> TenantContext:
        self._take(await file.look())
        return self._find(digest)

    async def _perhaps_new(self, file: KeyFile[dict[bytes, ApiKey]], digest: bytes) -> TenantContext:
        """Whose key it is, if it has been written into the file since the last look: a new key is good at once."""
        self._take(await file.look_for(lambda: digest in self._keys))
        return self._find(digest)

    def _take(self, keys: dict[bytes, ApiKey] | None) -> None:
        if keys is not None:
            self._keys = keys

    def _find(self, digest: bytes) -> TenantContext:
        key = self._keys.get(digest)
        if key is not None and not key.revoked:
            told = key.told
            if told.expires is None or told.expires > time.time():
                return require_scopes(told, self._required)
            raise self._refusal("the API key has expired")
        raise self._refusal("the API key is not valid")

    def _refusal(self, message: str) -> Unauthenticated:
        self._refused += 1
        return self._header.refusal(message)

    def forget(self, tenant: str | None) -> None:
        """Look at the file, where there is one, with the next request: nothing else is remembered."""
        if self._file is not None:
            self._file.look_soon()

    def stats(self) -> dict[str, int | float]:
        """Plain numbers, for `/metrics`."""
        numbers: dict[str, int | float] = {"keys": len(self._keys), "refused_total": self._refused}
        return numbers | (self._file.stats() if self._file is not None else {})


def _indexed(keys: Iterable[ApiKey]) -> dict[bytes, ApiKey]:
    """
    Raises:
        ApiKeyError: One comes twice, is none, or there are too many.
    """
    known: dict[bytes, ApiKey] = {}
    for key in keys:
        if not isinstance(key, ApiKey):  # pyright: ignore[reportUnnecessaryIsInstance]
            # Not shown: it may be a key in plain text.
            raise ApiKeyError(
                f"a {type(key).__name__} is among the keys: make each with ApiKey.of(key, TenantContext(...)); those "
                "of a file are ApiKeys.from_file(path)"
            )
        digest = bytes.fromhex(key.sha256)
        if digest in known:
            raise ApiKeyError(f"the key with the hash {key.sha256[:12]}... comes twice")
        known[digest] = key
        if len(known) > MOST:
            raise ApiKeyError(f"there are more than {MOST} keys; keep so many in a store, with a resolver of your own")
    return known
