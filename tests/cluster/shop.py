"""The demo server's tools and those of the clients' tests in one."""

from clients.server import server as extras
from understudy.runtime.demo import server

for tool in extras._tool_manager.list_tools():
    server._tool_manager._tools.setdefault(tool.name, tool)

__all__ = ["server"]
