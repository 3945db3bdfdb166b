-- One batch of one lane, in one transaction.

-- draw_ids --
-- Draws n new ids: in runs, the first of each and how many. There is more than one run only if another session draws meanwhile:
-- then the runs are looked for, in each of which ids and places count up alike.
WITH drawn AS MATERIALIZED (
    SELECT ARRAY(SELECT nextval('customers_id_seq') FROM generate_series(1, %(count)s)) AS ids
), ends AS MATERIALIZED (
    SELECT ids, ids[1] AS first, cardinality(ids) AS count, ids[cardinality(ids)] - ids[1] = cardinality(ids) - 1 AS is_one_run FROM drawn
)
SELECT first, count FROM ends WHERE is_one_run
UNION ALL
(SELECT min(id), count(*) FROM ends, unnest(ids) WITH ORDINALITY AS each (id, place)
  WHERE NOT is_one_run GROUP BY id - place ORDER BY 1);

-- copy_customers --
-- New customers, in key order.
COPY customers (id, import_id, source_id, source_line, source_hash, customer_id, [[{c}|, ]])
FROM STDIN (FORMAT binary);

-- copy_parked --
-- Parked rows: they are merged after the end of the file.
COPY import_parked (import_id, source_line, source_hash, customer_id, [[{c}|, ]], is_first)
FROM STDIN (FORMAT binary);

-- create_parked_again --
-- The rows of one batch of the second reading.
CREATE TEMPORARY TABLE IF NOT EXISTS parked_again (LIKE import_parked) ON COMMIT DELETE ROWS;

-- copy_parked_again --
-- Rows that the second reading parks, in the format of import_parked.
COPY parked_again (import_id, source_line, source_hash, customer_id, [[{c}|, ]], is_first) FROM STDIN (FORMAT binary);

-- park_again --
-- Parks them. Those that an earlier run of the import has parked are the same rows.
INSERT INTO import_parked SELECT * FROM parked_again ON CONFLICT DO NOTHING;

-- copy_rejects --
-- Rejects and warnings.
COPY import_rejects (import_id, line, byte_from, byte_to, severity, code, field, message, raw)
FROM STDIN (FORMAT binary);

-- advance_lane --
-- Moves a lane forward and adds the counts of the batch. No row back means the claim is lost.
UPDATE import_lanes
   SET done_to = %(done_to)s,
       tail_hash = %(tail_hash)s,
       rows_processed = rows_processed + %(processed)s,
       rows_inserted = rows_inserted + %(inserted)s,
       rows_updated = rows_updated + %(updated)s,
       rows_unchanged = rows_unchanged + %(unchanged)s,
       rows_protected = rows_protected + %(protected)s,
       rows_duplicate = rows_duplicate + %(duplicate)s,
       rows_skipped = rows_skipped + %(skipped)s,
       rows_pending = rows_pending + %(pending)s,
       warnings = warnings + %(warnings)s,
       last_row_hash = coalesce(%(last_row_hash)s, last_row_hash),
       committed_at = clock_timestamp(),
       last_line = greatest(last_line, %(last_line)s),
       recent_ids = (%(recent)s::bigint[] || recent_ids)[:200]
 WHERE import_id = %(import_id)s AND lane = %(lane)s AND epoch = %(epoch)s AND done_to = %(from)s
RETURNING pg_notify('customer_panel', json_build_object('jobId', import_id::text, 'lane', lane)::text);

-- note_blocks --
-- Stores the hashes of the blocks that the lane has passed. A hash may be there already: before the lanes were divided anew,
-- a lane of this number had read further.
INSERT INTO import_blocks (import_id, lane, block, hash)
SELECT %(import_id)s, %(lane)s, * FROM unnest(%(numbers)s::bigint[], %(hashes)s::bigint[])
ON CONFLICT DO NOTHING;
