"""`open_bucket`: find the store's bucket, or make it, and refuse one that is not fit."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ..errors import StoreCorrupt, StoreURLError, StoreVersionError
from .bucket import Bucket
from .client import NatsClient
from .connection import jetstream
from .errors import NatsUnavailable
from .settings import NatsSettings, split_nats_url

__all__ = [
    "FORMAT",
    "SYNCED",
    "BucketOptions",
    "bucket_of",
    "check_bucket",
    "configuration",
    "find_bucket",
    "open_bucket",
]

logger = logging.getLogger(__name__)

FORMAT = 1
SYNCED: Final = "-synced"
"""How a nats-server's name ends that syncs each write, if understudy has started it. No client can ask others."""

_MARK = "understudy.format"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STREAM_NOT_FOUND = {10059}
_API_LEVEL = 1
_MUST = {
    "max_msgs_per_subject": 1,
    "discard": "new",
    "allow_direct": True,
    "allow_msg_ttl": True,
    "deny_delete": False,
    "deny_purge": False,
    "max_age": 0,
    "max_msgs": -1,
}
"""What the store's promises need; with `discard` old, for one, a full bucket would forget the oldest sessions."""


_LEAST_PAYLOAD = 64 * 1024


class BucketOptions:
    """What `open_bucket` makes, and compares with what is there: None is the server's choice, or whatever is there.

    Raises:
        StoreURLError: Out of range.
    """

    def __init__(
        self,
        name: str = "understudy",
        *,
        replicas: int | None = None,
        storage: str | None = None,
        max_bytes: int | None = None,
    ) -> None:
        if _NAME.fullmatch(name) is None:
            raise StoreURLError(f"bucket {name[:128]!r} must be 1 to 64 letters, digits, - or _")
        if replicas is not None and not 1 <= replicas <= 5:
            raise StoreURLError(f"replicas={replicas} must be 1 to 5; 3 survive the loss of one server")
        if storage not in (None, "file", "memory"):
            raise StoreURLError(f"storage={storage[:64]!r} must be file or memory")
        if max_bytes is not None and max_bytes < 1:
            raise StoreURLError(f"max_bytes={max_bytes} must be at least 1")
        self.name = name
        self.replicas = replicas
        self.storage = storage
        self.max_bytes = max_bytes


def bucket_of(url: str) -> tuple[NatsSettings, BucketOptions]:
    """What a `nats://` or `tls://` URL says.

    Raises:
        StoreURLError: It cannot be understood.
    """
    settings, path, options = split_nats_url(url)
    numbers: dict[str, int] = {}
    for option in ("replicas", "max_bytes"):
        if option in options:
            text = options.pop(option)
            if not text.isdigit() or len(text) > 18:
                raise StoreURLError(f"{option}={text[:64]!r} in a nats:// URL must be a whole number")
            numbers[option] = int(text)
    storage = options.pop("storage", None)
    if options:
        raise StoreURLError(
            f"unknown option {min(options)[:64]!r} in a nats:// URL; it takes replicas, storage, max_bytes, user, "
            "password, token, nkey, creds, ca, cert and key"
        )
    return settings, BucketOptions(path or "understudy", storage=storage, **numbers)


async def find_bucket(
    client: NatsClient, options: BucketOptions, *, timeout: float
) -> tuple[Bucket, dict[str, Any] | None]:
    """The bucket, and what NATS says of its stream; None if it is not there. Nothing is made, and nothing of it judged.

    Raises:
        NatsUnavailable: As `open_bucket`.
    """
    await jetstream(client, timeout=timeout)
    if int(client.server_info.get("api_lvl") or 0) < _API_LEVEL:
        version = client.server_info.get("version", "unknown")
        raise NatsUnavailable(f"the NATS server has version {version}; the store needs 2.11 or later: upgrade it")
    if client.max_payload < _LEAST_PAYLOAD:
        raise NatsUnavailable(f"max_payload of NATS is {client.max_payload}; set it to 64KB at least, or 1MB")
    bucket = Bucket(client, options.name, timeout)
    return bucket, await bucket.api("STREAM.INFO", {}, _doing(options), _STREAM_NOT_FOUND)


async def open_bucket(client: NatsClient, options: BucketOptions, *, timeout: float) -> Bucket:
    """The bucket, made if it is not there.

    Raises:
        NatsUnavailable: NATS does not answer, has no JetStream, or no room; or is older than 2.11.
        StoreVersionError: The bucket is of a newer understudy.
        StoreCorrupt: It is something else's, or was changed so that the store could not keep its promises.
        StoreURLError: It has other replicas or another storage than `options` say.
    """
    bucket, answer = await find_bucket(client, options, timeout=timeout)
    if answer is None:
        # Several nodes may do this at once: all but one are told that it is there, with the same configuration.
        answer = await bucket.api("STREAM.CREATE", configuration(options), _doing(options), writing=True)
    assert answer is not None
    config: Mapping[str, Any] = answer["config"]
    check_bucket(config, options)
    if config["storage"] == "memory":
        logger.warning(
            "the bucket %r is in the memory of NATS: sessions are lost with its server; storage=file keeps them",
            options.name,
        )
    elif int(config.get("num_replicas") or 1) == 1 and not client.server_info.get("server_name", "").endswith(SYNCED):
        logger.info(
            "the bucket %r has one replica: a loss of power loses what nats-server has acknowledged and not synced, by "
            "default of two minutes; with sync_interval: always, which no client can see, it loses nothing",
            options.name,
        )
    return replace(
        bucket,
        replicas=int(config.get("num_replicas") or 1),
        storage=str(config["storage"]),
        made=str(answer.get("created", "")),
    )


def _doing(options: BucketOptions) -> str:
    return f"opening the bucket {options.name!r} in NATS"


def configuration(options: BucketOptions) -> dict[str, Any]:
    """What a new bucket is made with."""
    return _MUST | {
        "name": f"KV_{options.name}",
        "description": "sessions of understudy",
        "subjects": [f"$KV.{options.name}.>"],
        "retention": "limits",
        "allow_rollup_hdrs": True,
        "storage": options.storage or "file",
        "num_replicas": options.replicas or 1,
        "max_bytes": options.max_bytes or -1,
        "metadata": {_MARK: str(FORMAT)},
    }


def check_bucket(config: Mapping[str, Any], options: BucketOptions) -> int:
    """The format of a bucket, from its configuration.

    Raises:
        StoreVersionError, StoreCorrupt, StoreURLError: As `open_bucket`.
    """
    name = options.name
    metadata: Mapping[str, str] = config.get("metadata") or {}
    mark = metadata.get(_MARK, "")
    if not mark.isdigit():
        raise StoreCorrupt(f"the bucket {name!r} in NATS is not understudy's; it is left as it is: name another")
    if int(mark) > FORMAT:
        raise StoreVersionError(f"the bucket {name!r} in NATS has format {mark}; this understudy reads {FORMAT}")
    for key, value in _MUST.items():
        if config.get(key, type(value)()) != value:
            raise StoreCorrupt(
                f"the bucket {name!r} in NATS was changed: {key} is {config.get(key)!r} and must be {value!r}; "
                f"put it back with `nats stream edit KV_{name}`, or name another bucket"
            )
    for option, key in (("replicas", "num_replicas"), ("storage", "storage"), ("max_bytes", "max_bytes")):
        asked = getattr(options, option)
        if asked is not None and config.get(key) != asked:
            raise StoreURLError(
                f"the bucket {name!r} in NATS has {option}={config.get(key)}, not {asked}: correct the URL, or change "
                f"the bucket with `nats stream edit KV_{name}`"
            )
    return int(mark)
