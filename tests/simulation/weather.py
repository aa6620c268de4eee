"""`Weather`: how well messages and the store do at the moment. `Nats` and `Storage` ask it about each message."""

from __future__ import annotations

from .world import World

__all__ = ["LATEST", "Weather"]

LATEST = 5.0
"""Seconds that the latest message takes."""


class Weather:
    """Fair until a fault makes it foul. Chances are per message."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.lost = 0.0
        self.late = 0.0
        self.twice = 0.0
        self.store_lost = 0.0
        self.store_late = 0.0
        self.store_twice = 0.0
        self.frozen_until = 0.0

    def clear(self) -> None:
        self.lost = self.late = self.twice = 0.0
        self.store_lost = self.store_late = self.store_twice = 0.0

    def delay(self) -> float:
        """Seconds for one message over NATS."""
        world = self._world
        if self.late and world.chance(self.late):
            return world.random.choice((0.05, 0.4, 1.5, LATEST)) * world.random.random()
        return 0.0002 + 0.002 * world.random.random()

    def loses(self) -> bool:
        return self.lost > 0 and self._world.chance(self.lost)

    def repeats(self) -> bool:
        return self.twice > 0 and self._world.chance(self.twice)

    def store_delay(self) -> float:
        """Seconds for one message to or from the store."""
        world = self._world
        late = self.store_late and world.chance(self.store_late)
        return world.random.random() * (LATEST if late else 0.003)
