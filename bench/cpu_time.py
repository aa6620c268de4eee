"""How much processor time each process of a benchmark has used. Needs Linux's /proc, as `bench memory` does."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

__all__ = ["CpuMeter", "cpu_seconds"]

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time, of the user and of the system, that the process has used in all its threads."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    # The second field is the program's name in brackets, which may hold anything.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


class CpuMeter:
    """Adds up what groups of processes use while a side of a benchmark runs."""

    def __init__(self, processes: Mapping[str, Callable[[], list[int]]]) -> None:
        """`processes`: of each group, what gives the ids of its processes now."""
        self._processes = processes
        self.seconds: dict[str, float] = dict.fromkeys(processes, 0.0)
        self.operations = 0

    def around(self, run: Callable[[int], Awaitable[None]]) -> Callable[[int], Awaitable[None]]:
        """`run`, metered."""

        async def metered(operations: int) -> None:
            before = self._now()
            await run(operations)
            for group, now in self._now().items():
                self.seconds[group] += now - before[group]
            self.operations += operations

        return metered

    def per_operation(self, group: str) -> float:
        """Seconds of an operation that the group's processes have used."""
        return self.seconds[group] / max(self.operations, 1)

    def _now(self) -> dict[str, float]:
        return {group: sum(cpu_seconds(pid) for pid in pids()) for group, pids in self._processes.items()}
