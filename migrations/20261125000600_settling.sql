-- migrate:up

-- An import may wait until its file stands still, before it reads it.
ALTER TABLE imports DROP CONSTRAINT imports_phase_check;
ALTER TABLE imports ADD CONSTRAINT imports_phase_check
    CHECK (phase IN ('settling', 'verifying', 'scanning', 'indexing', 'merging', 'maintenance', 'done'));
COMMENT ON COLUMN imports.file_size IS 'Bytes of the file when the job was made, or when it stood still: what per cent are of, so that they never go back.';

-- migrate:down
COMMENT ON COLUMN imports.file_size IS 'Bytes of the file when the job was made: what per cent are of, so that they never go back.';
UPDATE imports SET phase = 'scanning' WHERE phase = 'settling';
ALTER TABLE imports DROP CONSTRAINT imports_phase_check;
ALTER TABLE imports ADD CONSTRAINT imports_phase_check
    CHECK (phase IN ('verifying', 'scanning', 'indexing', 'merging', 'maintenance', 'done'));
