-- Schema 1, as understudy wrote it before there were event logs, and one record.
CREATE TABLE records (
    number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    version INTEGER NOT NULL,
    owner TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    expires REAL NOT NULL,
    snapshot BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX records_by_address ON records (kind, id);
CREATE INDEX records_by_tenant ON records (tenant);
CREATE INDEX records_by_expiry ON records (expires);
PRAGMA application_id = 0x55535459;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
INSERT INTO records VALUES
    (1, 'session', 'golden', 'acme', 3, 7, 'node-2', 1800000000.25, 1800000100.5, 1800003700.5, x'00736E617073686F74FF');
