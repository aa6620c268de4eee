"""`Marks`: by what a record knows which store gave its epoch out."""

from __future__ import annotations

import secrets

from ..address import Address

__all__ = ["Marks"]

MAX_HELD = 65_536
"""Records of which it is remembered which epoch they were given here; then the one given longest ago is forgotten."""


class Marks:
    """The mark that a store leaves in each record that it creates or claims, and the epochs that go with it.

    After a fail-over that lost a claim, the same epoch is given out again. Of the two that hold it then, one finds its
    mark in the record (one-writer). Of a record that has been forgotten here the epoch alone tells.
    """

    def __init__(self) -> None:
        self.own = secrets.token_hex(8).encode()
        """This store's mark."""
        self._held: dict[Address, int] = {}

    def hold(self, address: Address, epoch: int) -> None:
        """`epoch` was given out here."""
        held = self._held
        held.pop(address, None)
        if len(held) >= MAX_HELD:
            del held[next(iter(held))]
        held[address] = epoch

    def of(self, address: Address, epoch: int | None) -> bytes:
        """The mark that the record must have where `epoch` is to write; empty: whichever it has."""
        return self.own if epoch is not None and self._held.get(address) == epoch else b""

    def forget(self, address: Address) -> None:
        """The record is gone."""
        self._held.pop(address, None)
