"""What a node says of itself: log lines, traces, metrics, and what is counted by tenant."""
