"""What the nodes of a benchmark host: `understudy serve understudy.bench.hosted:server`."""

from .servers import ten_tools

__all__ = ["server"]

server = ten_tools(sessions=True)
"""Shared by all sessions of a node, as most users have it."""
