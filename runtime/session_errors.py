"""What can keep the host program from a session of its own."""

from __future__ import annotations

from ..actors.errors import ActorNotFound, ActorUnavailable
from ..stores import Address, AddressError

__all__ = ["SessionNotFound", "SessionUnavailable"]


class SessionNotFound(ActorNotFound):
    """There is no such session: never opened, ended, expired, or not of the tenant that was named."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.args = (f"no {address}: never opened, ended, expired, or not of the tenant that was named",)


class SessionUnavailable(ActorUnavailable):
    """The session cannot be reached for now: its store or its node, or there is no room for it.

    `outcome_unknown`: it may have been reached all the same. `retry_after` is a hint in seconds.
    """


def session_address(kind: str, id: str) -> Address:
    """The address of a session.

    Raises:
        SessionNotFound: Nothing that a session's id could be.
    """
    try:
        return Address.checked(kind, id)
    except (AddressError, TypeError) as error:
        raise SessionNotFound(Address(kind, f"{id!r:.80}")) from error
