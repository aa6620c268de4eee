"""What a cluster's things are called in NATS. Two clusters of different names on one server never meet."""

from __future__ import annotations

import base64
import re
from typing import Final

from ...stores import Address
from ..errors import ConfigurationError

__all__ = ["Names", "directory_key"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}")
_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")


class Names:
    """The subjects and buckets of one cluster."""

    def __init__(self, cluster: str) -> None:
        """
        Raises:
            ConfigurationError: `cluster` cannot be part of a subject.
        """
        if _NAME.fullmatch(cluster) is None:
            raise ConfigurationError(
                f"cluster name {cluster[:80]!r} must be 1 to 48 letters, digits, - and _, and begin with no sign"
            )
        self.cluster = cluster
        self.prefix = f"understudy.{cluster}"
        self.nodes_bucket = f"understudy_{cluster}_nodes"
        self.directory_bucket = f"understudy_{cluster}_directory"
        self.settings_bucket = f"understudy_{cluster}_settings"
        self.counters_bucket = f"understudy_{cluster}_counters"
        self.leases = f"$KV.{self.nodes_bucket}.*"
        """Each renewal is published here: to hear of it takes no consumer."""
        self.settings = f"$KV.{self.settings_bucket}.>"
        """Each change of what all nodes agree on, likewise."""
        self.bus = f"{self.prefix}.bus"

    def control(self, node: str) -> str:
        """Where a node answers operators' questions."""
        return f"{self.prefix}.control.{node}"


def checked_node(node: str) -> str:
    """`node`, if it may be a node's id.

    Raises:
        ConfigurationError: It may not.
    """
    if _NODE.fullmatch(node) is None:
        raise ConfigurationError(
            f"node id {node[:80]!r} must be 1 to 64 letters, digits, - and _, and begin with no sign"
        )
    return node


def directory_key(address: Address) -> str:
    """The key of an address in the directory. Different for different addresses, whatever their ids are made of."""
    if _PLAIN.fullmatch(address.id):
        return f"{address.kind}.{address.id}"
    return f"{address.kind}.={base64.urlsafe_b64encode(address.id.encode()).decode().rstrip('=')}"
