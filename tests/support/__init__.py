"""What several rooms' tests share. Most tests need only the fixtures of tests/conftest.py."""

from .balancer import Balancer
from .cluster import BalancedCluster
from .node import NODE_PACKAGES, Node, find_node
from .ports import free_port
from .server import ServerProcess, StartError

__all__ = [
    "NODE_PACKAGES",
    "BalancedCluster",
    "Balancer",
    "Node",
    "ServerProcess",
    "StartError",
    "find_node",
    "free_port",
]
