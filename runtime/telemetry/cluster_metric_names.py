"""What each number of a cluster's `stats()` means, and which of them only grow."""

from __future__ import annotations

from typing import Final

__all__ = ["CLUSTER_GAUGES", "CLUSTER_HISTOGRAMS", "CLUSTER_TOTALS"]

CLUSTER_GAUGES: Final = {
    "cluster_peers": "Other nodes that hold a lease.",
    "cluster_connected": "1 while this node is connected to NATS.",
    "cluster_lease_seconds_left": "How long this node may start turns for if its lease is not renewed, in seconds.",
    "cluster_keys": "Keys with which requestState, and what other nodes say, is opened.",
    "cluster_held": "Sessions that the directory gives to this node.",
    "cluster_hints": "Sessions of other nodes whose owner this node remembers.",
    "cluster_resting": "Sessions that sleep and are about to be let go of.",
    "cluster_releasing": "Sessions whose letting go is being written to the directory.",
    "cluster_moving": "Sessions on their way to another node.",
    "link_paths": "Nodes that this one exchanges calls with.",
    "link_forwarding": "Calls sent to other nodes that are not answered yet.",
    "link_serving": "Calls of other nodes that run here.",
    "link_assembling_bytes": "Bytes of forwarded request bodies that have not arrived whole.",
    "link_backlog_bytes": "Bytes that wait to be sent to other nodes.",
    "link_unacknowledged_bytes": "Bytes sent to other nodes that they have not acknowledged yet.",
}
"""What is so now."""

CLUSTER_TOTALS: Final = {
    "cluster_lapses": "Times that this node's lease ran out and it let go of everything.",
    "cluster_lease_losses": "Leases lost after this node had joined.",
    "cluster_lease_renewals": "Renewals of the lease that NATS has acknowledged.",
    "cluster_lease_renewals_failed": "Renewals that it has not.",
    "cluster_forwards": "Requests sent to another node.",
    "cluster_forwards_served": "Requests of other nodes' clients handled here.",
    "cluster_hops_corrected": "Forwards to a node that was not the owner any more.",
    "cluster_paths_broken": "Forwards whose node answered no more.",
    "cluster_placed": "Sessions that another node opened because this one had no room.",
    "cluster_claims_won": "Sessions that this node took from the directory to wake them.",
    "cluster_claims_lost": "Times that another node was quicker to take one.",
    "cluster_handed_off": "Sessions moved to another node as planned.",
    "cluster_failovers": "Requests that went on at another node after theirs had died.",
    "cluster_streams_reattached": "Clients' streams that were taken up again at their new owner without their notice.",
    "cluster_directory_look_ups": "Reads of the directory.",
    "cluster_directory_writes": "Writes to the directory.",
    "cluster_directory_writes_failed": "Writes to the directory that were given up; each may cost a hop.",
    "cluster_bus_published": "Changes told to the listeners at other nodes.",
    "cluster_bus_heard": "Changes heard from other nodes.",
    "cluster_bus_failed": "Changes that could not be told to other nodes; their listeners are told to read again.",
    "cluster_bus_gaps": "Times that changes at other nodes may have been missed.",
    "cluster_bus_rereads": "Times that all listeners here were told to read again because of that.",
    "cluster_orders_refused": "Questions of operators that were not sealed as they must be.",
    "cluster_key_rotations": "Times that this node put a new key of requestState into use.",
    "link_forwarded": "Calls handed to the link.",
    "link_served": "Calls of other nodes that were run.",
    "link_not_run": "Forwarded calls that the other node refused.",
    "link_refused": "Calls of other nodes that were refused here.",
    "link_failed": "Forwarded calls that the other node gave up on.",
    "link_given_up": "Calls of other nodes that ended here without a complete answer.",
    "link_gone": "Forwarded calls whose node was gone.",
    "link_cancelled": "Calls of other nodes whose client left before the answer was complete.",
    "link_batches_out": "NATS messages sent to other nodes.",
    "link_batches_in": "NATS messages from other nodes.",
    "link_bytes_out": "Bytes sent to other nodes.",
    "link_bytes_in": "Bytes from other nodes.",
    "link_unsent": "Messages that NATS did not take; they were sent again.",
    "link_corrupt": "Messages dropped because they were damaged.",
    "link_foreign": "Messages dropped because they were not of a version that is spoken here.",
    "link_forged": "Messages dropped because their seal was not their sender's, or of a key that is not known here.",
    "link_unsealed_refused": "Messages dropped because they were not sealed.",
    "link_unsealed_taken": "Messages that were not sealed and were taken, as --unsigned-contexts accept allows.",
    "link_stale": "Messages dropped because they belonged to an earlier life of the path.",
    "link_late": "Frames of calls that had ended.",
    "link_no_responders": "Times that NATS said that nobody listens for a node.",
    "link_pings": "Times that a silent node was asked whether it lives.",
    "link_paths_lost": "Paths to nodes that ended.",
    "link_retransmitted": "Messages sent again.",
    "link_duplicates": "Messages that came twice.",
    "link_reordered": "Messages that came out of order.",
    "link_overflowed": "Messages dropped because too many before them were missing.",
}
"""What only grows."""

CLUSTER_HISTOGRAMS: Final = {
    "failover_seconds": "How long a request took that found its node dead and went on at another."
}
