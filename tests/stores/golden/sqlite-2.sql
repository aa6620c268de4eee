-- Schema 2, and one record and one stream.
CREATE TABLE event_totals (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        bytes INTEGER NOT NULL
    ) STRICT
    ;
INSERT INTO "event_totals" VALUES(1,524);
CREATE TABLE events (
        stream INTEGER NOT NULL,
        number INTEGER NOT NULL,
        event BLOB NOT NULL,
        PRIMARY KEY (stream, number)
    ) STRICT
    ;
INSERT INTO "events" VALUES(1,2,X'74776F');
INSERT INTO "events" VALUES(1,3,X'7468726565');
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
    ) STRICT
    ;
INSERT INTO "records" VALUES(1,'session','golden','acme',3,7,'node-2',1800000000.25,1800000100.5,1800003700.5,X'00736E617073686F74FF');
CREATE TABLE streams (
        number INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        stream TEXT NOT NULL,
        head BLOB NOT NULL,
        last INTEGER NOT NULL,
        oldest INTEGER NOT NULL,
        writer TEXT NOT NULL,
        ended INTEGER NOT NULL,
        appended REAL NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT
    ;
INSERT INTO "streams" VALUES(1,'session','golden','call-1',X'68656164',3,2,'w/1',1,1800000100.5,8);
CREATE UNIQUE INDEX records_by_address ON records (kind, id);
CREATE INDEX records_by_tenant ON records (tenant);
CREATE INDEX records_by_expiry ON records (expires);
CREATE UNIQUE INDEX streams_by_address ON streams (kind, id, stream);
CREATE INDEX streams_by_age ON streams (appended);
PRAGMA application_id = 0x55535459;
PRAGMA user_version = 2;
