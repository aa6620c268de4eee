"""How long tests wait for what must come."""

PATIENCE = 120.0
"""Seconds. Long, as a machine may be busy with something else; who waits looks often, so that it costs nothing."""
