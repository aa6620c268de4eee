-- The tables of version 1, and one record and one stream.
CREATE SCHEMA understudy;
CREATE TABLE understudy.meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version int NOT NULL,
    identity text NOT NULL,
    pinged float8 NOT NULL DEFAULT 0
);
CREATE TABLE understudy.records (
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    epoch int8 NOT NULL,
    version int8 NOT NULL,
    owner text COLLATE "C" NOT NULL,
    created float8 NOT NULL,
    updated float8 NOT NULL,
    expires float8 NOT NULL,
    sweep float8 NOT NULL,
    snapshot bytea NOT NULL,
    PRIMARY KEY (kind, id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX records_by_tenant ON understudy.records (left(tenant, 200), kind, id);
CREATE INDEX records_by_sweep ON understudy.records (sweep);
CREATE TABLE understudy.streams (
    number int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    stream text COLLATE "C" NOT NULL,
    head bytea NOT NULL,
    last int8 NOT NULL,
    oldest int8 NOT NULL,
    writer text COLLATE "C" NOT NULL,
    ended boolean NOT NULL,
    appended float8 NOT NULL,
    sweep float8 NOT NULL,
    bytes int8 NOT NULL,
    UNIQUE (kind, id, stream)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX streams_by_sweep ON understudy.streams (sweep);
CREATE TABLE understudy.events (
    stream int8 NOT NULL,
    number int8 NOT NULL,
    event bytea NOT NULL,
    PRIMARY KEY (stream, number)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE understudy.events ALTER COLUMN event SET STORAGE EXTERNAL;
INSERT INTO understudy.meta (version, identity) VALUES (1, '00112233445566778899aabbccddeeff');
INSERT INTO understudy.records
    (kind, id, tenant, epoch, version, owner, created, updated, expires, sweep, snapshot)
VALUES ('session', 'golden', 'acme', 3, 7, 'node-2', 1800000000.25, 1800000100.5, 1800003700.5, 1800003600.25,
    '\x00736e617073686f74ff');
INSERT INTO understudy.streams (kind, id, stream, head, last, oldest, writer, ended, appended, sweep, bytes)
VALUES ('session', 'golden', 'call-1', 'head', 3, 2, 'w/1', true, 1800000100.5, 1800000000.25, 8);
INSERT INTO understudy.events (stream, number, event) SELECT number, 2, 'two' FROM understudy.streams;
INSERT INTO understudy.events (stream, number, event) SELECT number, 3, 'three' FROM understudy.streams;
