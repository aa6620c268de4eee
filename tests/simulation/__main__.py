"""`python -m simulation [--seeds N] [--seed S] [--first S]`: play schedules; the trace of one that fails."""

from __future__ import annotations

import argparse
import sys
from time import perf_counter

from .schedule import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description="Plays seeded schedules against the machine.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, with its trace")
    options = parser.parse_args()
    if options.seed is not None:
        return replay(options.seed)
    started = perf_counter()
    calls = events = 0
    for seed in range(options.first, options.first + options.seeds):
        outcome = run(seed)
        calls += outcome.calls
        events += outcome.events
        if outcome.violation:
            replay(seed)
            print(f"\nseed {seed} of {options.first}.. fails; again: make simulate SEED={seed}")
            return 1
    spent = perf_counter() - started
    print(
        f"{options.seeds} schedules, {calls} calls, {events} events in {spent:.1f} s: "
        f"{options.seeds / spent:.0f} schedules/s, no invariant broken"
    )
    return 0


def replay(seed: int) -> int:
    outcome = run(seed, tracing=True)
    print("\n".join(outcome.lines or ()))
    print(
        f"\nseed {seed}: {outcome.calls} calls, {outcome.answered} answered, {outcome.virtual:.1f} virtual seconds\n"
        f"{outcome.violation or 'no invariant broken'}"
    )
    return 1 if outcome.violation else 0


if __name__ == "__main__":
    sys.exit(main())
