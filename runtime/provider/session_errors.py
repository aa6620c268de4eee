"""What can keep the host program from a session of its own."""

from __future__ import annotations

from ...actors.errors import ActorNotFound, ActorUnavailable
from ...stores import Address, AddressError, UnderstudyError

__all__ = ["OutcomeUnknown", "OwnTurn", "SessionNotFound", "SessionUnavailable"]


class SessionNotFound(ActorNotFound):
    """There is no such session: never opened, ended, expired, or not of the tenant that was named."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.args = (f"no {address}: never opened, ended, expired, or not of the tenant that was named",)


class SessionUnavailable(ActorUnavailable):
    """The session cannot be reached for now: its store or its node, or there is no room for it.

    `outcome_unknown`: it may have been reached all the same. `retry_after` is a hint in seconds.
    """


class OutcomeUnknown(SessionUnavailable):
    """What was asked of the session may have been done, although no answer came: read the state before you ask again,
    or give an update a name (`once=`), by which it can be repeated.
    """

    def __init__(self, message: str, address: Address, *, retry_after: float = 1.0) -> None:
        super().__init__(message, address, retry_after=retry_after, outcome_unknown=True)


class OwnTurn(UnderstudyError, RuntimeError):
    """A call of a session asked for what must wait until that very call is over."""

    def __init__(self, what: str, id: str) -> None:
        super().__init__(
            f"{what} runs in session {id[:8]}..., and would wait for its own end: change `session.state` instead"
        )


def session_address(kind: str, id: str) -> Address:
    """The address of a session.

    Raises:
        SessionNotFound: Nothing that a session's id could be.
    """
    try:
        return Address.checked(kind, id)
    except (AddressError, TypeError) as error:
        raise SessionNotFound(Address(kind, f"{id!r:.80}")) from error
