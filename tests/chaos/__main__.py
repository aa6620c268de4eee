"""The scenes at full size: `python -m chaos [--small] [--runs N] [--seed N] [--store NAME] [SCENE ...]`.

`python -m chaos switching --from redis --to postgresql [NAME ...]`: 100,000 sessions go from store to store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from chaos.scale import FULL, SMALL
from chaos.scenes import SCENES
from chaos.store_servers import STORES, store_missing


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Break a cluster in every way, under load.")
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=f"of {', '.join(SCENES)}; all by default")
    parser.add_argument("--small", action="store_true", help="as small as the tests have them")
    parser.add_argument("--runs", type=int, help="how many seeded runs `streams` and `standing` have")
    parser.add_argument("--seed", type=int, help="the first of their seeds")
    parser.add_argument(
        "--store", choices=STORES, default="nats", help="where sessions are kept; the cluster's own NATS"
    )
    parser.add_argument("--from", dest="source", choices=STORES, help="the store that `switching` begins with")
    parser.add_argument(
        "--to", nargs="+", choices=STORES, default=[], help="those that it goes on to, one after the other"
    )
    parser.add_argument("--sessions", type=int, default=100_000, help="how many go that way; 100,000 by default")
    given = parser.parse_args()
    scale = SMALL if given.small else FULL
    if (given.source is None) != (not given.to):
        parser.error("--from and --to belong together")
    route = (given.source, *given.to) if given.to else ()
    for store in (given.store, *route):
        if (missing := store_missing(store)) is not None:
            parser.error(missing)
    if any(store == next for store, next in pairwise(route)):
        parser.error("a store cannot be moved to itself")
    scale = replace(
        scale,
        store=given.store,
        stream_runs=given.runs or scale.stream_runs,
        stream_seed=given.seed or scale.stream_seed,
        route=route,
        crowd=given.sessions,
    )
    unknown = sorted(set(given.scenes) - set(SCENES))
    if unknown:
        parser.error(f"no scene is called {', '.join(unknown)}; there are {', '.join(SCENES)}")
    # As Ctrl-C: everything that was started is stopped. A shell has what runs in its background ignore that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    well = True
    for name in given.scenes or SCENES:
        print(f"==> {name}: {SCENES[name].__doc__}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="understudy-chaos-") as directory:
            verdict = asyncio.run(SCENES[name](Path(directory), scale))
        for what, number in verdict.numbers.items():
            print(f"    {what}: {json.dumps(number)}")
        for fault in verdict.faults[:20]:
            print(f"    FAULT: {fault}")
        print(f"    {'well' if not verdict.faults else f'{len(verdict.faults)} FAULTS'}, "
              f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
        well &= not verdict.faults
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
