"""The audit trail: who opened, called, was refused and ended, as JSON lines or to a function."""
