"""Streams that a client may resume: what is kept of them in memory and in the event log, and how they go on."""
