"""What the server's settings do to acknowledged writes: said at the start, as nobody reads it afterwards."""

from __future__ import annotations

import logging

from .connection import Connection
from .settings import PostgresSettings

__all__ = ["durability_warnings"]

logger = logging.getLogger(__name__)

_WHAT_MAY_BE_LOST = {
    "synchronous_commit": {
        "off": "what was acknowledged in the last wal_writer_delay times three (0.6 s by default) is lost when the "
        "server crashes; set it on for the server, the database or the role",
        "local": "what was acknowledged may be missing on a standby that takes over, although "
        "synchronous_standby_names is set; set it on",
    },
    "fsync": {"off": "a crash of the machine may lose anything and damage the rest; set it on"},
    "full_page_writes": {"off": "a crash of the machine in the middle of a write may damage pages; set it on"},
}


async def durability_warnings(connection: Connection, settings: PostgresSettings) -> tuple[str, ...]:
    """What is set so that acknowledged writes may be lost, and logs it.

    Raises:
        Failed: As `Connection.fetch`.
    """
    [(commit, fsync, pages, standbys)] = await connection.fetch(
        "SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes'),"
        " current_setting('synchronous_standby_names')",
        writing=False,
    )
    found = {"synchronous_commit": commit, "fsync": fsync, "full_page_writes": pages}
    if commit == "local" and not standbys:
        del found["synchronous_commit"]
    warnings: list[str] = []
    for name, value in found.items():
        lost = _WHAT_MAY_BE_LOST[name].get(value)
        if lost is not None:
            warnings.append(f"PostgreSQL at {settings.where} has {name} = {value}: {lost}")
    for warning in warnings:
        logger.warning("%s", warning)
    return tuple(warnings)
