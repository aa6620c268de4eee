"""What `PostgresStore` says to PostgreSQL: each operation in one statement, for one record and for many.

A statement for many never waits for a row that another transaction holds: it passes it over (SKIP LOCKED), and the call
is then sent alone. So many that share a round trip do not wait for the slowest, and cannot deadlock. Times are seconds
since the Unix epoch by the caller's clock.

`sweep` is at most `expires`, and what the index for sweeping is on. `expires` moves with every save, `sweep` almost
never, and an UPDATE that changes no index is cheaper by far (HOT).
"""

from __future__ import annotations

__all__ = ["RecordStatements"]

_KEY = "kind = $1 AND id = $2"
_COLUMNS = "tenant, epoch, version, owner, created, updated, expires"


class RecordStatements:
    """The statements for the tables in one schema, whose name is quoted already."""

    def __init__(self, schema: str) -> None:
        records = f"{schema}.records"
        self.create = f"""
            INSERT INTO {records} AS r
                (kind, id, tenant, epoch, version, owner, created, updated, expires, sweep, snapshot)
            SELECT i.kind, i.id, i.tenant, 1, 1, i.owner, i.now, i.now, i.expires, i.expires, i.snapshot
            FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::float8[], $7::bytea[])
                AS i(kind, id, tenant, owner, now, expires, snapshot)
            ON CONFLICT (kind, id) DO UPDATE SET
                tenant = excluded.tenant, epoch = 1, version = 1, owner = excluded.owner, created = excluded.created,
                updated = excluded.updated, expires = excluded.expires, sweep = excluded.sweep,
                snapshot = excluded.snapshot
            WHERE r.expires <= excluded.created
            RETURNING kind, id
        """
        self.adopt = f"""
            INSERT INTO {records} AS r
                (kind, id, tenant, epoch, version, owner, created, updated, expires, sweep, snapshot)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::float8, $9::float8, $10)
            ON CONFLICT (kind, id) DO UPDATE SET
                tenant = excluded.tenant, epoch = excluded.epoch, version = excluded.version, owner = excluded.owner,
                created = excluded.created, updated = excluded.updated, expires = excluded.expires,
                sweep = excluded.sweep, snapshot = excluded.snapshot
            WHERE r.expires <= $11 OR (r.epoch = $12 AND r.version = $13)
            RETURNING 1
        """
        # What may be written over stands in no column, so these go where nothing is that lives.
        self.adopt_many = f"""
            INSERT INTO {records} AS r
                (kind, id, tenant, epoch, version, owner, created, updated, expires, sweep, snapshot)
            SELECT i.kind, i.id, i.tenant, i.epoch, i.version, i.owner, i.created, i.updated, i.expires, i.expires,
                i.snapshot
            FROM unnest($1::text[], $2::text[], $3::text[], $4::int8[], $5::int8[], $6::text[], $7::float8[],
                $8::float8[], $9::float8[], $10::bytea[])
                AS i(kind, id, tenant, epoch, version, owner, created, updated, expires, snapshot)
            ON CONFLICT (kind, id) DO UPDATE SET
                tenant = excluded.tenant, epoch = excluded.epoch, version = excluded.version, owner = excluded.owner,
                created = excluded.created, updated = excluded.updated, expires = excluded.expires,
                sweep = excluded.sweep, snapshot = excluded.snapshot
            WHERE r.expires <= $11
            RETURNING kind, id
        """
        # one-writer: one statement both raises the epoch and returns the snapshot.
        self.claim = f"""
            UPDATE {records} SET epoch = epoch + 1, owner = $3 WHERE {_KEY} AND expires > $4
            RETURNING {_COLUMNS}, snapshot
        """
        self.claim_many = f"""
            WITH found AS MATERIALIZED (
                SELECT i.owner, r.kind, r.id
                FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[]) AS i(kind, id, owner, now)
                CROSS JOIN LATERAL (
                    SELECT r.kind, r.id FROM {records} r
                    WHERE r.kind = i.kind AND r.id = i.id AND r.expires > i.now FOR UPDATE SKIP LOCKED
                ) r
            )
            UPDATE {records} r SET epoch = r.epoch + 1, owner = found.owner
            FROM found WHERE r.kind = found.kind AND r.id = found.id
            RETURNING r.kind, r.id, r.tenant, r.epoch, r.version, r.owner, r.created, r.updated, r.expires, r.snapshot
        """
        self.load = f"SELECT {_COLUMNS}, snapshot FROM {records} WHERE {_KEY} AND expires > $3"
        self.load_many = f"""
            SELECT r.kind, r.id, r.tenant, r.epoch, r.version, r.owner, r.created, r.updated, r.expires, r.snapshot
            FROM unnest($1::text[], $2::text[], $3::float8[]) AS i(kind, id, now)
            JOIN {records} r ON r.kind = i.kind AND r.id = i.id AND r.expires > i.now
        """
        # one-writer: the epoch and the version are compared in the statement that writes. What it then reads is the
        # record as it was before, perhaps before another's write that came between: see `_judged` in `records.py`.
        self.save = f"""
            WITH written AS (
                UPDATE {records} SET
                    version = $4::int8, snapshot = $5, updated = $6, expires = $7, sweep = least(sweep, $7)
                WHERE {_KEY} AND epoch = $3 AND version = $4::int8 - 1 AND expires > $6 RETURNING 1
            )
            SELECT epoch, version, EXISTS (SELECT FROM written) FROM {records} WHERE {_KEY} AND expires > $6
        """
        self.save_many = f"""
            WITH asked AS (
                SELECT * FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::bytea[], $6::float8[],
                    $7::float8[]) AS i(kind, id, epoch, version, snapshot, now, expires)
            ), found AS MATERIALIZED (
                SELECT i.*, r.epoch AS stored_epoch, r.version AS stored_version FROM asked i
                CROSS JOIN LATERAL (
                    SELECT r.epoch, r.version FROM {records} r
                    WHERE r.kind = i.kind AND r.id = i.id AND r.expires > i.now FOR UPDATE SKIP LOCKED
                ) r
            ), written AS (
                UPDATE {records} r SET version = found.version, snapshot = found.snapshot, updated = found.now,
                    expires = found.expires, sweep = least(r.sweep, found.expires)
                FROM found WHERE r.kind = found.kind AND r.id = found.id
                    AND r.epoch = found.epoch AND r.version = found.version - 1
                RETURNING r.kind, r.id
            )
            SELECT kind, id, stored_epoch, stored_version, written.id IS NOT NULL
            FROM found LEFT JOIN written USING (kind, id)
        """
        self.touch = f"""
            WITH written AS (
                UPDATE {records} SET expires = $5, sweep = least(sweep, $5)
                WHERE {_KEY} AND epoch = $3 AND expires > $4 RETURNING 1
            )
            SELECT epoch, EXISTS (SELECT FROM written) FROM {records} WHERE {_KEY} AND expires > $4
        """
        self.touch_many = f"""
            WITH found AS MATERIALIZED (
                SELECT i.*, r.epoch AS stored_epoch
                FROM unnest($1::text[], $2::text[], $3::int8[], $4::float8[], $5::float8[])
                    AS i(kind, id, epoch, now, expires)
                CROSS JOIN LATERAL (
                    SELECT r.epoch FROM {records} r
                    WHERE r.kind = i.kind AND r.id = i.id AND r.expires > i.now FOR UPDATE SKIP LOCKED
                ) r
            ), written AS (
                UPDATE {records} r SET expires = found.expires, sweep = least(r.sweep, found.expires)
                FROM found WHERE r.kind = found.kind AND r.id = found.id AND r.epoch = found.epoch
                RETURNING r.kind, r.id
            )
            SELECT kind, id, stored_epoch, written.id IS NOT NULL FROM found LEFT JOIN written USING (kind, id)
        """
        self.delete = f"""
            WITH gone AS (
                DELETE FROM {records} WHERE {_KEY} AND ($3::int8 IS NULL OR epoch = $3) AND expires > $4 RETURNING 1
            )
            SELECT epoch, EXISTS (SELECT FROM gone) FROM {records} WHERE {_KEY} AND expires > $4
        """
        self.delete_many = f"""
            WITH found AS MATERIALIZED (
                SELECT i.*, r.epoch AS stored_epoch
                FROM unnest($1::text[], $2::text[], $3::int8[], $4::float8[]) AS i(kind, id, epoch, now)
                CROSS JOIN LATERAL (
                    SELECT r.epoch FROM {records} r
                    WHERE r.kind = i.kind AND r.id = i.id AND r.expires > i.now FOR UPDATE SKIP LOCKED
                ) r
            ), gone AS (
                DELETE FROM {records} r USING found
                WHERE r.kind = found.kind AND r.id = found.id AND (found.epoch IS NULL OR r.epoch = found.epoch)
                RETURNING r.kind, r.id
            )
            SELECT kind, id, stored_epoch, gone.id IS NOT NULL FROM found LEFT JOIN gone USING (kind, id)
        """
        self.page = f"""
            SELECT kind, id, {_COLUMNS} FROM {records}
            WHERE (kind, id) > ($1, $2) AND expires > $3 ORDER BY kind, id LIMIT $4
        """
        self.page_of_tenant = f"""
            SELECT kind, id, {_COLUMNS} FROM {records}
            WHERE left(tenant, 200) = left($5, 200) AND tenant = $5 AND (kind, id) > ($1, $2) AND expires > $3
            ORDER BY kind, id LIMIT $4
        """
        # What `sweep` points at goes if it has expired, and is pointed at its expiry if not.
        self.expire = f"""
            WITH due AS MATERIALIZED (
                SELECT kind, id, expires FROM {records} WHERE sweep <= $1
                ORDER BY sweep LIMIT $2 FOR UPDATE SKIP LOCKED
            ), later AS (
                UPDATE {records} r SET sweep = due.expires
                FROM due WHERE r.kind = due.kind AND r.id = due.id AND due.expires > $1
            ), gone AS (
                DELETE FROM {records} r USING due
                WHERE r.kind = due.kind AND r.id = due.id AND due.expires <= $1 RETURNING 1
            )
            SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM gone)
        """
        self.ping = f"UPDATE {schema}.meta SET pinged = $1 RETURNING version"
