"""`Cells`: a model of the registry: actors in memory, their turns and their saves, as `understudy.actors` does them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from understudy.runtime.cluster.steps import NoRoomHere, NotRunHere
from understudy.stores import Address, Record, RecordExists, RecordNotFound, StaleEpoch

from .calls import Call, Status
from .storage import unpack_log
from .world import TIMED_OUT, Promise, Script

if TYPE_CHECKING:
    from .node import Node

__all__ = ["Cell", "Cells"]

STORE_TIMEOUT = 1.5
TRIES = 3

Answer = tuple[str, tuple[str, ...]]
"""A status and a log."""


class Cell:
    """One actor."""

    __slots__ = ("address", "busy", "epoch", "leaving", "left", "live", "log", "mailbox", "reads", "used", "version")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.live = False
        self.epoch = 0
        self.version = 0
        self.log: tuple[str, ...] = ()
        """As last saved."""
        self.mailbox: deque[tuple[Call, Promise]] = deque()
        self.busy = False
        """An exclusive turn runs, or the activation."""
        self.reads = 0
        self.leaving = ""
        self.left = Promise()
        self.used = 0

    @property
    def quiet(self) -> bool:
        return self.live and not self.busy and not self.mailbox and not self.reads and not self.leaving


class Cells:
    """One process's actors."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._by_address: dict[Address, Cell] = {}

    def __contains__(self, address: Address) -> bool:
        return address in self._by_address

    def __len__(self) -> int:
        return len(self._by_address)

    def live(self, address: Address) -> bool:
        """Whether it is in memory and takes calls, or may say why not."""
        return address in self._by_address

    def addresses(self) -> list[Address]:
        return [cell.address for cell in self._by_address.values() if not cell.leaving]

    # Calls

    def deliver(self, call: Call) -> Promise:
        """`NotRunHere`, `NoRoomHere`, or an answer."""
        promise = Promise()
        self._deliver(call, promise)
        return promise

    def _deliver(self, call: Call, promise: Promise) -> None:
        node = self._node
        ownership = node.ownership
        cell = self._by_address.get(call.address)
        if not ownership.may_run(node.clock()):
            promise.resolve(NotRunHere())
        elif cell is not None:
            if cell.leaving:
                promise.resolve(NotRunHere())
            else:
                self._accept(cell, call, promise)
        elif not ownership.holds(call.address) or ownership.handing_off(call.address):
            promise.resolve(NotRunHere())
        elif not self._room():
            promise.resolve(NoRoomHere())
        else:
            cell = self._by_address[call.address] = Cell(call.address)
            cell.busy = True
            cell.mailbox.append((call, promise))
            node.process.spawn(self._activate(cell))

    def _room(self) -> bool:
        node = self._node
        if node.ownership.draining:
            return False
        if len(self._by_address) < node.capacity:
            return True
        idle = next((cell for cell in self._by_address.values() if cell.quiet), None)
        if idle is None:
            return False
        self._passivate(idle)
        return True

    def _accept(self, cell: Cell, call: Call, promise: Promise) -> None:
        cell.used += 1
        if cell.live and call.kind == "read":
            self._node.process.spawn(self._read(cell, call, promise))
            return
        cell.mailbox.append((call, promise))
        if cell.live and not cell.busy:
            self._node.process.spawn(self._work(cell))

    def _may_start(self, call: Call, promise: Promise) -> bool:
        node = self._node
        if not node.ownership.may_run(node.clock()):
            promise.resolve(NotRunHere())
            return False
        node.checker.turn(call, node.ownership.me)
        return True

    def _read(self, cell: Cell, call: Call, promise: Promise) -> Script:
        if not self._may_start(call, promise):
            return
        cell.reads += 1
        log = cell.log
        yield self._node.turn_length()
        cell.reads -= 1
        promise.resolve((Status.OK, log))
        self._rested(cell)

    def _work(self, cell: Cell) -> Script:
        cell.busy = True
        while cell.mailbox and not cell.leaving:
            call, promise = cell.mailbox.popleft()
            if call.kind == "read":
                self._node.process.spawn(self._read(cell, call, promise))
                continue
            if not self._may_start(call, promise):
                continue
            yield self._node.turn_length()
            if call.kind == "set" and call.id in cell.log:
                promise.resolve((Status.OK, cell.log))
                continue
            log = (*cell.log, call.id)
            status = yield from self._save(cell, log)
            if status == Status.OK:
                cell.log = log
                promise.resolve((Status.OK, log))
            else:
                promise.resolve((status, ()))
                self._leave(cell, "lost" if status == Status.NOT_SAVED else "in doubt")
        cell.busy = False
        self._rested(cell)

    def _save(self, cell: Cell, log: tuple[str, ...]) -> Script:
        """As `RecordWriter.save`."""
        node = self._node
        version = cell.version + 1
        doubt = False
        for _ in range(TRIES):
            request = node.storage.save(node.process, cell.address, cell.epoch, version, log)
            answer = yield node.process.within(STORE_TIMEOUT, request)
            if answer is TIMED_OUT:
                doubt = True
            elif not isinstance(answer, StaleEpoch):
                cell.version = version
                return Status.OK
            elif not doubt:
                return Status.NOT_SAVED
            else:
                found = yield node.process.within(STORE_TIMEOUT, node.storage.load(node.process, cell.address))
                if not isinstance(found, Record):
                    return Status.IN_DOUBT
                if found.epoch == cell.epoch and found.version >= version:
                    cell.version = version
                    return Status.OK
                if found.version < version or (found.version == version and unpack_log(found.snapshot) != log):
                    return Status.NOT_SAVED
                return Status.IN_DOUBT
        return Status.IN_DOUBT

    # Coming and going

    def _activate(self, cell: Cell) -> Script:
        node = self._node
        request = node.storage.claim(node.process, cell.address, node.name)
        record: Any = yield node.process.within(STORE_TIMEOUT, request)
        if not isinstance(record, Record):
            status = Status.NO_SESSION if isinstance(record, RecordNotFound) else Status.UNAVAILABLE
            for _, promise in cell.mailbox:
                promise.resolve((status, ()))
            cell.mailbox.clear()
            self._remove(cell)
            node.rest(cell.address)
            return
        cell.epoch, cell.version, cell.log = record.epoch, record.version, unpack_log(record.snapshot)
        if not (yield from node.confirms(cell.address, cell.epoch)):
            self._leave(cell, "lost")
            return
        cell.live = True
        yield from self._work(cell)

    def open(self, address: Address) -> Script:
        """A new session; whether its record is there and it is live."""
        node = self._node
        cell = self._by_address[address] = Cell(address)
        cell.busy = True
        created = False
        doubt = False
        for _ in range(TRIES):
            request = node.storage.create(node.process, address, node.name)
            answer = yield node.process.within(STORE_TIMEOUT, request)
            if isinstance(answer, Record) or (doubt and isinstance(answer, RecordExists)):
                created = True
                break
            doubt = True
        cell.busy = False
        if not created:
            cell.leaving = "unborn"
            self._go(cell)
            return False
        cell.live, cell.epoch, cell.version = True, 1, 1
        self._rested(cell)
        return True

    def lapse(self) -> None:
        """All must leave."""
        for cell in list(self._by_address.values()):
            self._leave(cell, "lapsed")

    def hand_off(self, address: Address) -> Promise | None:
        """Done when the actor has left; None if it is not there."""
        cell = self._by_address.get(address)
        if cell is None:
            return None
        self._leave(cell, "handed off")
        return cell.left

    def _leave(self, cell: Cell, why: str) -> None:
        if cell.leaving in ("lost", "in doubt") or self._by_address.get(cell.address) is not cell:
            return
        cell.leaving = why
        self._node.note("actor %s leaves: %s", cell.address.id, why)
        waiting, cell.mailbox = cell.mailbox, deque()
        if why in ("lost", "in doubt") or (not cell.busy and not cell.reads):
            self._go(cell)
        for call, promise in waiting:
            if why == "in doubt":
                self._deliver(call, promise)
            else:
                promise.resolve(NotRunHere())

    def _go(self, cell: Cell) -> None:
        self._remove(cell)
        if cell.leaving == "lost":
            self._node.ownership.lost(cell.address)
        elif cell.leaving in ("in doubt", "passivated"):
            self._node.rest(cell.address)

    def _remove(self, cell: Cell) -> None:
        if self._by_address.get(cell.address) is cell:
            del self._by_address[cell.address]
        cell.left.resolve(None)

    def _rested(self, cell: Cell) -> None:
        """Nothing runs any more, perhaps."""
        if self._by_address.get(cell.address) is not cell or cell.busy or cell.reads:
            return
        if cell.leaving:
            self._go(cell)
        elif cell.mailbox:
            self._node.process.spawn(self._work(cell))
        else:
            used = cell.used
            self._node.process.timer(self._node.idle_after(), self._idle, cell, used)

    def _idle(self, cell: Cell, used: int) -> None:
        if cell.quiet and cell.used == used and not self._node.probed:
            self._passivate(cell)

    def _passivate(self, cell: Cell) -> None:
        if self._by_address.get(cell.address) is cell:
            self._leave(cell, "passivated")
