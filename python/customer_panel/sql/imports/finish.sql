-- The end of an import: parked rows, totals.

-- has_parked --
-- Whether the import has parked rows.
SELECT EXISTS (SELECT FROM import_parked WHERE import_id = %(import_id)s);

-- parked_bound --
-- The last identity of the next portion of parked rows. No row back: it is the last portion.
SELECT customer_id FROM import_parked WHERE import_id = %(import_id)s ORDER BY customer_id OFFSET %(count)s LIMIT 1;

-- stage_parked --
-- Deletes a portion of parked rows and puts one row for each identity into the stage.
WITH taken AS (
    DELETE FROM import_parked
     WHERE import_id = %(import_id)s AND (%(bound)s::text IS NULL OR customer_id <= %(bound)s)
    RETURNING *
), <folded_into_stage>;

-- folded_into_stage --
-- Fragment, which goes on after `taken` and holds the INSERT: folds these rows into one for each identity. It has the last
-- non-blank value of each field in line order, and the hash of all rows, chained from the last line to the first. The hash of the first row is a column of its own, because that row may not have been parked.
folded AS (
    SELECT customer_id, max(source_line) AS source_line, bool_or(is_first) AS is_first,
           count(*) FILTER (WHERE NOT is_first) AS later,
           coalesce(max(source_hash) FILTER (WHERE is_first), max(first_hash)) AS first_hash,
           hash_chain(source_hash ORDER BY source_line DESC) FILTER (WHERE NOT is_first) AS chain,
           [[(array_agg({c} ORDER BY source_line DESC) FILTER (WHERE {c} IS NOT NULL))[1] AS {c}|,
           ]]
      FROM taken GROUP BY customer_id
)
INSERT INTO stage (source_line, source_hash, clears, is_first, many_rows, customer_id, [[{c}|, ]])
SELECT source_line, CASE WHEN later = 0 THEN first_hash ELSE hashint8extended(first_hash, chain) END,
       CASE WHEN is_first THEN %(clears)s ELSE 0 END, is_first, later > 0, customer_id, [[{c}|, ]]
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
