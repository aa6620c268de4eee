"""What HTTP and JSON-RPC are to every room of a node: bodies, headers, messages, refusals, routes."""
