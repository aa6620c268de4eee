"""nats-server for tests: one for the whole run, and private ones."""

import secrets

from understudy.runtime.commands.nats_server import NatsServerMissing, find_nats_server


def nats_missing() -> str | None:
    """Why no test can have a nats-server here; None if it can."""
    try:
        find_nats_server()
    except NatsServerMissing as error:
        return str(error)
    try:
        import nats  # noqa: F401
    except ImportError:
        return "needs nats-py: pip install 'understudy[cluster]'"
    return None


def fresh_name(prefix: str = "test") -> str:
    """A name for a bucket or a cluster that no other test on the same server has."""
    return f"{prefix}-{secrets.token_hex(6)}"
