"""`Script`: what is to befall one stream, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

__all__ = ["TOTAL", "Blow", "Script"]

TOTAL = 1000
"""Numbers that a tool sends."""

_BLOWS = {
    # kind: how often, of 100 or so
    "drop": 34,
    "stall": 10,
    "twice": 12,
    "kill-edge": 12,
    "kill-owner": 7,
    "kill-both": 4,
    "hang-edge": 6,
    "hang-owner": 1,
    "cut-edge": 6,
    "cut-owner": 3,
    "drain-owner": 8,
    "drain-edge": 3,
}
_LAST = frozenset(("kill-owner", "kill-both", "hang-owner", "cut-owner"))
"""After which the turn is most likely over."""


@dataclass(frozen=True, slots=True)
class Blow:
    """One thing that happens when the client has got number `at`."""

    at: int
    kind: str
    away: float
    """Seconds until the client comes back, where it has lost its connection; the length of a stall."""
    lasts: float
    """Seconds that a hang or a cut lasts."""
    silently: bool
    """A cut holds everything back and breaks nothing; a drain leaves the client its connection."""
    nodes: tuple[int, int]
    """Where the client comes back, as indices of the nodes that are well."""

    def __str__(self) -> str:
        more = f" for {self.lasts:.2f} s{' silently' * self.silently}" if self.kind.startswith(("hang", "cut")) else ""
        quiet = " (keeps its connection)" if self.kind.startswith("drain") and self.silently else ""
        return f"{self.at}: {self.kind}{more}{quiet}, away {self.away:.2f} s, then at {self.nodes}"


@dataclass(frozen=True, slots=True)
class Script:
    seed: int
    store: str
    owner: int
    edge: int
    """Indices of nodes that are well when the run begins."""
    tool: str
    burst: int
    pause: float
    large_every: int
    large: int
    blows: tuple[Blow, ...]

    @classmethod
    def of(cls, seed: int) -> Script:
        """The same for the same seed."""
        random = Random(f"stream {seed}")
        owner = random.randrange(5)
        edge = owner if random.random() < 0.25 else random.randrange(5)
        pace = random.choice(((1000, 0.0), (50, 0.01), (10, 0.005), (100, 0.05), (1, 0.0), (250, 0.2)))
        large = random.choice(((TOTAL + 1, 0), (TOTAL + 1, 0), (10, 2_000), (37, 100_000), (200, 300_000)))
        blows: list[Blow] = []
        for at in sorted(random.randrange(TOTAL + 1) for _ in range(random.randint(1, 7))):
            (kind,) = random.choices(list(_BLOWS), list(_BLOWS.values()))
            away = random.choice((0.0, 0.0, random.uniform(0, 0.1), random.uniform(0.1, 0.6)))
            lasts = 4.5 if kind == "hang-owner" else random.uniform(0.1, 1.2)
            nodes = (random.randrange(5), random.randrange(5))
            blows.append(Blow(at, kind, away, lasts, random.random() < 0.5, nodes))
            if kind in _LAST and random.random() < 0.7:
                break
        return cls(
            seed=seed,
            store="sqlite" if seed % 4 == 3 else "nats",
            owner=owner,
            edge=edge,
            tool="recite_again" if random.random() < 0.3 else "recite",
            burst=pace[0],
            pause=pace[1],
            large_every=large[0],
            large=large[1],
            blows=tuple(blows),
        )

    def __str__(self) -> str:
        pace = f"{self.pause} s after each {self.burst}"
        large = f", {self.large} characters with each {self.large_every}th" if self.large else ""
        blows = "; ".join(map(str, self.blows))
        where = f"{self.tool} at {self.owner}, read at {self.edge}"
        return f"seed {self.seed}, store {self.store}: {where}, {pace}{large}; {blows}"
