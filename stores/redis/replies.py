"""`refusal`: the error of ours for an error that Redis answered with."""

from __future__ import annotations

import re

import redis.exceptions as redis_py

from ..errors import StoreCorrupt, StoreError
from .errors import RedisFull, RedisNotPrimary, RedisRefused, RedisUnavailable

__all__ = ["code_of", "refusal", "text_of"]

# Before Redis 7 an error within a script stands in the middle of another.
_CODE = re.compile(
    r"\b(ASK|BUSY|CLUSTERDOWN|CROSSSLOT|DENIED|LOADING|MASTERDOWN|MISCONF|MOVED|NOAUTH|NOPERM|NOREPLICAS|NOSCRIPT|OOM|"
    r"READONLY|TRYAGAIN|UNKILLABLE|WRONGPASS|WRONGTYPE)\b"
)

_UNAVAILABLE = {
    "BUSY": "is busy with somebody's script that does not end (SCRIPT KILL ends it)",
    "CLUSTERDOWN": "is a cluster that is down: some of its slots have no primary",
    "LOADING": "is still loading its data",
    "MASTERDOWN": "is a replica that has lost its primary",
    "NOREPLICAS": "has fewer good replicas than its min-replicas-to-write, and so takes no writes",
    "TRYAGAIN": "is moving these keys between nodes of the cluster",
    "UNKILLABLE": "is busy with somebody's script that does not end",
}
_FULL = {
    "MISCONF": "cannot write to its disk, and so takes no writes: free the disk, and see the log of Redis",
    "OOM": "has no memory left for what was to be written: raise its maxmemory, or shorten the lifetime of sessions",
}
_REFUSED = {
    "DENIED": "runs in protected mode, and takes connections of its own machine only: set a password there",
    "NOAUTH": "asks for a password: redis://:password@host, or redis://user:password@host",
    "NOPERM": "does not let this user do what the store needs: see 'Permissions' in stores/README.md",
    "WRONGPASS": "refused our user or password: correct them in the store's URL",
}


def text_of(error: redis_py.RedisError) -> str:
    """What Redis answered, of which redis-py has cut off the code; empty if it did not answer."""
    if error.status_code is not None:
        return f"{error.status_code} {error}"
    return str(error) if isinstance(error, redis_py.ResponseError) else ""


def code_of(text: str) -> str:
    """The code that tells one sort of error from another; empty if it is none that we know."""
    found = _CODE.search(text[:400])
    if found is None and "user executing the script can't" in text:
        return "NOPERM"
    return found[1] if found else ""


def refusal(text: str, where: str, *, writing: bool) -> StoreError:
    """For the error `text` of the server `where`. `writing`: something would have changed had it worked."""
    code = code_of(text)
    if code in _UNAVAILABLE:
        return RedisUnavailable(f"Redis at {where} {_UNAVAILABLE[code]}")
    if code in _FULL:
        return RedisFull(f"Redis at {where} {_FULL[code]}")
    if code in _REFUSED:
        said = f" ({text[:160]})" if code == "NOPERM" else ""
        return RedisRefused(f"Redis at {where} {_REFUSED[code]}{said}")
    if code == "READONLY":
        return RedisNotPrimary(f"Redis at {where} is a replica, and takes no writes: its primary is looked for")
    if code == "WRONGTYPE":
        return StoreCorrupt(
            f"a key of the store in Redis at {where} holds something else; it is left as it is: give the store a "
            "prefix of its own (?prefix=)"
        )
    if "DB index is out of range" in text:
        return RedisRefused(
            f"Redis at {where} has no database of the number that ends the store's URL: correct it, or raise "
            "`databases` in redis.conf"
        )
    if "max number of clients" in text:
        return RedisUnavailable(f"Redis at {where} has no room for another connection: raise its maxclients")
    if "called without any password" in text:
        return RedisRefused(f"Redis at {where} has no password, and the store's URL has one: take it out, or set one")
    if "unknown command" in text.lower():
        # The rest repeats what was sent.
        return RedisRefused(f"Redis at {where} does not know a command that the store needs: it takes 6.2 or later")
    if "killed by user" in text.lower():
        return RedisUnavailable(f"somebody killed our script in Redis at {where} before it had written")
    return RedisUnavailable(f"Redis at {where} says: {text[:160]}", outcome_unknown=writing)
