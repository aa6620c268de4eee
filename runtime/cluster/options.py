"""`ClusterOptions`: which cluster a node belongs to, and how it takes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ...stores.nats.settings import NatsSettings
from ..errors import ConfigurationError
from ..link.channel import MAX_REQUEST_BODY
from ..link.versions import OLDEST, SEALED, VERSION, Versions, checked_versions

__all__ = ["ClusterOptions"]

SHORTEST_LEASE = 0.5
LONGEST_LEASE = 300.0
SHORTEST_ROTATION = 3600.0


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Given to `Runtime(cluster=...)`.

    Raises:
        ConfigurationError: A value is out of range.
        NatsSettingsError: `nats` is a URL that cannot be understood.
    """

    name: str
    """Nodes of one name on one NATS are one cluster; those of different names never meet."""
    nats: NatsSettings | str = field(default="nats://127.0.0.1:4222", repr=False)
    """Settings, or a URL: `nats://user:password@host:4222`, several servers separated by commas."""
    url: str = ""
    """Where this node is reached over HTTP, for people to read (`understudy nodes`)."""
    lease: float = 3.0
    """Seconds: how long a node that hangs keeps its sessions, and how long one that is cut off goes on."""
    link_versions: tuple[int, int] | None = None
    """The oldest and newest link version to speak; None: all that this version knows. Pins a node during an upgrade."""
    unsigned_contexts: Literal["refuse", "accept"] = "refuse"
    """What nodes from before link version 4 say is not sealed: whoever reaches NATS can say it in their name, with any
    tenant. "accept" is for the time of an upgrade from them."""
    request_state_keys: Sequence[bytes] = field(default=(), repr=False)
    """Keys of at least 32 bytes that open `requestState` and what nodes tell each other, of which the first seals;
    none: the first node makes one for the cluster and keeps it in NATS, and it is changed every `key_rotation`."""
    key_rotation: float | None = 30 * 86_400.0
    """Seconds after which the cluster's own key is changed by itself; None: only by `understudy rotate-keys`."""
    handoff_rate: float = 1000.0
    """Sessions a second that a draining node moves."""
    replicas: int = 1
    """Copies that a NATS cluster keeps of the directory and the leases."""

    def __post_init__(self) -> None:
        if not SHORTEST_LEASE <= self.lease <= LONGEST_LEASE:
            raise ConfigurationError(
                f"lease is {self.lease!r} s; it must be {SHORTEST_LEASE:g} to {LONGEST_LEASE:g} seconds"
            )
        if self.unsigned_contexts not in ("refuse", "accept"):
            raise ConfigurationError(
                f'unsigned_contexts is {self.unsigned_contexts!r}; it must be "refuse" or "accept"'
            )
        if self.link_versions is not None:
            checked_versions(self.link_versions)
        if self.versions[0] > self.versions[1]:
            raise ConfigurationError(
                f"link_versions {self.link_versions!r} are from before version {SEALED}, which is the first that is "
                'sealed: they need unsigned_contexts="accept" (--unsigned-contexts accept), for the time of an upgrade'
            )
        if self.key_rotation is not None and not self.key_rotation >= SHORTEST_ROTATION:
            raise ConfigurationError(
                f"key_rotation is {self.key_rotation!r} s; it must be at least {SHORTEST_ROTATION:g} seconds, or None"
            )
        if not self.handoff_rate > 0:
            raise ConfigurationError(f"handoff_rate is {self.handoff_rate!r}; it must be greater than 0")

    @property
    def versions(self) -> Versions:
        """The oldest and the newest link version that this node speaks."""
        oldest, newest = self.link_versions or (OLDEST, VERSION)
        return (oldest if self.unsigned_contexts == "accept" else max(oldest, SEALED), newest)

    @property
    def max_body(self) -> int:
        """Bytes of a request body that can cross between nodes."""
        return MAX_REQUEST_BODY

    @property
    def settings(self) -> NatsSettings:
        return NatsSettings.from_url(self.nats) if isinstance(self.nats, str) else self.nats
