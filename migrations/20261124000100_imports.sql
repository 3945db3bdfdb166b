-- migrate:up

-- The seed of the identity hashes: two databases never share a collision.
CREATE TABLE database_seed (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    seed      bigint  NOT NULL
);
INSERT INTO database_seed (seed) VALUES (('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint);

CREATE TABLE sources (
    id   integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL UNIQUE
);

-- The job. Counters live in import_lanes, where they commit together with the rows they count.
CREATE TABLE imports (
    id               bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    source_id        integer NOT NULL REFERENCES sources,
    status           text    NOT NULL CHECK (status IN ('RUNNING', 'PAUSED', 'INTERRUPTED', 'COMPLETED', 'FAILED', 'CANCELLED')),
    phase            text    NOT NULL CHECK (phase IN ('verifying', 'scanning', 'indexing', 'merging', 'maintenance', 'done')),
    epoch            bigint  NOT NULL DEFAULT 0,
    file_path        text,
    file_size        bigint,
    file_device      bigint,
    file_inode       bigint,
    file_mtime_ns    bigint,
    delimiter        text    NOT NULL,
    headers          text[]  NOT NULL,
    mapping          jsonb   NOT NULL,
    data_start       bigint  NOT NULL,
    header_lines     integer NOT NULL,
    rules_version    integer NOT NULL,
    options          jsonb   NOT NULL,
    keys_deferred    boolean NOT NULL DEFAULT false,
    scanned_to       bigint,
    started_at       timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    claimed_at       timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at       timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    completed_at     timestamptz,
    elapsed_ms       bigint  NOT NULL DEFAULT 0,
    maintenance_ms   bigint  NOT NULL DEFAULT 0,
    last_row_hash    bigint,
    error            text
);
COMMENT ON COLUMN imports.epoch IS 'Raised by every claim: a runner that lost its claim finds no lane row of its epoch.';
COMMENT ON COLUMN imports.keys_deferred IS 'A first load: the indexes on customer_id and e-mail are built when the rows are in.';
COMMENT ON COLUMN imports.scanned_to IS 'Where the file ended when its last row was committed; NULL while it is read.';
-- One import at a time, whatever the lock says.
CREATE UNIQUE INDEX imports_one_running ON imports ((true)) WHERE status = 'RUNNING';

-- A lane: the identities of one range of the hash. done_to is the checkpoint, a byte offset in the file.
CREATE TABLE import_lanes (
    import_id      bigint  NOT NULL REFERENCES imports ON DELETE CASCADE,
    lane           integer NOT NULL,
    epoch          bigint  NOT NULL,
    done_to        bigint  NOT NULL,
    tail_hash      bigint,
    rows_processed bigint  NOT NULL DEFAULT 0,
    rows_inserted  bigint  NOT NULL DEFAULT 0,
    rows_updated   bigint  NOT NULL DEFAULT 0,
    rows_unchanged bigint  NOT NULL DEFAULT 0,
    rows_protected bigint  NOT NULL DEFAULT 0,
    rows_duplicate bigint  NOT NULL DEFAULT 0,
    rows_skipped   bigint  NOT NULL DEFAULT 0,
    rows_pending   bigint  NOT NULL DEFAULT 0,
    warnings       bigint  NOT NULL DEFAULT 0,
    last_row_hash  bigint,
    last_line      bigint  NOT NULL DEFAULT 0,
    recent_ids     bigint[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (import_id, lane),
    CHECK (rows_processed = rows_inserted + rows_updated + rows_unchanged + rows_protected + rows_duplicate + rows_skipped + rows_pending)
);
COMMENT ON COLUMN import_lanes.tail_hash IS 'XXH3-64 of the bytes from the last 16 MiB border to done_to.';

-- XXH3-64 of every whole 16 MiB block of the file that a lane has passed.
CREATE TABLE import_blocks (
    import_id bigint  NOT NULL REFERENCES imports ON DELETE CASCADE,
    lane      integer NOT NULL,
    block     bigint  NOT NULL,
    hash      bigint  NOT NULL,
    PRIMARY KEY (import_id, lane, block)
);

-- Rows that wait for the end of the file: further rows of an identity, and first rows that must be judged once a file.
CREATE TABLE import_parked (
    import_id         bigint NOT NULL REFERENCES imports ON DELETE CASCADE,
    source_line       bigint NOT NULL,
    source_hash       bigint NOT NULL,
    first_hash        bigint,
    customer_id       text COLLATE "C" NOT NULL,
    first_name        text COLLATE "C",
    last_name         text COLLATE "C",
    company           text COLLATE "C",
    city              text COLLATE "C",
    country           text COLLATE "C",
    phone1            text COLLATE "C",
    phone2            text COLLATE "C",
    email             text COLLATE "C",
    subscription_date date,
    website           text COLLATE "C",
    about_customer    text COLLATE "C",
    is_first          boolean NOT NULL,
    PRIMARY KEY (import_id, customer_id, source_line)
);
COMMENT ON COLUMN import_parked.first_hash IS 'Hash of the identity''s first row where that went its way; NULL where it is parked too.';

-- What could not be taken, or not wholly (severity warning), with the bytes to look at.
CREATE TABLE import_rejects (
    import_id bigint NOT NULL REFERENCES imports ON DELETE CASCADE,
    line      bigint NOT NULL,
    byte_from bigint NOT NULL,
    byte_to   bigint NOT NULL,
    severity  text   NOT NULL CHECK (severity IN ('reject', 'warning')),
    code      text   NOT NULL,
    field     text,
    message   text   NOT NULL,
    raw       bytea  NOT NULL,
    PRIMARY KEY (import_id, byte_from)
);

-- migrate:down
DROP TABLE import_rejects, import_parked, import_blocks, import_lanes, imports, sources, database_seed;
