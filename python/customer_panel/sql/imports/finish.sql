-- The end of an import: keys, parked rows, maintenance.

-- customers_is_empty --
-- No customer at all, deleted ones included.
SELECT NOT EXISTS (SELECT FROM customers);

-- lock_customers --
-- Nobody else looks while the keys go; a first load has nobody who would.
LOCK TABLE customers IN ACCESS EXCLUSIVE MODE;

-- drop_keys --
-- A first load builds them when the rows are in.
ALTER TABLE customers DROP CONSTRAINT IF EXISTS customers_pkey;
DROP INDEX IF EXISTS customers_pkey, customers_email_idx;

-- missing_keys --
-- Which of the two indexes are not there, or not usable.
SELECT name, EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(name)) AS is_invalid
  FROM unnest(ARRAY['customers_pkey', 'customers_email_idx']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(name) AND indisvalid);

-- has_primary_key --
-- Whether the index on customer_id is the primary key yet.
SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'customers'::regclass AND contype = 'p');

-- others_wait --
-- Whether anybody but this import waits for a lock on the customers.
SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
                WHERE relation = 'customers'::regclass AND NOT granted AND application_name NOT LIKE %(ours)s);

-- fold_doubles --
-- Customers that people made twice while there was no key to refuse it: the first one stays and takes from the others what
-- it lacks; what they held is in the history.
WITH doubles AS (
    SELECT customer_id, (array_agg(id ORDER BY deleted_at IS NOT NULL, id))[1] AS kept,
           [[(array_agg({c} ORDER BY deleted_at IS NOT NULL, id) FILTER (WHERE {c} IS NOT NULL))[1] AS {c}|,
           ]]
      FROM customers WHERE import_id IS NULL GROUP BY customer_id HAVING count(*) > 1
), gone AS (
    DELETE FROM customers AS c USING doubles AS d
     WHERE c.customer_id = d.customer_id AND c.import_id IS NULL AND c.id <> d.kept
    RETURNING c.*
), counted AS (
    INSERT INTO customer_totals (id_range, delta) SELECT id >> 13, -count(*) FROM gone WHERE deleted_at IS NULL GROUP BY id >> 13
), noted AS (
    INSERT INTO customer_history (customer_id, fields, old_values)
    SELECT customer_id, <filled>, ARRAY[NULL, [[{c}::text|, ]]] FROM gone AS c
)
UPDATE customers AS c SET [[{c} = d.{c}|, ]] FROM doubles AS d WHERE c.id = d.kept;

-- stage_twins --
-- Customers made by hand while there was no key, whose identity the file brought too: its row goes to the stage.
WITH twins AS (
    DELETE FROM customers AS c USING customers AS h
     WHERE h.import_id IS NULL AND c.import_id IS NOT NULL AND c.customer_id = h.customer_id
    RETURNING c.*
), gone AS (
    INSERT INTO customer_totals (id_range, delta) SELECT id >> 13, -count(*) FROM twins WHERE deleted_at IS NULL GROUP BY id >> 13
)
INSERT INTO stage (source_line, source_hash, clears, customer_id, [[{c}|, ]])
SELECT source_line, source_hash, %(clears)s, customer_id, [[{c}|, ]] FROM twins;

-- count_deleted --
-- How many rows of the stage are of customers that a person deleted.
SELECT count(*) FROM stage JOIN customers USING (customer_id) WHERE deleted_at IS NOT NULL;

-- has_parked --
-- Whether any row waits.
SELECT EXISTS (SELECT FROM import_parked WHERE import_id = %(import_id)s);

-- parked_bound --
-- The last identity of the next portion of parked rows; no row: it is the last portion.
SELECT customer_id FROM import_parked WHERE import_id = %(import_id)s ORDER BY customer_id OFFSET %(count)s LIMIT 1;

-- stage_parked --
-- Takes parked rows out and puts one row for each identity into the stage.
WITH taken AS (
    DELETE FROM import_parked
     WHERE import_id = %(import_id)s AND (%(bound)s::text IS NULL OR customer_id <= %(bound)s)
    RETURNING *
), <folded_into_stage>;

-- folded_into_stage --
-- Fragment: of the rows `taken`, one for each identity: field by field the last value in line order, and the hash of
-- all its rows. The hash of the first row is kept apart, for it may have gone its way before.
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
-- Counts what became of first rows that waited. On the first lane, whichever it was: only the sum over the lanes counts.
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
-- One row for each range of ids again.
WITH taken AS (DELETE FROM customer_totals RETURNING id_range, delta)
INSERT INTO customer_totals (id_range, delta)
SELECT id_range, sum(delta) FROM taken GROUP BY id_range HAVING sum(delta) <> 0;

-- hold_claim --
-- Fences a step of the finish: nobody else can claim the job before this transaction ends.
SELECT id FROM imports WHERE id = %(import_id)s AND epoch = %(epoch)s AND status = 'RUNNING' FOR SHARE;
