"""`Sessions`: finds the session that a request names, wakes it if it sleeps, and sees to whom it answers."""

from __future__ import annotations

import asyncio

from ...actors import Access, Envelope, FutureReply, Registry
from ...actors.session import SESSION, ForeignSession, SessionActor, TenantContext
from ...actors.session.authorization import authorize, screen
from ...actors.session.messages import Authorize
from ...stores import Address, AddressError

__all__ = ["Sessions"]


class Sessions:
    """The handshake era's view of the registry: sessions that an `initialize` opened, and their principals."""

    def __init__(self, registry: Registry, check_timeout: float) -> None:
        """`check_timeout`: seconds that a session may take to wake and to say whether it answers."""
        self._registry = registry
        self._check_timeout = check_timeout
        self._waking: dict[Address, asyncio.Future[None]] = {}

    def address(self, session_id: bytes) -> Address | None:
        """The address that an `Mcp-Session-Id` header spells; None if it spells none."""
        address = Address(SESSION, session_id.decode("latin-1"))
        if address in self._registry:
            # What is live has been checked before.
            return address
        try:
            return Address.checked(*address)
        except AddressError:
            return None

    async def live(self, address: Address, tenant: TenantContext) -> SessionActor | None:
        """The session in memory, woken if need be, so that its calls count as in flight from the first on.

        None if it has left again at once. Those who ask while it wakes go on in the order in which they asked.

        Raises:
            UnderstudyError: There is no such session, or it cannot be reached now.
        """
        actor = self.present(address)
        if actor is None:
            await screen(self._registry, address, tenant)
            await self._wake(address, tenant)
            actor = self.present(address)
        return actor

    async def _wake(self, address: Address, tenant: TenantContext) -> None:
        woken = self._waking.get(address)
        if woken is None:
            woken = asyncio.get_running_loop().create_future()
            self._registry.deliver(address, Envelope(Authorize(tenant), Access.SHARED, FutureReply(woken)))
            self._waking[address] = woken
            woken.add_done_callback(lambda _: self._waking.pop(address, None))
        await asyncio.wait((woken,), timeout=self._check_timeout)
        error = woken.exception() if woken.done() and not woken.cancelled() else None
        # A session that does not answer to the first who asked may answer to the next: each finds out for itself.
        if error is not None and not isinstance(error, ForeignSession):
            raise error

    def present(self, address: Address) -> SessionActor | None:
        """The session, if it is in memory."""
        actor = self._registry.live(address)
        return actor if isinstance(actor, SessionActor) else None

    def admit(self, actor: SessionActor, address: Address, tenant: TenantContext) -> None:
        """
        Raises:
            ForeignSession: The session answers to another principal, or was not opened in this era.
        """
        actor.admit(tenant)
        if actor.snap.origin != "handshake":
            raise ForeignSession(address)

    def admit_to_streams(self, address: Address, tenant: TenantContext) -> bool:
        """Whether the session is in memory here still, though it takes no more turns, as while it is handed off.

        Raises:
            ForeignSession: See `admit`.
        """
        actor = self.present(address)
        if actor is None:
            return False
        self.admit(actor, address, tenant)
        return True

    async def authorize(self, address: Address, tenant: TenantContext) -> None:
        """Return if there is such a session for this principal.

        Raises:
            UnderstudyError: There is none, or it cannot be reached now.
        """
        await authorize(self._registry, address, Authorize(tenant), timeout=self._check_timeout)
