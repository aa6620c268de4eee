"""`Counters`: the seam behind which all nodes count together, and the counters of a node that is alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from ...stores import UnderstudyError

__all__ = ["Counters", "CountersBusy", "CountersUnavailable", "MemoryCounters", "Step"]

T = TypeVar("T")

Step = Callable[[bytes | None], tuple[bytes | None, T]]
"""Makes of a record (None: there is none) the one that takes its place (None: none is needed) and a result. May be
called several times for one change, and must do nothing else."""

MAX_RECORDS: Final = 100_000
"""Records in memory; above it the one that was changed least recently is forgotten."""


class CountersUnavailable(UnderstudyError):
    """The counters do not answer. Whether the change was made is not known."""


class CountersBusy(CountersUnavailable):
    """Others change the same record all the time: it was not changed, and another try may go well."""


class Counters(Protocol):
    """Small records by key, changed by compare-and-set. One object per node, used on one event loop.

    Counters that may lose their records have an attribute `generation`: a number that is another one when those that
    were there before may be gone. What is in use is then entered again.
    """

    @property
    def shared(self) -> bool:
        """Whether other nodes count here too."""
        ...

    async def change(self, key: str, step: Step[T], lasting: float | None = None) -> tuple[bytes | None, T]:
        """Put what `step` makes of the record at `key` in its place, unless somebody else was faster: then again.

        Returns the record that now stands, and the step's result. `key` is of letters, digits, dots and hyphens.
        `lasting`: seconds after which a record that nobody has changed may be forgotten; None: never. Cancellation
        leaves it open whether the change was made.

        Raises:
            CountersBusy: Others have been faster some times over.
            CountersUnavailable: It cannot be done.
        """
        ...


class MemoryCounters:
    """Counters of one node, in its memory."""

    shared = False

    def __init__(self, max_records: int = MAX_RECORDS) -> None:
        self._max_records = max_records
        self._records: OrderedDict[str, bytes] = OrderedDict()

    async def change(self, key: str, step: Step[T], lasting: float | None = None) -> tuple[bytes | None, T]:
        """See `Counters.change`. Never waits."""
        return self.change_now(key, step)

    def change_now(self, key: str, step: Step[T]) -> tuple[bytes | None, T]:
        """`change`, for those who cannot wait."""
        record, result = step(self._records.get(key))
        self.put(key, record)
        return record, result

    def put(self, key: str, record: bytes | None) -> None:
        """Have `record` be what stands at `key`."""
        if record is None:
            self._records.pop(key, None)
            return
        self._records[key] = record
        self._records.move_to_end(key)
        if len(self._records) > self._max_records:
            self._records.popitem(last=False)

    def stats(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"records": len(self._records)}
