"""`cluster_module`: what a node imports only where it is one of a cluster."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import ConfigurationError

__all__ = ["cluster_module"]


def cluster_module(name: str) -> Any:
    """A module that needs nats-py, which a node that is alone need not have.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return import_module(f".cluster.{name}", __package__)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("nats"):
            raise
        raise ConfigurationError("a cluster needs nats-py: pip install 'understudy[cluster]'") from error
