"""The file of API keys: TOML, a line for each key by its hash, read again when it has changed."""

from __future__ import annotations

import asyncio
import logging
import re
import tomllib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

from ..actors.session import TenantContext
from ..stores.settled_file import FileUnsettled, Stamp, read_settled, stamp_of
from .api_key import ApiKey, ApiKeyError
from .challenges import checked_scopes
from .errors import ConfigurationError
from .tenants import CredentialUnchecked

__all__ = ["KeyFile", "key_line", "parse_keys"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

LARGEST: Final = 32 * 2**20
READ_TIMEOUT: Final = 2.0
PAUSE: Final = 0.25
"""Least seconds between two looks that are asked for by keys which nobody knows."""
MOST_WAITING: Final = 4096
_NAME = re.compile(r"sha256:[0-9a-f]{64}")
_FIELDS: Final = frozenset({"tenant", "principal", "plan", "scopes", "expires", "revoked"})


def key_line(key: ApiKey) -> str:
    """The line of the file that stands for `key`."""
    context = key.context
    fields = [("tenant", context.tenant), ("principal", context.principal)]
    if context.plan is not None:
        fields.append(("plan", context.plan))
    words = [f"{name} = {_quoted(text)}" for name, text in fields]
    if context.scopes:
        words.append(f"scopes = [{', '.join(_quoted(scope) for scope in sorted(context.scopes))}]")
    if context.expires is not None:
        moment = datetime.fromtimestamp(context.expires, UTC)
        words.append(f"expires = {moment.isoformat(timespec='seconds').replace('+00:00', 'Z')}")
    if key.revoked:
        words.append("revoked = true")
    return f'"sha256:{key.sha256}" = {{ {", ".join(words)} }}'


def _quoted(text: str) -> str:
    """A TOML basic string."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in plain) + '"'


def parse_keys(text: str, where: str) -> list[ApiKey]:
    """The keys that a file's text names. `where`: what to call it in errors.

    Raises:
        ApiKeyError: It is no TOML, or an entry cannot be used.
    """
    try:
        entries = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        # The end of the message says where. The rest may quote the file.
        place = re.search(r"\(at [^()]*\)$", str(error))
        raise ApiKeyError(f"{where} is no TOML{f' {place[0]}' if place else ''}") from None
    return [_entry(name, value, f"{where}, entry {number}") for number, (name, value) in enumerate(entries.items(), 1)]


def _entry(name: str, value: object, where: str) -> ApiKey:
    if _NAME.fullmatch(name) is None:
        # Not repeated: somebody may have written the key itself there.
        raise ApiKeyError(f'{where}: the name must be "sha256:" and 64 hexadecimal digits, the hash of a key')
    where = f"{where} ({name[:19]}...)"
    if not isinstance(value, dict):
        raise ApiKeyError(f'{where} must be a table: {{ tenant = "acme", principal = "ada" }}')
    given = cast("dict[str, Any]", value)
    if unknown := sorted(given.keys() - _FIELDS):
        raise ApiKeyError(f"{where} has the unknown field {unknown[0][:32]!r}; known: {', '.join(sorted(_FIELDS))}")
    texts = {field: given.get(field) for field in ("tenant", "principal", "plan")}
    for field, text in texts.items():
        if not (isinstance(text, str) and text) and not (field == "plan" and text is None):
            raise ApiKeyError(f"{where}: {field} must be text{' that is not empty' if text == '' else ''}")
    scopes = given.get("scopes", [])
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in cast("list[object]", scopes)):
        raise ApiKeyError(f"{where}: scopes must be a list of texts")
    revoked = given.get("revoked", False)
    if not isinstance(revoked, bool):
        raise ApiKeyError(f"{where}: revoked must be true or false")
    expires = given.get("expires")
    if expires is not None and (not isinstance(expires, datetime) or expires.tzinfo is None):
        raise ApiKeyError(f"{where}: expires must be a moment with its zone, such as 2027-01-01T00:00:00Z")
    try:
        context = TenantContext(
            tenant=cast("str", texts["tenant"]),
            principal=cast("str", texts["principal"]),
            plan=texts["plan"],
            scopes=frozenset(checked_scopes(cast("list[str]", scopes))),
            expires=None if expires is None else expires.timestamp(),
        )
    except (ConfigurationError, ValueError) as error:
        raise ApiKeyError(f"{where}: {error}") from None
    return ApiKey(name.removeprefix("sha256:"), context, revoked)


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
        self._lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
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
        async with self._alone():
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
            async with self._alone():
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

    def _alone(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self._lock is None or self._lock[0] is not loop:
            # A runtime may be started again on another loop, where a lock of the first cannot be waited for.
            self._lock = (loop, asyncio.Lock())
        return self._lock[1]

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
