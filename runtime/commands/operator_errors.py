"""What an operator's command may be told. Apart from `operator`, so that the command line starts without nats-py."""

from __future__ import annotations

from ...stores import UnderstudyError

__all__ = ["OperatorError"]


class OperatorError(UnderstudyError):
    """A node refuses what it was asked, or does not answer."""
