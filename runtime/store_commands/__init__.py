"""`understudy store`: a store set up, looked into, checked, and left."""

from __future__ import annotations

from .group import store

__all__ = ["store"]
