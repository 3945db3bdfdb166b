-- migrate:up

-- A parked row now has the chain of the hashes of all rows of its identity so far; it is computed while the file is read.
ALTER TABLE import_parked DROP COLUMN first_hash;
DROP AGGREGATE hash_chain (bigint);
COMMENT ON COLUMN import_parked.source_hash IS 'XXH3-64 of the row; of a later row of its identity the chain of the hashes of all rows up to it.';

-- migrate:down
COMMENT ON COLUMN import_parked.source_hash IS NULL;
CREATE AGGREGATE hash_chain (bigint) (sfunc = hashint8extended, stype = bigint, initcond = '0');
ALTER TABLE import_parked ADD COLUMN first_hash bigint;
COMMENT ON COLUMN import_parked.first_hash IS 'Hash of the identity''s first row where that went its way; NULL where it is parked too.';
