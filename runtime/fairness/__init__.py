"""What keeps the tenants of a node from each other's share of it."""

from .options import Fairness

__all__ = ["Fairness"]
