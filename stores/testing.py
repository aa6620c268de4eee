"""For authors of stores: the contract of `SessionStore` as tests that any pytest with pytest-asyncio can run.

    from understudy.stores.testing import StoreContract, store_machine

    class TestMyStore(StoreContract):
        async def open_store(self, clock):
            return await MyStore.open(..., clock=clock)

    TestMyStoreAgainstTheModel = store_machine(lambda clock: MyStore.open(..., clock=clock))

Imports pytest; `store_machine` also needs Hypothesis. Nothing outside of tests may import this module.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"{__package__}.contract_{part}" for part in ("listing", "outages", "records", "writers"))
)

from .contract_case import ContractCase, ManualTime  # noqa: E402 - the marks above come before the modules
from .contract_listing import ListingContract  # noqa: E402
from .contract_machine import OpenStore, store_machine  # noqa: E402
from .contract_outages import OutagesContract  # noqa: E402
from .contract_records import RecordsContract  # noqa: E402
from .contract_writers import WritersContract  # noqa: E402

__all__ = ["ContractCase", "ManualTime", "OpenStore", "StoreContract", "store_machine"]


class StoreContract(RecordsContract, WritersContract, ListingContract, OutagesContract):
    """Every sentence of the contract in `SessionStore`. Subclass it and override `open_store`; see `ContractCase`."""
