"""`FileQuota`: how much room the files of each tenant take, and may."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from .errors import QuotaExceeded
from .jail import Jail

__all__ = ["FileQuota"]

KNOWN: Final = 4096
"""Tenants whose usage is remembered; of others it is counted anew."""
TRUSTED: Final = 30.0
"""Seconds that a count is relied on, as other nodes may write in the same folder."""
LEFT_BEHIND: Final = 3600.0
"""Seconds after which a file that was begun and never finished is removed."""


class FileQuota:
    """Counts a tenant's files by looking, at the first write and when the last look is 30 s old, and what is written
    here in between. So nodes that share a folder may together exceed a quota by what they write within that time.

    Called from any thread.
    """

    def __init__(
        self,
        max_bytes: int | None,
        max_files: int | None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._monotonic = monotonic
        self._clock = clock
        self._lock = threading.Lock()
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    @property
    def is_set(self) -> bool:
        return self._max_bytes is not None or self._max_files is not None

    def take(self, tenant: str, jail: Jail, size: int, files: int) -> None:
        """Note that `size` bytes more (or fewer) and `files` files more will be there.

        Raises:
            QuotaExceeded: That is more than the tenant may have; nothing is noted.
            FilesUnavailable: What is there cannot be counted.
        """
        if not self.is_set:
            return
        account = self._account(tenant)
        with account.lock:
            if self._monotonic() >= account.until:
                self._count(account, jail)
            if self._max_bytes is not None and size > 0 and account.size + size > self._max_bytes:
                raise QuotaExceeded(
                    f"{size} bytes more would exceed the quota of this tenant's files: {account.size} of "
                    f"{self._max_bytes} bytes are taken; delete some"
                )
            if self._max_files is not None and files > 0 and account.files + files > self._max_files:
                raise QuotaExceeded(
                    f"one file more would exceed the quota of this tenant: {account.files} of {self._max_files} files "
                    "and folders are there; delete some"
                )
            account.size = max(account.size + size, 0)
            account.files = max(account.files + files, 0)

    def give(self, tenant: str, size: int, files: int) -> None:
        """Note that so much is no longer there, or has not been written after all."""
        if not self.is_set:
            return
        account = self._account(tenant)
        with account.lock:
            account.size = max(account.size - size, 0)
            account.files = max(account.files - files, 0)

    def _account(self, tenant: str) -> _Account:
        with self._lock:
            account = self._accounts.get(tenant)
            if account is None:
                account = self._accounts[tenant] = _Account()
            self._accounts.move_to_end(tenant)
            if len(self._accounts) > KNOWN:
                self._accounts.popitem(last=False)
            return account

    def _count(self, account: _Account, jail: Jail) -> None:
        # Not further than where the answer is known.
        most = 10 * self._max_files + 1000 if self._max_files is not None else 10_000_000
        account.size, account.files = jail.usage(most=most, stale=self._clock() - LEFT_BEHIND)
        account.until = self._monotonic() + TRUSTED


class _Account:
    __slots__ = ("files", "lock", "size", "until")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.size = 0
        self.files = 0
        self.until = float("-inf")
