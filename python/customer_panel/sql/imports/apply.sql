-- One batch of one lane, in one transaction.

-- draw_ids --
-- The lowest and the highest of n new ids. They are one range unless somebody else drew meanwhile.
SELECT min(id), max(id) FROM (SELECT nextval('customers_id_seq') AS id FROM generate_series(1, %(count)s)) AS drawn;

-- copy_customers --
-- New customers, in key order.
COPY customers (id, import_id, source_id, source_line, source_hash, customer_id, [[{c}|, ]])
FROM STDIN (FORMAT binary);

-- copy_parked --
-- Rows that wait for the end of the file.
COPY import_parked (import_id, source_line, source_hash, first_hash, customer_id, [[{c}|, ]], is_first)
FROM STDIN (FORMAT binary);

-- copy_rejects --
-- What could not be taken.
COPY import_rejects (import_id, line, byte_from, byte_to, severity, code, field, message, raw)
FROM STDIN (FORMAT binary);

-- advance_lane --
-- Moves a lane forward and counts what moved it. No row back means the claim is lost.
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
-- The hashes of the blocks that the lane has passed. One that is there already was noted under this number by a lane of an
-- earlier division that had come further.
INSERT INTO import_blocks (import_id, lane, block, hash)
SELECT %(import_id)s, %(lane)s, * FROM unnest(%(numbers)s::bigint[], %(hashes)s::bigint[])
ON CONFLICT DO NOTHING;
