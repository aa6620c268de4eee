"""`JwksUrl`: the keys of an issuer that publishes them, fetched when somebody needs them."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import Final
from urllib.parse import urlsplit

import httpx2

from ...actors.clock import Clock
from ..errors import ConfigurationError
from ..wire.loopback import is_loopback
from .fetched_body import ACCEPTED_ENCODINGS, FetchedBodyError, read_body
from .loop_lock import LoopLock
from .signing_keys import SigningKeyError, SigningKeys
from .tenants import CredentialUnchecked

__all__ = ["JwksUrl"]

logger = logging.getLogger(__name__)

LARGEST: Final = 2**20
MOST_WAITING: Final = 4096
LONGEST_PAUSE: Final = 60.0


_FETCHING: ContextVar[bool] = ContextVar("understudy_fetching_keys", default=False)


def _is_of_others(record: logging.LogRecord) -> bool:
    return not _FETCHING.get()


# The client logs whole URLs at INFO, and the query of ours, or its user, may be a secret. What others fetch stays.
logging.getLogger("httpx2").addFilter(_is_of_others)


class JwksUrl:
    """Has no task: a call that finds the keys old fetches them, one at a time; others use those that are there."""

    def __init__(
        self,
        url: str,
        accepted: frozenset[str],
        *,
        max_age: float,
        max_stale: float,
        pause: float,
        deadline: float,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        """
        Args:
            url: Where a JWK set is; https, or http on this machine.
            max_age: Seconds after which the keys are fetched again.
            max_stale: Seconds that they are used for while they cannot be fetched.
            pause: Least seconds between two fetches.
            deadline: Seconds that one fetch may take.
            changed: Called when a key is gone.

        Raises:
            ConfigurationError: `url` will not do, or a number is out of range.
        """
        parts = urlsplit(url) if url.isascii() and url.isprintable() else None
        local = parts is not None and parts.scheme == "http" and is_loopback(parts.hostname or "")
        if parts is None or not parts.hostname or not (parts.scheme == "https" or local):
            raise ConfigurationError(
                f"jwks_url is {url.partition('?')[0][:256]!r}; it must be an https URL (http only on this machine): "
                "whoever can change the keys on their way can be anybody"
            )
        for name, value in (("max_age", max_age), ("max_stale", max_stale), ("pause", pause), ("deadline", deadline)):
            if not value > 0:
                raise ConfigurationError(f"{name} is {value!r}; it must be seconds, more than 0")
        self._url = url
        # A query may hold a secret.
        self._shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._secure = parts.scheme == "https"
        self._accepted = accepted
        self._max_age = max_age
        self._max_stale = max_stale
        self.pause = pause
        self._deadline = deadline
        self._clock = clock
        self._changed = changed
        self._keys: SigningKeys | None = None
        self._fetched = self._began = float("-inf")
        self._due = float("-inf")
        self._in_a_row = 0
        self._fetches = self._failures = self._waiting = 0
        self._complaint: str | None = None
        self._trust: ssl.SSLContext | None = None
        self._lock = LoopLock()

    @property
    def keys(self) -> SigningKeys | None:
        """What is known and may be used; None: nothing is."""
        return self._keys if self._clock.monotonic() - self._fetched <= self._max_stale else None

    @property
    def failing(self) -> bool:
        """Whether the last fetch that ended has failed."""
        return self._complaint is not None

    def is_due(self) -> bool:
        """Whether the keys are old and nobody fetches them."""
        return self._clock.monotonic() >= self._due and not self._waiting

    async def refresh(self) -> None:
        """Fetch them if they are old. A failure is said in the log and changes nothing. Cancellation neither."""
        # One that fetched meanwhile will do.
        await self.until(lambda: self._clock.monotonic() < self._due)

    async def until(self, satisfied: Callable[[], bool]) -> None:
        """Return when `satisfied()` is true, or a fetch that began after this call has ended, well or not.

        Fetches keep their pause, so this may take that long; 4096 callers may wait, and all of them for one fetch.

        Raises:
            CredentialUnchecked: Too many wait already.
        """
        asked = self._clock.monotonic()
        if self._waiting >= MOST_WAITING:
            raise CredentialUnchecked(retry_after=self.pause)
        self._waiting += 1
        try:
            async with self._lock.here():
                if satisfied() or self._began > asked:
                    return
                if (left := self._began + self.pause - self._clock.monotonic()) > 0:
                    await self._clock.sleep(left)
                await self._fetch()
        finally:
            self._waiting -= 1

    async def _fetch(self) -> None:
        self._began = self._clock.monotonic()
        self._fetches += 1
        self._in_a_row += 1
        self._due = self._began + min(self.pause * 2 ** min(self._in_a_row - 1, 10), max(LONGEST_PAUSE, self.pause))
        try:
            async with asyncio.timeout(self._deadline):
                keys = SigningKeys.of_document(await self._document(), self._accepted)
        except TimeoutError:
            self._complain(f"there was no answer within {self._deadline:g} s")
        except (SigningKeyError, FetchedBodyError) as error:
            self._complain(str(error))
        except Exception as error:
            # Whatever a stranger's answer makes of the client, the keys that are known stay.
            self._complain(f"it could not be fetched ({type(error).__name__})")
        else:
            gone = self._keys is not None and keys.lacks_some_of(self._keys)
            self._keys = keys
            self._fetched = self._began
            self._due = self._began + self._max_age
            self._in_a_row = 0
            self._complaint = None
            if gone:
                self._changed()

    async def _document(self) -> object:
        if self._secure and self._trust is None:
            # Reading the machine's certificates takes long enough to be felt by every other call.
            self._trust = await asyncio.to_thread(ssl.create_default_context)
        async with AsyncExitStack() as stack:
            stack.callback(_FETCHING.reset, _FETCHING.set(True))
            client = await stack.enter_async_context(
                httpx2.AsyncClient(verify=self._trust or False, timeout=self._deadline, follow_redirects=False)
            )
            accept = {"accept": "application/jwk-set+json, application/json", "accept-encoding": ACCEPTED_ENCODINGS}
            answer = await stack.enter_async_context(client.stream("GET", self._url, headers=accept))
            if answer.status_code != 200:
                raise SigningKeyError(f"the answer has the status {answer.status_code}")
            body = await read_body(answer.aiter_raw(), answer.headers.get("content-encoding", ""), LARGEST)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise SigningKeyError("the answer is no JSON") from None

    def _complain(self, reason: str) -> None:
        self._failures += 1
        if reason != self._complaint:
            self._complaint = reason
            kept = "the keys that are known stay" if self._keys is not None else "no token can be checked"
            logger.warning("the key set of %s cannot be used, %s: %s", self._shown, kept, reason)

    def stats(self) -> dict[str, int | float]:
        """Plain numbers."""
        return {
            "jwks_keys": 0 if self._keys is None else len(self._keys.keys),
            "jwks_fetches_total": self._fetches,
            "jwks_failures_total": self._failures,
        }
