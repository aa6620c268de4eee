"""`SessionProvider`: the sessions of a runtime, for code of the host program that runs in none of their calls."""

from __future__ import annotations

import inspect
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from copy import deepcopy
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from ...actors.session import ANONYMOUS, SESSION, StateConflict, StateError, TenantContext
from ...actors.session.session import CURRENT
from ...actors.session.state import pack_state, unpack_state
from ...actors.session.state_update import StateUpdate
from ..errors import ConfigurationError
from .session_asking import FIRST_PAUSE, SessionAsking, checked_timeout
from .session_errands import END, UPDATE, WAKE
from .session_errors import OwnTurn, SessionNotFound, SessionUnavailable
from .session_info import SessionData, SessionInfo, SessionPage, data_of, info_of
from .session_reference import SessionReference

if TYPE_CHECKING:
    from ..node import Node
    from ..options import RuntimeOptions

__all__ = ["SessionProvider"]

T = TypeVar("T")

TIMEOUT: Final = 30.0
MOST_UPDATE: Final = 8 * 2**20
"""Bytes of one update, whatever `max_state` is: what comes from another node in one piece is bounded."""
_PAGE: Final = 1000


class SessionProvider:
    """`runtime.sessions`. What it does to a session is done where the session is, as a turn of its own: found at the
    node that owns it, or woken. What it reads, it reads as last saved, and disturbs nobody.

    `tenant=` names whose session it must be; that of any other is then as unknown as one that never was. `timeout=` is
    in seconds, 600 at most.
    """

    def __init__(
        self,
        node: Callable[[], Node | None],
        options: RuntimeOptions,
        reference: Callable[[str, str | None], SessionReference],
    ) -> None:
        """`node`: the running one; None while there is none. `reference`: makes one."""
        self._options = options
        self._reference = reference
        self._asking = SessionAsking(node, options.store_timeout)

    # Looking

    async def get(self, id: str, *, tenant: str | None = None) -> SessionReference | None:
        """The session, to tell its client something by; None if there is none. It is not woken.

        Raises:
            SessionUnavailable: The store cannot be reached.
            NotStarted: The runtime is not running.
        """
        return self._reference(id, tenant) if await self.has(id, tenant=tenant) else None

    async def has(self, id: str, *, tenant: str | None = None) -> bool:
        """Whether there is such a session, in memory or asleep. One read of the store. Raises as `get`."""
        try:
            await self._asking.record(id, tenant)
        except SessionNotFound:
            return False
        return True

    async def read(self, id: str, *, tenant: str | None = None) -> SessionData:
        """The session's state as it was last saved, and what else is known of it. It is not woken, a call that changes
        it is not waited for, and its end does not move. One read of the store.

        Raises:
            SessionNotFound: There is no such session.
            SessionUnavailable: The store cannot be reached.
            SnapshotError: What is stored cannot be read.
            NotStarted: The runtime is not running.
        """
        record, snapshot = await self._asking.load(id, tenant)
        return data_of(record, snapshot)

    async def list(self, *, tenant: str | None = None, limit: int = 100, cursor: str | None = None) -> SessionPage:
        """A page of all sessions, or of a tenant's, in a stable order; `cursor` is the one of the page before.

        Raises:
            ConfigurationError: `limit` is not 1 to 1000, or `cursor` is from nowhere.
            StoreUnavailable: The store cannot be reached.
            NotStarted: The runtime is not running.
        """
        if type(limit) is not int or not 1 <= limit <= _PAGE:
            raise ConfigurationError(f"limit is {limit!r:.80}; it must be a whole number from 1 to {_PAGE}")
        page = await self._asking.page(tenant, limit, cursor)
        return SessionPage(
            tuple(info_of(record) for record in page.records if record.address.kind == SESSION), page.cursor
        )

    async def walk(self, *, tenant: str | None = None) -> AsyncGenerator[SessionInfo]:
        """All sessions, or a tenant's, a thousand to a read of the store. Who is there all the while is met once; who
        comes or goes meanwhile, perhaps. Raises as `list`.
        """
        cursor: str | None = None
        while True:
            page = await self.list(tenant=tenant, limit=_PAGE, cursor=cursor)
            for info in page.sessions:
                yield info
            cursor = page.cursor
            if cursor is None:
                return

    async def size(self, *, tenant: str | None = None) -> int:
        """How many sessions there are, in memory or asleep, of all or of a tenant: counted by a walk, so that a million
        take a thousand reads of the store. Raises as `list`.
        """
        return len([1 async for _ in self.walk(tenant=tenant)])

    # Coming and going

    async def get_or_recreate(
        self, id: str, *, tenant: str | None = None, timeout: float = TIMEOUT
    ) -> SessionReference | None:
        """The session, awake at the node where it belongs, whatever became of the one that had it; None if there is no
        record of it. A use of the session: its end moves.

        Raises:
            SessionUnavailable: Its node or the store cannot be reached, or takes no more for now.
            NotStarted: The runtime is not running.
        """
        try:
            await self._asking.patient(id, WAKE, {}, tenant, timeout)
        except SessionNotFound:
            return None
        return self._reference(id, tenant)

    async def create(
        self, tenant: TenantContext | None = None, *, state: Mapping[str, Any] | None = None, timeout: float = TIMEOUT
    ) -> SessionReference:
        """Open a session by handle: its `id` is what a client of the modern era passes as the argument `session`.
        (One of the handshake era is opened by its client alone, whose `initialize` it begins with.)

        It is opened here, or at a node that has room, and answers to `tenant` and its principal alone. The tenant's
        limit of sessions holds. Cancelled, there may be a session that nobody knows of, until it expires.

        Raises:
            ConfigurationError: The runtime answers no modern era; or it has `tenants`, and none is named.
            StateError: What no state can hold, or more than `max_state` bytes of it.
            LimitExceeded: The tenant has as many sessions as it may have.
            OutcomeUnknown: There may be a session that nobody knows of, until it expires.
            SessionUnavailable: No node has room, or the store cannot be reached.
            NotStarted: The runtime is not running.
        """
        if "modern" not in self._options.eras:
            raise ConfigurationError(
                'eras is ("handshake",), whose sessions are opened by their clients alone; to open one from here, '
                'answer the "modern" era too'
            )
        if tenant is None:
            if self._options.tenants is not None:
                raise ConfigurationError(
                    "tenant is missing: this runtime has tenants, and a session answers to the one that it is opened "
                    "for; pass TenantContext(tenant, principal)"
                )
            tenant = ANONYMOUS
        if not isinstance(cast("object", tenant), TenantContext):
            raise ConfigurationError(f"tenant is {tenant!r:.80}; it must be a TenantContext, of tenant and principal")
        if not isinstance(cast("object", state), Mapping | None):
            raise StateError(f"state is of type {type(state).__name__}; it must be a mapping of keys to values")
        packed = pack_state(dict(state or {}), min(self._options.max_state, MOST_UPDATE))
        return self._reference(await self._asking.ask_for_new(packed, tenant, timeout), tenant.tenant)

    async def delete(self, id: str, *, tenant: str | None = None, timeout: float = TIMEOUT) -> bool:
        """End the session, as its client's DELETE or `close_session` does: calls that run are cancelled, its streams
        end, its record and events go. False if there was none. May be repeated.

        Raises:
            OutcomeUnknown: It may be there still.
            SessionUnavailable: Its node or the store cannot be reached; it is there still.
            OwnTurn: In a call of that session.
            NotStarted: The runtime is not running.
        """
        self._refuse_own_turn(id)
        try:
            return (await self._asking.patient(id, END, {}, tenant, timeout))["ended"]
        except SessionNotFound:
            return False

    # Changing the state

    async def update(
        self,
        id: str,
        put: Mapping[str, Any] | None = None,
        *,
        remove: Iterable[str] = (),
        add: Mapping[str, int | float] | None = None,
        expect: Mapping[str, Any] | None = None,
        absent: Iterable[str] = (),
        tag: str | None = None,
        replace: bool = False,
        once: str | None = None,
        tenant: str | None = None,
        timeout: float = TIMEOUT,
    ) -> dict[str, Any]:
        """Change the session's state in one step, as a turn of its own, and return it as it is then, saved. A use of
        the session: its end moves. Waits for the calls that change the session and came before.

        Args:
            put: Keys and their new values; other keys stay, unless `replace`.
            remove: Keys to remove, if they are there.
            add: Numbers to add to those that are there; to 0 where there is none.
            expect: Change nothing unless these keys have these values.
            absent: Change nothing unless these keys are not there.
            tag: Change nothing unless the state is the one that `read` gave with this tag.
            replace: Remove every key that is neither put nor added to.
            once: A name for this update, such as the id of the webhook's event. Of two updates of one session with the
                same name the later changes nothing (the last 64 names are known), so it is repeated here by itself
                where an answer is lost.

        Cancelled, it may or may not have been made.

        Raises:
            SessionNotFound: There is no such session. Nothing was changed, as with all that follow but the next.
            OutcomeUnknown: It may have been made. With `once`: ask again, with the same name.
            StateConflict: Something is not as expected.
            StateError: What no state can hold, or more than `max_state` bytes of it; or `add` to what is no number.
            SessionUnavailable: The session's node or the store cannot be reached, it takes no more for now, or its turn
                did not come in time.
            OwnTurn: In a call of that session.
            NotStarted: The runtime is not running.
        """
        update = StateUpdate.of(
            put,
            remove=remove,
            add=add,
            expect=expect,
            absent=absent,
            tag=tag,
            replace=replace,
            once=once,
            limit=min(self._options.max_state, MOST_UPDATE),
        )
        return unpack_state(await self._update(id, update, tenant, timeout))

    async def mutate(
        self,
        id: str,
        change: Callable[[dict[str, Any]], Awaitable[T] | T],
        *,
        tenant: str | None = None,
        timeout: float = TIMEOUT,
    ) -> T:
        """Have `change`, sync or async, change the session's state, a dict that it is given; return what it returns.

        It runs here, wherever the session is, and may run several times: on what was read last, until nobody has
        changed the state meanwhile. So it must do nothing else than to change the dict. What it raises is raised, and
        nothing is changed then. A change that takes effect does so once, also where answers are lost.

        Raises:
            ConfigurationError: `change` is no function.
            SessionUnavailable: As `update`; or others changed the state each time, until `timeout`.
            SessionNotFound, OutcomeUnknown, StateError, OwnTurn, NotStarted: As `update`.
        """
        if not callable(change):
            raise ConfigurationError(f"change is {change!r:.80}; it must be a function of the state, sync or async")
        until = time.monotonic() + checked_timeout(timeout)
        pause = FIRST_PAUSE
        limit = min(self._options.max_state, MOST_UPDATE)
        self._refuse_own_turn(id)
        while True:
            record, snapshot = await self._asking.load(id, tenant)
            before = data_of(record, snapshot)
            state = deepcopy(before.state)
            result = change(state)
            value: Any = await result if inspect.isawaitable(result) else result
            if pack_state(state, limit) == snapshot.state:
                return value
            update = StateUpdate.of(
                state,
                remove=(),
                add=None,
                expect=None,
                absent=(),
                tag=before.tag,
                replace=True,
                once=token_urlsafe(12),
                limit=limit,
            )
            left = until - time.monotonic()
            try:
                await self._update(id, update, tenant, max(left, 0.1))
            except StateConflict as conflict:
                if left <= pause:
                    text = f"{record.address}: others changed its state each time, for {timeout:g} s"
                    raise SessionUnavailable(text, record.address, retry_after=1.0) from conflict
                pause = await self._asking.rest(pause)
            else:
                return value

    async def _update(self, id: str, update: StateUpdate, tenant: str | None, timeout: float) -> bytes:
        self._refuse_own_turn(id)
        params = {"update": b64encode(update.pack()).decode()}
        ask = self._asking.ask if update.once is None else self._asking.patient
        result = await ask(id, UPDATE, params, tenant, timeout)
        return b64decode(result["state"])

    def _refuse_own_turn(self, id: str) -> None:
        turn = CURRENT.get()
        if (
            turn is not None
            and turn.id == id
            and turn.running
            and not turn.read_only
            and self._options.turns == "exclusive"
        ):
            raise OwnTurn(turn.what, id)
