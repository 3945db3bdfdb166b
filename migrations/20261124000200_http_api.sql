-- migrate:up

-- How often streams are told, and the order in which imports ended, for streams that were away.
ALTER TABLE imports
    ADD COLUMN progress_every_ms integer,
    ADD COLUMN end_number        bigint;
CREATE SEQUENCE import_ends OWNED BY imports.end_number;
UPDATE imports AS i SET end_number = o.number
  FROM (SELECT id, nextval('import_ends') AS number
          FROM (SELECT id FROM imports WHERE status IN ('COMPLETED', 'FAILED', 'CANCELLED') ORDER BY completed_at, id)) AS o
 WHERE o.id = i.id;
CREATE UNIQUE INDEX imports_end_number_key ON imports (end_number);
COMMENT ON COLUMN imports.file_size IS 'Bytes of the file when the job was made: what per cent are of, so that they never go back.';
COMMENT ON COLUMN imports.progress_every_ms IS 'How often streams are told; NULL: IMPORT_PROGRESS_EVERY_MS.';
COMMENT ON COLUMN imports.end_number IS 'The order of ends: a stream that was away asks for all behind the last one it saw.';

-- What was asked of a running import and is not done yet. Not a column of imports: its row is locked while keys are built.
CREATE TABLE import_requests (
    import_id bigint PRIMARY KEY REFERENCES imports ON DELETE CASCADE,
    requested text   NOT NULL CHECK (requested IN ('PAUSED', 'CANCELLED'))
);

ALTER TABLE import_lanes ADD COLUMN committed_at timestamptz;
COMMENT ON COLUMN import_lanes.committed_at IS 'When the lane last moved: what a killed runner has of elapsed time.';

-- Finer ranges: a deep page walks over 8,192 ids at most. Only customers that are shown count.
DELETE FROM customer_totals;
INSERT INTO customer_totals (id_range, delta)
SELECT id >> 13, count(*) FROM customers WHERE deleted_at IS NULL GROUP BY id >> 13;
COMMENT ON TABLE customer_totals IS 'Customers that are not deleted, per range of 8,192 ids, as appended deltas.';

-- A create that is repeated with its key gives the first result again, for a day. Nothing of the request is kept but hashes.
CREATE TABLE idempotency_keys (
    key_hash   bytea PRIMARY KEY,
    body_hash  bytea NOT NULL,
    created_id bigint,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX idempotency_keys_created_idx ON idempotency_keys (created_at);

-- Admission to the stream for who cannot send a header: once, and for seconds. Any server process redeems any ticket.
CREATE TABLE stream_tickets (
    hash       bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL
);

-- migrate:down
DROP TABLE stream_tickets, idempotency_keys, import_requests;
ALTER TABLE import_lanes DROP COLUMN committed_at;
ALTER TABLE imports DROP COLUMN progress_every_ms, DROP COLUMN end_number;
COMMENT ON COLUMN imports.file_size IS NULL;
COMMENT ON TABLE customer_totals IS NULL;
DELETE FROM customer_totals;
INSERT INTO customer_totals (id_range, delta) SELECT id >> 16, count(*) FROM customers GROUP BY id >> 16;
