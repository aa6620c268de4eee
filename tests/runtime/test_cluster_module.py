"""`cluster_module`: that an extra is missing is told with what to install; any other fault as it is."""

from __future__ import annotations

import subprocess
import sys

import pytest
from understudy.runtime.cluster_module import cluster_module

WITHOUT_NATS = """
import sys

sys.modules["nats"] = None
from understudy.runtime import ClusterOptions, Runtime
from understudy.runtime.errors import ConfigurationError
from mcp.server.mcpserver import MCPServer

try:
    Runtime(MCPServer("shop"), cluster=ClusterOptions("shop"))
except ConfigurationError as error:
    print(error)
"""


def test_a_cluster_without_its_extra_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_NATS], capture_output=True, text=True, check=True)
    assert done.stdout == "a cluster needs nats-py: pip install 'understudy[cluster]'\n"


def test_a_module_that_is_missing_itself_is_no_fault_of_the_installation() -> None:
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        cluster_module("nowhere")
