"""`SessionActor`: one MCP conversation."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from mcp.server.runner import ServerRunner
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import cancelled_request_id_from_params
from mcp_types import INVALID_REQUEST, ErrorData, RequestId
from mcp_types.version import LATEST_HANDSHAKE_VERSION

from ..actor import Access, Cell
from ..errors import SnapshotError
from ..foreign_errors import ends_the_task
from .connection import SessionConnection, envelope_connection, shared_client_params
from .dispatch import CallDispatch, NoticeDispatch
from .errors import DuplicateRequest, ForeignSession, HandlerExit, ReadOnlyTurn, RequestCancelled
from .kernel import on_notify, on_request
from .live import LiveObjects
from .messages import MOVED, Authorize, Call, Merge, Notice, OpenHandle, Tell, Update, Wake
from .protocol_state import PROTOCOL_READS, PROTOCOL_WRITES, after_handshake, after_write, has_room_for
from .served_session import ServedSession
from .session import CURRENT, TurnSession
from .snapshot import SessionSnapshot
from .state_changes import after_merge, after_opening, after_update
from .state_update import StateUpdate
from .surface import SURFACE
from .tenant import TenantContext
from .tenants.foreign import refuse_foreign_uris
from .tenants.redacting import redacted_error, redacted_result
from .tenants.running import RUNNING, Running

if TYPE_CHECKING:
    from .hosting import HostedServer
    from .session_kind import SessionKind

__all__ = ["SessionActor"]

_NEVER_BESIDE: Final = PROTOCOL_WRITES | {"initialize"}


class SessionActor(ServedSession):
    """A conversation: its snapshot, its MCP server, the calls in flight and the questions to its client."""

    __slots__ = ("_connection", "_in_flight", "_live", "_next", "_turn")

    def __init__(self, kind: SessionKind, cell: Cell, snapshot: SessionSnapshot) -> None:
        super().__init__(kind, cell, snapshot)
        self._next: SessionSnapshot | None = None
        self._turn: TurnSession | None = None
        self._connection: SessionConnection | None = None
        self._in_flight: dict[RequestId | Call, Call] | None = None
        self._live: LiveObjects | None = None

    # What never waits in the mailbox: called by the edge, outside of turns.

    def admit(self, tenant: TenantContext) -> None:
        """
        Raises:
            ForeignSession: no-wrong-tenant: the session was opened by another principal.
        """
        if tenant.principal != self.snap.principal or tenant.tenant != self.snap.tenant:
            raise ForeignSession(self._cell.address)

    def accept(self, call: Call) -> Access:
        """Note `call` as in flight, before it waits or runs; how it wants to be handled.

        Raises:
            DuplicateRequest: A call of the same id is in flight.
            ForeignSession: Another principal's.
        """
        self.admit(call.tenant)
        if self._in_flight is None:
            self._in_flight = {}
        if self._in_flight.setdefault(_key(call), call) is not call:
            raise DuplicateRequest(call.id)
        call.actor = self
        return self.access(call)

    def forget(self, call: Call) -> None:
        """`call` has its outcome."""
        key = _key(call)
        if self._in_flight is not None and self._in_flight.get(key) is call:
            del self._in_flight[key]
            if not self._in_flight:
                self._in_flight = None

    def access(self, call: Call) -> Access:
        """How `call` wants to be handled, as far as is known now."""
        reads = call.method in PROTOCOL_READS or self._tool_reads(call)
        if reads or (self._kind.interleaved and call.method not in _NEVER_BESIDE):
            return Access.SHARED
        return Access.EXCLUSIVE

    def _tool_reads(self, call: Call) -> bool:
        if call.method != "tools/call" or call.params is None:
            return False
        hosted = self._hosted or self._kind.servers.one
        return hosted is not None and hosted.tools.is_read_only(call.params.get("name"))

    def cancel(self, params: Mapping[str, Any] | None) -> None:
        """`notifications/cancelled`: stop the call it names, wherever it is. `initialize` cannot be cancelled."""
        request_id = cancelled_request_id_from_params(params)
        call = None if request_id is None else self.in_flight(request_id)
        if call is not None and call.method != "initialize":
            call.cancel()

    def answer(self, question: object, result: dict[str, Any] | None, error: ErrorData | None) -> bool:
        """The client's answer to a question of this session; False if nobody waits for it."""
        return self._back_channel is not None and self._back_channel.answer(question, result, error)

    def cut_off(self) -> None:
        """This node has lost the session while turns of it run: what they ask the client, the client tells others."""
        self.questions().cut_off()

    def ignores(self, notification: str, params: dict[str, Any] | None) -> bool:
        """Whether a turn for this notification would do nothing. False where that is not known yet."""
        return (
            notification != "notifications/progress"
            and self._hosted is not None
            and self._hosted.ignores(notification, params)
        )

    def in_flight(self, request_id: RequestId) -> Call | None:
        """The call of this id that waits or runs, in the handshake era."""
        return self._in_flight.get(coerce_request_id(request_id)) if self._in_flight is not None else None

    @property
    def calls_in_flight(self) -> list[Call]:
        return list(self._in_flight.values()) if self._in_flight is not None else []

    # Turns

    async def receive(self, message: Any, access: Access) -> Any:
        kind = cast("type[object]", type(message))
        if kind is Call:
            return await self._call(message, access)
        if kind is Notice:
            await self._notice(message)
            return None
        if kind is Authorize:
            self.admit(message.tenant)
            if self.snap.origin != "handshake" and not message.by_handle:
                raise ForeignSession(self._cell.address)
            return None
        if kind is Tell or kind is Update or kind is Wake:
            if message.tenant not in (None, self.snap.tenant):
                raise ForeignSession(self._cell.address)
            if kind is Tell:
                await self.tell(message.method, message.params)
            return self._update(message.update) if kind is Update else None
        if kind is Merge:
            self._next = after_merge(self.snap, message, self._kind.max_state)
            return None
        assert kind is OpenHandle, message
        self._next = after_opening(self.snap, message)
        return None

    def _update(self, update: StateUpdate) -> SessionSnapshot:
        changed = after_update(self.snap, update, self._kind.max_state)
        if changed is not self.snap:
            self._next = changed
        return changed

    async def _call(self, call: Call, access: Access) -> dict[str, Any]:
        if self._in_flight is None or self._in_flight.get(_key(call)) is not call:
            self.accept(call)
        if call.route is None and self.snap.origin != "handshake":
            raise ForeignSession(self._cell.address)
        if access is Access.EXCLUSIVE and self._kind.interleaved and call.method not in _NEVER_BESIDE:
            return self._move_beside(call)
        before = self._hosted
        hosted = before if before is not None and self._fits(before, call.tenant) else await self._host(call.tenant)
        hosted.turns += 1
        try:
            if hosted.filtered and call.surface is None:
                # Whoever brought the call did not know yet that the server hides anything.
                await self._kind.servers.surfaces.look_up(call)
            if call.surface is not self._surface or hosted is not before:
                await self._sees(call.surface, anew=before is not None and hosted is not before)
            return await self._run(call, hosted, access)
        finally:
            hosted.turns -= 1
            if hosted.retired:
                self._kind.servers.release(hosted)

    def _move_beside(self, call: Call) -> dict[str, Any]:
        """Have `call` run beside the exclusive turns: it was sent to be one before it was known what it is."""
        assert call.envelope is not None
        assert self._kind.registry is not None
        call.envelope = replace(call.envelope, access=Access.SHARED, context=copy_context(), at_once=False)
        self._kind.registry.deliver(self._cell.address, call.envelope)
        return MOVED

    async def _run(self, call: Call, hosted: HostedServer, access: Access) -> dict[str, Any]:
        method, params = call.method, call.params
        limit = self._kind.max_subscriptions
        if method == "resources/subscribe" and not has_room_for(self.snap, (params or {}).get("uri"), limit):
            raise MCPError(INVALID_REQUEST, f"this session has {limit} subscriptions, its limit")
        if call.route is None:
            connection = self._connection or self._connect()
            dispatch = CallDispatch(call, self)
        else:
            connection = envelope_connection(call.route)
            dispatch = CallDispatch(call, None)
        runner = ServerRunner(
            hosted.lowlevel,
            connection,
            hosted.lifespan_state,
            init_options=hosted.init_options if method == "initialize" else None,
        )
        tool = params.get("name") if method == "tools/call" and params is not None else None
        helpers = self._kind.helpers
        RUNNING.set(Running(call.tenant, helpers))
        if tool is not None:
            if not hosted.tools.known:
                await call.run(hosted.tools.learn(runner, dispatch, meta=(params or {}).get("_meta")))
            hosted.tools.takes_session(tool)
        else:
            refuse_foreign_uris(method, params, call.tenant.tenant)
        read_only = method in PROTOCOL_READS or (tool is not None and hosted.tools.is_read_only(tool))
        if read_only and access is Access.EXCLUSIVE:
            return self._move_beside(call)
        if call.cancelled:
            raise RequestCancelled
        allowance = call.allowance
        if allowance is not None:
            beginning = allowance.begin(call, stateful=True, read_only=read_only)
            if beginning is not None:
                await call.run(beginning)
        turn = self._begin_turn(call, tool, dispatch, read_only=read_only)
        if access is Access.EXCLUSIVE:
            self._turn = turn
        CURRENT.set(turn)
        try:
            ask = on_request(runner)
            if call.surface is None or (tool is not None and hosted.hiding.plain):
                work = ask(dispatch, method, params)
            else:
                work = hosted.hiding.ask(call.surface, partial(ask, dispatch, method), method, params)
            # What follows it is not the handler's any more: a call that is cancelled now has had its effect.
            result = await call.run(work)
            if allowance is not None and allowance.bounds_results:
                allowance.check_result(call, result, stateful=True)
            await self.settle()
            if tool is not None and result.get("isError"):
                # all-or-nothing: a tool that failed changes nothing, though its failure is a result on the wire.
                turn.end_turn()
                result = redacted_result(helpers, result)
            elif read_only:
                turn.changed_state()
            elif method == "initialize":
                self._next = after_handshake(self.snap, connection)
            elif method in PROTOCOL_WRITES:
                self._next = after_write(self._next or self.snap, method, params)
            if access is Access.SHARED and not read_only and (changed := turn.changed_state()) is not None:
                await self._kind.merge(self._cell.address, turn.saved, changed, call.allowance)
            return result
        except Exception as error:
            await self.settle()
            if turn.refused_write and not isinstance(error, ReadOnlyTurn):
                # What a prompt or a resource raises the SDK keeps to itself; this is for its author to read.
                raise ReadOnlyTurn(turn.what) from error
            if (told := redacted_error(helpers, error)) is not error:
                raise told from None
            raise
        finally:
            dispatch.close()
            if access is Access.SHARED:
                turn.end_turn()
            if call.route is not None:
                await connection.aclose()

    async def _notice(self, notice: Notice) -> None:
        self.admit(notice.tenant)
        if self.snap.origin != "handshake":
            raise ForeignSession(self._cell.address)
        # A program that calls itself, from a tool, brings that tool's along.
        CURRENT.set(None)
        RUNNING.set(Running(notice.tenant, self._kind.helpers))
        params = notice.params
        if notice.method == "notifications/progress" and self._back_channel is not None and params is not None:
            await self._back_channel.note_progress(params)
        hosted = self._hosted or await self._host(notice.tenant)
        if hosted.filtered:
            SURFACE.set(await self._kind.servers.surfaces.of(notice.tenant))
        connection = self._connection or self._connect()
        runner = ServerRunner(hosted.lowlevel, connection, hosted.lifespan_state)
        try:
            await on_notify(runner)(NoticeDispatch(notice), notice.method, params)
        except BaseException as error:
            if isinstance(error, Exception) or ends_the_task(error):
                raise
            raise HandlerExit(error) from error

    # State

    def _begin_turn(self, call: Call, tool: object, dispatch: CallDispatch, *, read_only: bool) -> TurnSession:
        return TurnSession(
            id=self._cell.address.id,
            tenant=call.tenant,
            node=self._kind.node_id,
            method=call.method,
            tool=tool,
            saved=self.snap.state,
            max_state=self._kind.max_state,
            allowance=call.allowance,
            read_only=read_only,
            live=self._live_objects,
            checkpoint=self._checkpoint,
            notify=self.tell,
            dispatch=dispatch,
        )

    def _live_objects(self) -> LiveObjects:
        if self._live is None:
            self._live = LiveObjects()
        return self._live

    async def _checkpoint(self, turn: TurnSession, state: bytes) -> None:
        if turn is not self._turn:  # an interleaved one
            await self._kind.merge(self._cell.address, turn.saved, state, turn.allowance)
            return
        saving = replace(self._next or self.snap, state=state)
        await self._cell.save(saving.pack())
        self._state_saved(saving)
        self.snap = saving
        self._next = None

    def snapshot(self) -> bytes | None:
        turn = self._turn
        state = turn.changed_state() if turn is not None else None
        if state is not None:
            self._next = replace(self._next or self.snap, state=state)
        if self._next is None:
            self._turn_over()
            return None
        return self._next.pack()

    def saved(self) -> None:
        if self._next is not None:
            self._state_saved(self._next)
            before, self.snap = self.snap, self._next
            if not before.protocol_version and self._kind.opened is not None:
                self._kind.opened(self._cell.address, self.snap)
            if self._kind.relay is not None and self.snap.subscriptions != before.subscriptions:
                self._kind.relay.subscribed(self._cell.address, self.snap.subscriptions, self._unheard)
        self._turn_over()

    def _state_saved(self, saved: SessionSnapshot) -> None:
        if self._kind.limits is not None and saved.state is not self.snap.state:
            self._kind.limits.state_changed(saved.tenant, len(saved.state) - len(self.snap.state))

    def rollback(self) -> None:
        self._turn_over()

    def _turn_over(self) -> None:
        self._next = None
        if self._turn is not None:
            self._turn.end_turn()
            self._turn = None

    # Parts that are made on first use

    def _connect(self) -> SessionConnection:
        snap = self.snap
        try:
            client_params = shared_client_params(snap.client) if snap.client else None
        except ValueError as error:
            raise SnapshotError(f"the client parameters in the snapshot of {self._cell.address} are damaged") from error
        connection = self._connection = SessionConnection(
            self,
            protocol_version=snap.protocol_version or LATEST_HANDSHAKE_VERSION,
            session_id=self._cell.address.id,
            client_params=client_params,
        )
        return connection

    async def close(self) -> None:
        for call in self.calls_in_flight:
            # Those that wait have not begun, and are the registry's: it fails them, or sends them on.
            if call.task is not None:
                call.cancel()
        try:
            if self._live is not None:
                await self._live.aclose()
            if self._connection is not None:
                await self._connection.aclose()
        finally:
            self._release_server()


def _key(call: Call) -> RequestId | Call:
    """What a call is known by while in flight: its id, or itself in the modern era, where ids are each client's own."""
    return coerce_request_id(call.id) if call.route is None else call
