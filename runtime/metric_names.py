"""What each number of `Runtime.stats()` means, and which of them only grow."""

from __future__ import annotations

from .cluster.metric_names import CLUSTER_GAUGES, CLUSTER_HISTOGRAMS, CLUSTER_TOTALS

__all__ = ["GAUGES", "HISTOGRAMS", "TOTALS"]

GAUGES = {
    **CLUSTER_GAUGES,
    "draining": "1 while this node takes no new sessions because it is about to stop.",
    "sessions_live": "Sessions in memory.",
    "sessions_activating": "Sessions on their way into memory.",
    "sessions_leaving": "Sessions on their way out of memory.",
    "sessions_idle": "Sessions in memory that do nothing, and leave it when they have done so for long.",
    "sessions_waiting": "Calls that wait for their turn, over all sessions.",
    "sessions_refused_addresses": "Sessions that failed so often lately that calls to them are refused for a while.",
    "stateless_calls_running": "Calls without a session that run now.",
    "relay_sessions": "Handshake-era sessions whose standalone stream is here, and hears what tools publish.",
    "streams_sessions": "Sessions with at least one event stream kept for resumption.",
    "streams_kept": "Event streams that are open or can be resumed.",
    "streams_kept_bytes": "Bytes of events kept so that clients can resume.",
    "streams_log_behind": "Event streams of which messages have left, or may leave, that the event log lacks.",
    "streams_log_drops_waiting": "Streams, and sessions, that are to leave the event log.",
    "store_records": "Records in the memory store.",
    "store_snapshot_bytes": "Bytes of all snapshots in the memory store.",
    "store_write_largest_group": "Most writes that have shared one commit.",
    "store_write_queued": "Writes that wait for the store.",
    "store_read_largest_group": "Most reads that have shared one transaction.",
    "store_read_queued": "Reads that wait for the store.",
    "store_calls_running": "Calls to the NATS store that are under way.",
    "store_connected": "1 while the store is connected to NATS.",
}
"""What is so now, by its name in `stats()`."""

TOTALS = {
    **CLUSTER_TOTALS,
    "sessions_turns_started": "Calls that got their turn.",
    "sessions_turns_failed": "Turns that raised, were cancelled, or could not be saved.",
    "sessions_deadlines_exceeded": "Calls that took longer than they may.",
    "sessions_activations": "Sessions brought into memory, new ones included.",
    "sessions_rehydrated": "Sessions brought back from the store.",
    "sessions_activation_failures": "Sessions that could not be brought into memory.",
    "sessions_backoffs": "Calls refused because their session failed too often lately.",
    "sessions_passivated": "Sessions that left memory because they were idle or room was short.",
    "sessions_ended": "Sessions ended by their client or their server.",
    "sessions_lapsed": "Sessions dropped because this node's lease had run out.",
    "sessions_handed_off": "Sessions that moved to another node as planned.",
    "sessions_lost": "Sessions dropped because another node has claimed, or somebody has deleted, their record.",
    "sessions_in_doubt": "Sessions dropped because it was not known whether a save had taken effect.",
    "sessions_faults": "Sessions dropped after an error inside understudy.",
    "sessions_unborn": "Sessions whose opening failed or left nothing to save.",
    "sessions_saves": "Snapshots saved.",
    "sessions_save_repeats": "Saves repeated because their acknowledgement was lost.",
    "sessions_save_failures": "Snapshots that could not be saved.",
    "sessions_touches": "Times that a session's end of life was moved without a save.",
    "sessions_touch_failures": "Times that this failed.",
    "sessions_expired": "Expired records that this node swept out of the store.",
    "sessions_expire_failures": "Sweeps that failed.",
    "sessions_close_failures": "Live objects of sessions whose closing failed or took too long.",
    "relay_sent_total": "Published changes put on standalone streams.",
    "streams_resumed_total": "Event streams that a client has resumed.",
    "streams_replayed_total": "Those of them that came from the event log, because another node had written them.",
    "streams_followed_total": "Those of them that another node was still writing.",
    "streams_sealed_total": "Streams ended here with an error because the node that wrote them was gone.",
    "streams_adopted_total": "Standalone streams of earlier owners that this node went on with.",
    "streams_incomplete_total": "Standalone streams whose clients were told to read everything again.",
    "streams_log_appends_total": "Appends to the event log.",
    "streams_log_failed_total": "Appends that failed, or took too long; they are tried again.",
    "streams_log_taken_total": "Streams that turned out to be another node's when they were appended to.",
    "streams_log_given_up_total": "Streams that left the event log because it could not have them whole.",
    "streams_log_dropped_total": "Streams, and sessions, that left the event log because nobody wants them any more.",
    "streams_log_expired_total": "Streams that this node swept out of the event log by their age.",
    "store_write_operations": "Writes that the store has taken.",
    "store_write_commits": "Transactions that the writes took.",
    "store_write_failed": "Transactions of writes, or calls that write, that failed.",
    "store_write_busy_seconds": "Time spent in transactions of writes, in seconds.",
    "store_read_operations": "Reads that the store has taken.",
    "store_read_commits": "Transactions that the reads took.",
    "store_read_failed": "Transactions of reads, or calls that read, that failed.",
    "store_conflicts": "Writes that NATS refused because another had come first; tried again, or refused in turn.",
    "store_reconnects": "Times that the store's connection to NATS was made anew.",
    "store_read_busy_seconds": "Time spent in transactions of reads, in seconds.",
}
"""What only grows, by its name in `stats()`; exported with `_total` at its end."""

HISTOGRAMS = {
    **CLUSTER_HISTOGRAMS,
    "call_seconds": "How long calls took from the arrival of their body to the last byte of their answer.",
}
