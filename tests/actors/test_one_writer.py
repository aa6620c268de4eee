"""one-writer and no-silent-loss, with two nodes that fight over the same actors on a store that fails.

A failing seed replays exactly: `pytest tests/actors/test_one_writer.py -k seed7`.
"""

import asyncio
from random import Random

import pytest
from support.counting import a_registry, envelope
from understudy.actors import ActorError, ActorUnavailable
from understudy.stores import Address, RecordExists
from understudy.stores.faulty import Faults, FaultyStore

CLIENTS = 6
MESSAGES = 20


class Ledger:
    """Keeps every token it is given, in order."""

    def __init__(self, tokens: str, saved: str | None) -> None:
        self.tokens = tokens
        self.saved_tokens = saved

    async def receive(self, token, access):
        self.tokens += token + " "
        for _ in range(len(token) % 3):
            await asyncio.sleep(0)
        if token.endswith("7"):
            raise ValueError("refused")
        return len(self.tokens.split())

    def snapshot(self):
        return None if self.tokens == self.saved_tokens else self.tokens.encode()

    def saved(self):
        self.saved_tokens = self.tokens

    def rollback(self):
        self.tokens = self.saved_tokens or ""

    async def close(self):
        pass


class LedgerKind:
    name, durable, ttl = "ledger", True, 1e9

    async def create(self, cell, seed):
        return Ledger("", None)

    async def rehydrate(self, cell, record):
        return Ledger(record.snapshot.decode(), record.snapshot.decode())


class Books:
    """What each token's client was told."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.refused: set[str] = set()
        self.unknown: set[str] = set()

    async def write(self, token, asking):
        try:
            await asking
        except ActorUnavailable as error:
            (self.unknown if error.outcome_unknown else self.refused).add(token)
        except (ActorError, ValueError, RecordExists):
            self.refused.add(token)
        else:
            self.acknowledged.add(token)


@pytest.mark.parametrize("seed", [pytest.param(seed, id=f"seed{seed}") for seed in range(20)])
async def test_every_acknowledged_change_is_there_once_and_no_refused_one_is(clock, store, seed):
    random = Random(seed)
    faulty = FaultyStore(
        store,
        seed=seed,
        faults=Faults(refuse=0.1, lose=0.15, hang=0.03, hang_after=0.03, delay=0.2, longest_delay=0.3),
        sleep=clock.sleep,
    )
    books = Books()
    addresses = [Address("ledger", f"book-{n}") for n in range(3)]
    registries = [a_registry(clock, faulty, LedgerKind(), owner=f"node-{n}", idle_after=5) for n in range(2)]
    async with registries[0] as one, registries[1] as two:

        async def client(name: int):
            for number in range(MESSAGES):
                registry, address, token = random.choice((one, two)), random.choice(addresses), f"{name}.{number}"
                timeout = random.choice((None, None, 3.0))
                await books.write(token, registry.ask(address, token, timeout=timeout))
                await clock.sleep(random.random())

        faulty.enabled = False
        for address in addresses:
            first, done = envelope(f"{address.id}.0")
            one.open(address, None, "acme", first)
            await done
        faulty.enabled = True
        async with asyncio.TaskGroup() as tasks:
            clients = [tasks.create_task(client(name)) for name in range(CLIENTS)]
            for _ in range(2000):
                if all(task.done() for task in clients):
                    break
                await clock.advance(0.5)
            assert all(task.done() for task in clients), "somebody was never answered"
        faulty.enabled = False
        faulty.release()
    tokens: list[str] = []
    for address in addresses:
        record = await store.load(address)
        assert record is not None
        tokens += record.snapshot.decode().split()
    assert len(tokens) == len(set(tokens)), "a change was made twice"
    assert books.acknowledged <= set(tokens), "an acknowledged change is lost"
    assert not books.refused & set(tokens), "a refused change was made"
    assert len(books.acknowledged) + len(books.refused) + len(books.unknown) == CLIENTS * MESSAGES
    assert len(books.acknowledged) > 20
