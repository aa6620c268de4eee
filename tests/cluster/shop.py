"""The demo server's tools and those of the clients' tests in one."""

import sys
from pathlib import Path

# A server that is started from its file is given its folder alone.
sys.path.append(str(Path(__file__).parents[1]))

from clients.server import server as extras
from understudy.runtime.demo import server

for tool in extras._tool_manager.list_tools():
    server._tool_manager._tools.setdefault(tool.name, tool)

__all__ = ["server"]
