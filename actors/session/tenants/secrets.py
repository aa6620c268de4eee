"""`TenantSecrets`: `tenant.secrets`, and `SecretKeeper`, which has them from their source and lets go of them again."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast, overload

from ...foreign_errors import ends_the_task
from .errors import NotOffered, SecretMissing, SecretsUnavailable
from .redaction import Redactor
from .running import helpers_for
from .secret import Secret
from .secrets_file import SecretsFile, SecretsFileError

if TYPE_CHECKING:
    from ..tenant import TenantContext

__all__ = ["SecretKeeper", "SecretSource", "TenantSecrets"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

SecretSource = Callable[["TenantContext"], Mapping[str, str | Secret] | Awaitable[Mapping[str, str | Secret]]]
"""Asked for the secrets of a tenant's principal, where a tool first needs one."""

MOST_PARTIES: Final = 10_000
MOST_SECRETS: Final = 256
LONGEST: Final = 64 * 1024
SOURCE_TIMEOUT: Final = 10.0


class SecretKeeper:
    """The secrets that tools of one node have asked for lately, of 10,000 principals at most; those least used go.

    Nothing is read before a tool asks. They are kept here alone: in no snapshot, no frame between nodes, no environment
    variable. A node that has taken a session over asks the source itself.
    """

    def __init__(
        self,
        source: SecretSource | SecretsFile,
        *,
        ttl: float = 300.0,
        timeout: float = SOURCE_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ttl`: seconds that a function's answer is relied on, or that a file is not looked at again (5 at most).
        `timeout`: seconds for one answer.

        Raises:
            ValueError: One of them is not above 0.
        """
        for name, value in (("ttl", ttl), ("timeout", timeout)):
            if not value > 0:
                raise ValueError(f"{name} of secrets is {value!r}; it must be seconds, more than 0")
        self._source = source
        self._ttl = min(ttl, 5.0) if isinstance(source, SecretsFile) else ttl
        self._timeout = timeout
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._loading: dict[tuple[str, str], asyncio.Future[_Known | None]] = {}
        self._file_lock = asyncio.Lock()
        self.redactor = Redactor()
        self._loads = self._failures = 0

    async def __aenter__(self) -> Self:
        """
        Raises:
            SecretsFileError: The file cannot be used.
        """
        if isinstance(self._source, SecretsFile):
            await asyncio.to_thread(self._source.load)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._known.clear()
        self._loading.clear()
        self.redactor.unwatch()

    async def of(self, tenant: TenantContext) -> Mapping[str, Secret]:
        """What `tenant`'s principal has.

        Raises:
            SecretsUnavailable: The source failed, or did not answer in time.
        """
        party = (tenant.tenant, tenant.principal)
        while True:
            known = self._known.get(party)
            if known is not None and self._clock() < known.until:
                self._known.move_to_end(party)
                return known.secrets
            loading = self._loading.get(party)
            if loading is None:
                return (await self._load(party, tenant)).secrets
            if (loaded := await asyncio.shield(loading)) is not None:
                return loaded.secrets
            # Who loaded them was cancelled: one of those who wait loads them.

    async def _load(self, party: tuple[str, str], tenant: TenantContext) -> _Known:
        mine: asyncio.Future[_Known | None] = asyncio.get_running_loop().create_future()
        self._loading[party] = mine
        try:
            try:
                async with asyncio.timeout(self._timeout):
                    found = _checked(await self._ask(tenant))
            except TimeoutError:
                raise self._failed(f"did not answer within {self._timeout:g} s", None) from None
            except SecretsUnavailable:
                raise
            except BaseException as error:
                if ends_the_task(error):
                    raise
                # Without its words, here as in the log: they may quote what it had in hand.
                raise self._failed("failed", error) from None
            self._loads += 1
            self.redactor.learn(secret.reveal() for secret in found.values())
            known = _Known(found, self._clock() + self._ttl)
            if self._loading.get(party) is mine:
                # Else it was forgotten meanwhile: good for who asked before that, and for nobody after.
                self._known[party] = known
                self._known.move_to_end(party)
                if len(self._known) > MOST_PARTIES:
                    self._known.popitem(last=False)
            mine.set_result(known)
            return known
        except SecretsUnavailable as error:
            mine.set_exception(error)
            mine.exception()
            raise
        finally:
            if not mine.done():
                mine.set_result(None)
            if self._loading.get(party) is mine:
                del self._loading[party]

    async def _ask(self, tenant: TenantContext) -> Mapping[str, str | Secret]:
        if not isinstance(self._source, SecretsFile):
            told = self._source(tenant)
            return await told if inspect.isawaitable(told) else told
        async with self._file_lock:
            try:
                await asyncio.to_thread(self._source.load)
            except SecretsFileError as error:
                self._failures += 1
                logger.error("the secrets stay as they were: %s", error)
        return self._source.of(tenant)

    def _failed(self, how: str, error: BaseException | None) -> SecretsUnavailable:
        self._failures += 1
        logger.error("the source of secrets %s%s", how, "" if error is None else f": {type(error).__name__}")
        return SecretsUnavailable(f"the source of this tenant's secrets {how}; try again in a moment")

    def forget(self, tenant: str | None) -> None:
        """Ask the source anew for all principals of `tenant`; None: for everybody."""
        for party in [party for party in self._known if tenant in (party[0], None)]:
            del self._known[party]
        for party in [party for party in self._loading if tenant in (party[0], None)]:
            del self._loading[party]

    def stats(self) -> dict[str, int | float]:
        """Plain numbers."""
        return {
            "parties": len(self._known),
            "loads_total": self._loads,
            "failures_total": self._failures,
            "redactions_total": self.redactor.blotted,
        }


class _Known:
    __slots__ = ("secrets", "until")

    def __init__(self, secrets: Mapping[str, Secret], until: float) -> None:
        self.secrets = secrets
        self.until = until


def _checked(told: object) -> dict[str, Secret]:
    if not isinstance(told, Mapping):
        raise TypeError
    found: dict[str, Secret] = {}
    for name, value in cast("Mapping[Any, Any]", told).items():
        secret = value if isinstance(value, Secret) else Secret(value)
        if not isinstance(name, str) or len(secret.reveal()) > LONGEST or len(found) >= MOST_SECRETS:
            raise ValueError
        found[name] = secret
    return found


class TenantSecrets:
    """Credentials of the tenant, or of its user whose call is running, for a tool's own calls to other services.

    A `Secret` shows its text by `reveal()` alone, so that none gets into a log or a traceback by accident. They are
    asked for at first use, and kept for some minutes in this process and nowhere else. In another party's call every
    method raises `WrongTenant`.
    """

    __slots__ = ("_tenant",)

    def __init__(self, tenant: TenantContext) -> None:
        self._tenant = tenant

    @overload
    async def get(self, name: str) -> Secret: ...

    @overload
    async def get(self, name: str, default: T) -> Secret | T: ...

    async def get(self, name: str, default: Any = ...) -> Any:
        """The secret of this name, or `default`.

        Raises:
            SecretMissing: There is none, and no default.
            SecretsUnavailable: The source failed, or did not answer in time.
            NotOffered, WrongTenant, NoCall: As all helpers of a tenant.
        """
        found = (await self._all()).get(name)
        if found is None:
            if default is not ...:
                return default
            raise SecretMissing(f"this tenant has no secret {name[:64]!r}")
        return found

    async def reveal(self, name: str) -> str:
        """The text of the secret of this name. Raises as `get`."""
        return (await self.get(name)).reveal()

    async def names(self) -> list[str]:
        """The names of all, sorted. Raises as `get`."""
        return sorted(await self._all())

    async def reveal_all(self) -> dict[str, str]:
        """The texts of all, as for the environment of a process that the tool starts: never put them into this one's
        `os.environ`. Raises as `get`."""
        return {name: secret.reveal() for name, secret in (await self._all()).items()}

    async def _all(self) -> Mapping[str, Secret]:
        keeper = helpers_for(self._tenant).secrets
        if keeper is None:
            raise NotOffered("secrets", "their source, `Runtime(..., secrets=)`: a function or a file")
        return await keeper.of(self._tenant)

    def __repr__(self) -> str:
        return "<tenant.secrets>"
