"""`KeyFile`: the file of API keys, read again when it has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Generic, TypeVar

from ...stores.settled_file import FileUnsettled, Stamp, read_settled, stamp_of
from ..errors import ConfigurationError
from .api_key import ApiKey, ApiKeyError
from .api_key_lines import parse_keys
from .loop_lock import LoopLock
from .tenants import CredentialUnchecked

__all__ = ["KeyFile"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

LARGEST: Final = 32 * 2**20
READ_TIMEOUT: Final = 2.0
PAUSE: Final = 0.25
"""Least seconds between two looks that are asked for by keys which nobody knows."""
MOST_WAITING: Final = 4096


class KeyFile(Generic[T]):
    """A file of keys that is looked at when somebody asks, never more often than so."""

    def __init__(
        self,
        path: Path,
        prepare: Callable[[Iterable[ApiKey]], T],
        *,
        check_every: float,
        clock: Callable[[], float],
    ) -> None:
        """`prepare` makes of the keys what is wanted, in a thread; it may raise `ApiKeyError`. `check_every` in seconds
        of `clock`.

        Raises:
            ConfigurationError: `check_every` is negative.
        """
        if not check_every >= 0:
            raise ConfigurationError(f"check_every is {check_every!r}; it must be seconds, 0 or more")
        self._path = path
        self._what = f"the key file {str(path)!r}"
        self._prepare = prepare
        self._every = check_every
        self._clock = clock
        self._next = clock() + check_every
        self._looking = False
        self._began = float("-inf")
        self._waiting = 0
        self._lock = LoopLock()
        self._seen: Stamp | None = None
        self._complaint: str | None = None
        self._reloads = 0
        self._failures = 0

    def read(self) -> T:
        """What it holds now. Blocks.

        Raises:
            ApiKeyError: It cannot be read, is too large, or holds what cannot be used.
        """
        stamp, found = self._look(None)
        if isinstance(found, ApiKeyError):
            raise found
        self._seen = stamp
        assert found is not None
        return found

    def look_soon(self) -> None:
        """Another look is due."""
        self._next = float("-inf")

    def is_due(self) -> bool:
        """Whether it is time for another look."""
        return not self._looking and self._clock() >= self._next

    async def look(self) -> T | None:
        """What it holds, if it has changed and can be used; None otherwise. Takes 2 s at most.

        Cancelled, or out of time, it leaves a thread that ends by itself, and what that one finds is read again later.
        Until it has ended there is no other.
        """
        self._looking = True
        async with self._lock.here():
            return await self._look_apart()

    async def look_for(self, known: Callable[[], bool]) -> T | None:
        """`look`, begun after this call, unless `known()` is true by then or somebody else has looked since.

        Looks keep a pause of 0.25 s, so that whoever sends what was never a key does not keep a thread at work.

        Raises:
            CredentialUnchecked: 4096 callers wait already.
        """
        loop = asyncio.get_running_loop()
        asked = loop.time()
        if self._waiting >= MOST_WAITING:
            raise CredentialUnchecked
        self._waiting += 1
        try:
            async with self._lock.here():
                if known() or self._began > asked:
                    return None
                if (left := self._began + PAUSE - loop.time()) > 0:
                    await asyncio.sleep(left)
                if self._looking:
                    # A thread that is out of time still reads; there is no second one beside it.
                    return None
                return await self._look_apart()
        finally:
            self._waiting -= 1

    async def _look_apart(self) -> T | None:
        self._looking = True
        self._began = asyncio.get_running_loop().time()
        # Shielded, because a call that is cancelled before its thread has begun would never say that it is over.
        looking = asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._look_again))
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                stamp, found = await looking
        except TimeoutError:
            self._complain(f"{self._what} could not be read within {READ_TIMEOUT:g} s")
            return None
        # Not before: a look whose outcome nobody took must be repeated.
        self._seen = stamp
        if isinstance(found, ApiKeyError):
            self._complain(str(found))
            return None
        if found is not None:
            self._reloads += 1
            self._complaint = None
            logger.info("%s has changed and was read again", self._what)
        return found

    def _look_again(self) -> tuple[Stamp | None, T | ApiKeyError | None]:
        try:
            return self._look(self._seen)
        finally:
            self._next = self._clock() + self._every
            self._looking = False

    def _look(self, seen: Stamp | None) -> tuple[Stamp | None, T | ApiKeyError | None]:
        """The file's stamp, and what it holds if that is not `seen`."""
        stamp: Stamp | None = None
        try:
            if seen is not None and stamp_of(self._path.stat()) == seen:
                return seen, None
            stamp, raw = read_settled(self._path, LARGEST + 1)
            if len(raw) > LARGEST:
                raise ApiKeyError(f"{self._what} is larger than {LARGEST} bytes")
            return stamp, self._prepare(parse_keys(raw.decode(), self._what))
        except OSError as error:
            # Without a stamp: a file that comes back unchanged is news too, and ends the complaint.
            return None, ApiKeyError(f"{self._what} cannot be read: {error.strerror}")
        except FileUnsettled as error:
            return None, ApiKeyError(f"{self._what}: {error}")
        except UnicodeDecodeError:
            return stamp, ApiKeyError(f"{self._what} is not UTF-8")
        except ApiKeyError as error:
            return stamp, error

    def _complain(self, reason: str) -> None:
        """Say that the file cannot be used, once for each reason, and that the keys stay."""
        self._failures += 1
        if reason != self._complaint:
            self._complaint = reason
            logger.error("the API keys stay as they were: %s", reason)

    def stats(self) -> dict[str, int | float]:
        """Plain numbers."""
        return {"key_reloads_total": self._reloads, "key_reload_failures_total": self._failures}
