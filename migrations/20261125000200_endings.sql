-- migrate:up

-- The time that each import has taken, its killed runs included. Written every now and then while it runs, so in a table of its
-- own: the row of the job is locked while keys are built.
CREATE TABLE import_clocks (
    import_id  bigint PRIMARY KEY REFERENCES imports ON DELETE CASCADE,
    elapsed_ms bigint NOT NULL DEFAULT 0
);
COMMENT ON COLUMN import_clocks.elapsed_ms IS 'Of all runs, without maintenance; only ever raised, so what was shown once never goes back.';
INSERT INTO import_clocks (import_id, elapsed_ms) SELECT id, elapsed_ms FROM imports;
ALTER TABLE imports DROP COLUMN elapsed_ms;
COMMENT ON COLUMN import_lanes.committed_at IS 'When the lane last moved.';

-- migrate:down
COMMENT ON COLUMN import_lanes.committed_at IS 'When the lane last moved: what a killed runner has of elapsed time.';
ALTER TABLE imports ADD COLUMN elapsed_ms bigint NOT NULL DEFAULT 0;
UPDATE imports SET elapsed_ms = c.elapsed_ms FROM import_clocks AS c WHERE c.import_id = id;
DROP TABLE import_clocks;
