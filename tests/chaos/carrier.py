"""Carries large messages from a process of its own, so that whoever measures beside it is not held up by them.

    python -m chaos.carrier '{"port": 8001, "era": "...", "sessions": [...], "rounds": 2, "result": N, "argument": N}'

Prints a line when it begins, and a JSON list of what was wrong at the end.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from chaos.load import Client, Fate, Spray
from chaos.server import digest, pattern

__all__ = ["carry", "large_ones"]


async def large_ones(spray: Spray, client: Client, node: str, *, result: int, argument: int) -> list[str]:
    """A large result and a large argument, by `node`; what is wrong with them."""
    faults: list[str] = []
    big = await spray.call(client, "big", node=node, size=result)
    if big.fate is not Fate.ACKNOWLEDGED or big.value != pattern(result):
        faults.append(f"a result of {result} bytes: {big.fate.value} {big.said[:200]}")
    text = pattern(argument)
    swallowed = await spray.call(client, "swallow", node=node, argument=text)
    if swallowed.value != {"length": argument, "digest": digest(text)}:
        faults.append(f"an argument of {argument} bytes: {swallowed.fate.value} {swallowed.said[:200]}")
    return faults


async def carry(clients: list[Client], port: int, *, rounds: int, result: int, argument: int) -> list[str]:
    """Large results and arguments for all sessions at once, `rounds` times; what is wrong with them."""
    spray = Spray({"edge": port})
    faults: list[str] = []

    async def one(client: Client) -> None:
        for _ in range(rounds):
            faults.extend(await large_ones(spray, client, "edge", result=result, argument=argument))

    try:
        async with asyncio.TaskGroup() as tasks:
            for client in clients:
                tasks.create_task(one(client))
    finally:
        spray.close()
    return faults


def main(given: dict[str, Any]) -> None:
    clients = [Client(given["era"], session) for session in given["sessions"]]
    pattern(given["result"])
    print("begins", flush=True)
    work = carry(clients, given["port"], rounds=given["rounds"], result=given["result"], argument=given["argument"])
    print(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
