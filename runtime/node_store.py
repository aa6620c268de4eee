"""`open_node_store`: a node's store, put together from all that its options name."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

from ..stores import EncryptedStore, EventLog, SessionStore, event_log_of, open_store
from .options import RuntimeOptions

__all__ = ["choose_event_log", "open_node_store"]

logger = logging.getLogger(__name__)


async def open_node_store(options: RuntimeOptions, stack: AsyncExitStack) -> SessionStore:
    """Open the store, with the one that sessions move to or come from, and see that each of them answers.

    Whatever was opened is closed with `stack`, also where this fails or is cancelled.

    Raises:
        StoreError: One of them cannot be opened, or does not answer.
    """
    store = await _opened(options.store, options, stack)
    if options.next_store is not None:
        from ..stores.moving import FollowingStore

        store = FollowingStore(store, await _opened(options.next_store, options, stack))
        # Later the node does without it for a while; one that was never there is a mistake in an option.
        await store.next.ping()
    elif options.former_store is not None:
        from ..stores.moving import MovingStore

        store = MovingStore(await _opened(options.former_store, options, stack), store)
        await store.look()
    if options.encryption is not None:
        store = EncryptedStore(store, options.encryption, allow_plain=options.encryption_allows_plain)
    await store.ping()
    return store


async def _opened(source: SessionStore | str, options: RuntimeOptions, stack: AsyncExitStack) -> SessionStore:
    store = await open_store(source, event_bounds=options.event_bounds) if isinstance(source, str) else source
    stack.push_async_callback(store.aclose)
    return store


def choose_event_log(options: RuntimeOptions, store: SessionStore) -> EventLog | None:
    """Where streams are kept that outlive the node: the option's own log, or that of the node's `store`."""
    event_log = options.event_log
    if event_log == "store":
        log = event_log_of(store)
        if log is None and store.shared:
            logger.warning(
                "the store has no event log: a stream is resumed at the node that has it in memory, and not after "
                "the death of that node; give Runtime an event_log of another store, or event_log='off'"
            )
        return log
    return None if isinstance(event_log, str) else event_log
