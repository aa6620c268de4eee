"""What `PostgresEventLog` says to PostgreSQL. Times are seconds since the Unix epoch by the caller's clock.

A stream that is dropped, or too old, is first marked by an `appended` in the far past, which waits for appends under
way and lets no more in, and then removed by a second statement, which sees the events of them all.

`sweep` is at most `appended`, and what the index for sweeping is on; see `statements.py`.
"""

from __future__ import annotations

from ..event_log import STREAM_OVERHEAD

__all__ = ["EventStatements"]

_KEY = "s.kind = $1 AND s.id = $2 AND s.stream = $3"


class EventStatements:
    """The statements for the tables in one schema, whose name is quoted already."""

    def __init__(self, schema: str) -> None:
        streams, events = f"{schema}.streams", f"{schema}.events"
        # one-writer: whether the append follows is compared in the statement that writes it. For one that does not,
        # what is there is shown, as it was when the statement began.
        self.append = f"""
            WITH asked AS (
                SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::int8[], $6::int8[],
                    $7::text[], $8::bool[], $9::float8[], $10::int8[]) WITH ORDINALITY
                    AS a(kind, id, stream, head, first, count, writer, ends, now, bytes, place)
            ), put AS (
                INSERT INTO {streams} AS s
                    (kind, id, stream, head, last, oldest, writer, ended, appended, sweep, bytes)
                SELECT kind, id, stream, head, first + count - 1, first, writer, ends, now, now, bytes
                FROM asked ORDER BY place
                ON CONFLICT (kind, id, stream) DO UPDATE SET
                    last = excluded.last, writer = excluded.writer, ended = excluded.ended,
                    appended = greatest(s.appended, excluded.appended), bytes = s.bytes + excluded.bytes
                WHERE s.last = excluded.oldest - 1 AND NOT s.ended AND s.appended > excluded.appended - $11::float8
                RETURNING kind, id, stream, number, oldest, last, bytes
            ), added AS (
                INSERT INTO {events} (stream, number, event)
                SELECT put.number, e.number, e.event
                FROM unnest($12::int8[], $13::int8[], $14::bytea[]) AS e(place, number, event)
                JOIN asked USING (place) JOIN put USING (kind, id, stream)
            )
            SELECT place, put.number IS NOT NULL, coalesce(put.number, s.number), coalesce(put.oldest, s.oldest),
                coalesce(put.last, s.last), coalesce(put.bytes, s.bytes), s.writer, s.ended, s.appended
            FROM asked LEFT JOIN put USING (kind, id, stream)
            LEFT JOIN {streams} s ON s.kind = asked.kind AND s.id = asked.id AND s.stream = asked.stream
        """
        self.read = f"""
            SELECT s.head, s.last, s.oldest, s.writer, s.ended, s.bytes,
                ARRAY(SELECT event FROM {events} e WHERE e.stream = s.number AND e.number > $5 ORDER BY e.number),
                CASE WHEN s.bytes > $6 OR s.last - s.oldest >= $7
                    THEN ({self._oldest_to_keep(events, "s", "$6", "$7")}) END
            FROM {streams} s WHERE {_KEY} AND s.appended > $4
        """
        # Another that trims at the same time finds that `oldest` has moved, and removes nothing.
        self.trim = f"""
            WITH kept AS (
                SELECT s.number, s.oldest AS before, ({self._oldest_to_keep(events, "s", "$2", "$3")}) AS oldest
                FROM {streams} s WHERE s.number = $1
            ), moved AS (
                UPDATE {streams} s SET oldest = kept.oldest, bytes = s.bytes - (
                    SELECT coalesce(sum(length(event)), 0) FROM {events} e
                    WHERE e.stream = kept.number AND e.number < kept.oldest
                )
                FROM kept WHERE s.number = kept.number AND s.oldest = kept.before AND kept.oldest > s.oldest
                RETURNING s.number, s.oldest, s.oldest - kept.before AS count
            ), gone AS (
                DELETE FROM {events} e USING moved WHERE e.stream = moved.number AND e.number < moved.oldest
            )
            SELECT count FROM moved
        """
        dropped = "appended = '-infinity', sweep = '-infinity'"
        self.mark = f"""
            WITH found AS MATERIALIZED (
                SELECT s.number FROM unnest($1::text[], $2::text[], $3::text[]) AS a(kind, id, stream)
                CROSS JOIN LATERAL (
                    SELECT s.number FROM {streams} s WHERE s.kind = a.kind AND s.id = a.id AND s.stream = a.stream
                    FOR UPDATE
                ) s
            )
            UPDATE {streams} s SET {dropped} FROM found WHERE s.number = found.number RETURNING s.number
        """
        self.mark_all = f"""
            WITH found AS MATERIALIZED (
                SELECT number FROM {streams} WHERE kind = $1 AND id = $2 ORDER BY stream FOR UPDATE
            )
            UPDATE {streams} s SET {dropped} FROM found WHERE s.number = found.number RETURNING s.number
        """
        self.mark_one = f"""
            UPDATE {streams} SET {dropped} WHERE number = $1 AND appended <= $2 RETURNING number
        """
        self.mark_old = f"""
            WITH due AS MATERIALIZED (
                SELECT number, appended FROM {streams} WHERE sweep <= $1 ORDER BY sweep LIMIT $2
                FOR UPDATE SKIP LOCKED
            ), later AS (
                UPDATE {streams} s SET sweep = due.appended FROM due WHERE s.number = due.number AND due.appended > $1
            ), gone AS (
                UPDATE {streams} s SET {dropped} FROM due WHERE s.number = due.number AND due.appended <= $1
                RETURNING s.number
            )
            SELECT (SELECT count(*) FROM due), ARRAY(SELECT number FROM gone)
        """
        size = f"(bytes + length(head) + {STREAM_OVERHEAD})"
        self.mark_longest_ago = f"""
            WITH held AS (
                SELECT number, appended, sum({size}) OVER (ORDER BY appended DESC, number DESC) AS total
                FROM {streams} WHERE (SELECT sum({size}) FROM {streams}) > $1
            ), due AS MATERIALIZED (
                SELECT s.number FROM held JOIN {streams} s USING (number) WHERE held.total > $1
                ORDER BY held.appended, held.number LIMIT $2 FOR UPDATE OF s SKIP LOCKED
            )
            UPDATE {streams} s SET {dropped} FROM due WHERE s.number = due.number RETURNING s.number
        """
        self.remove = f"""
            WITH gone AS (
                DELETE FROM {streams} WHERE number = ANY($1::int8[]) AND appended = '-infinity' RETURNING number
            ), emptied AS (
                DELETE FROM {events} e USING gone WHERE e.stream = gone.number
            )
            SELECT count(*) FROM gone
        """

    @staticmethod
    def _oldest_to_keep(events: str, stream: str, max_bytes: str, max_events: str) -> str:
        """The oldest event that the bounds leave; the newest is kept whatever its size."""
        return f"""
            SELECT coalesce(min(number), {stream}.last + 1) FROM (
                SELECT number, sum(length(event)) OVER (ORDER BY number DESC) AS held
                FROM {events} e WHERE e.stream = {stream}.number
            ) e WHERE number = {stream}.last OR (held <= {max_bytes} AND number > {stream}.last - {max_events})
        """
