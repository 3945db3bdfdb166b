-- The end of an import: parked rows, totals.

-- parked_bound --
-- The last identity of the next portion of parked rows, which begins behind the last portion: the rows of that one are deleted,
-- but still in the index while an old snapshot needs them. NULL: there is none.
SELECT max(customer_id) FROM (SELECT customer_id FROM import_parked WHERE import_id = %(import_id)s AND customer_id > %(after)s
                               ORDER BY customer_id LIMIT %(count)s) AS portion;

-- stage_parked --
-- Puts one row for each identity of a portion of parked rows into the stage.
WITH taken AS (
    SELECT * FROM import_parked WHERE import_id = %(import_id)s AND customer_id > %(after)s AND customer_id <= %(bound)s
), <folded_into_stage>;

-- delete_parked --
-- Deletes that portion.
DELETE FROM import_parked WHERE import_id = %(import_id)s AND customer_id > %(after)s AND customer_id <= %(bound)s;

-- folded_into_stage --
-- Fragment, which goes on after `taken` and holds the INSERT: folds these rows into one for each identity. It has the last
-- non-blank value of each field in line order, and the hash of the last row, which is the chain of all. The last value is the
-- greatest text that begins with the line: so an identity takes the memory of one row, however many it has.
folded AS (
    SELECT customer_id, max(source_line) AS source_line, bool_or(is_first) AS is_first, bool_or(NOT is_first) AS many_rows,
           substr(max(line || source_hash::text), 20)::bigint AS source_hash,
           [[substr(max(line || {c}::text), 20)::{type} AS {c}|,
           ]]
      FROM (SELECT *, lpad(source_line::text, 19, '0') COLLATE "C" AS line FROM taken) AS t GROUP BY customer_id
)
INSERT INTO stage (source_line, source_hash, clears, is_first, many_rows, customer_id, [[{c}|, ]])
SELECT source_line, source_hash, CASE WHEN is_first THEN %(clears)s ELSE 0 END, is_first, many_rows, customer_id, [[{c}|, ]]
  FROM folded;

-- settle_pending --
-- Corrects the counts after rows were merged later: first rows that were pending, and those that met customers made by hand.
-- All on lane 0: only the sum of the lanes is used.
UPDATE import_lanes
   SET rows_pending = rows_pending - %(settled)s,
       rows_inserted = rows_inserted + %(inserted)s,
       rows_updated = rows_updated + %(updated)s,
       rows_unchanged = rows_unchanged + %(unchanged)s,
       rows_protected = rows_protected + %(protected)s,
       rows_duplicate = rows_duplicate + %(duplicate)s,
       recent_ids = (%(recent)s::bigint[] || recent_ids)[:200],
       committed_at = clock_timestamp()
 WHERE import_id = %(import_id)s AND lane = 0 AND epoch = %(epoch)s
RETURNING pg_notify('customer_panel', json_build_object('jobId', import_id::text, 'lane', lane)::text);

-- fold_totals --
-- Makes one row for each range of ids.
WITH taken AS (DELETE FROM customer_totals RETURNING id_range, delta)
INSERT INTO customer_totals (id_range, delta)
SELECT id_range, sum(delta) FROM taken GROUP BY id_range HAVING sum(delta) <> 0;
