"""For authors of stores: the contract of `SessionStore` as tests that any pytest with pytest-asyncio can run.

    from understudy.stores.testing import EventLogContract, StoreContract, store_machine

    class TestMyStore(StoreContract):
        async def open_store(self, clock):
            return await MyStore.open(..., clock=clock)

    class TestMyEventLog(EventLogContract):  # of a store that brings one as `events`
        async def open_store(self, clock):
            return await MyStore.open(..., clock=clock, event_bounds=self.bounds)

    TestMyStoreAgainstTheModel = store_machine(lambda clock: MyStore.open(..., clock=clock))

Imports pytest; `store_machine` also needs Hypothesis. Nothing outside of tests may import this module.
"""

from __future__ import annotations

import pytest

PARTS = ("event_bounds", "event_case", "events", "listing", "outages", "records", "writers")
pytest.register_assert_rewrite(*(f"{__package__}.contract.{part}" for part in PARTS))

from .contract.case import ContractCase, ManualTime  # noqa: E402 - the marks above come before the modules
from .contract.event_bounds import EventBoundsContract  # noqa: E402
from .contract.events import AppendsContract  # noqa: E402
from .contract.listing import ListingContract  # noqa: E402
from .contract.machine import OpenStore, store_machine  # noqa: E402
from .contract.outages import OutagesContract  # noqa: E402
from .contract.records import RecordsContract  # noqa: E402
from .contract.writers import WritersContract  # noqa: E402

__all__ = ["ContractCase", "EventLogContract", "ManualTime", "OpenStore", "StoreContract", "store_machine"]


class StoreContract(RecordsContract, WritersContract, ListingContract, OutagesContract):
    """Every sentence of the contract in `SessionStore`. Subclass it and override `open_store`; see `ContractCase`."""


class EventLogContract(AppendsContract, EventBoundsContract):
    """Every sentence of the contract in `EventLog`. Subclass it and override `open_store`; see `EventLogCase`."""
