-- One batch of one lane, in one transaction.

-- create_stage --
-- Rows on their way into a merge; is_first: their outcome counts (of several rows of an identity, the first one's).
CREATE TEMPORARY TABLE IF NOT EXISTS stage (
    source_line       bigint  NOT NULL,
    source_hash       bigint  NOT NULL,
    clears            integer NOT NULL,
    is_first          boolean NOT NULL DEFAULT true,
    many_rows         boolean NOT NULL DEFAULT false,
    subscription_date date,
    customer_id       text COLLATE "C" NOT NULL,
    first_name text, last_name text, company text, city text, country text, phone1 text, phone2 text,
    email text, website text, about_customer text
) ON COMMIT DELETE ROWS;

-- draw_ids --
-- The lowest and the highest of n new ids. They are one range unless somebody else drew meanwhile.
SELECT min(id), max(id) FROM (SELECT nextval('customers_id_seq') AS id FROM generate_series(1, %(count)s)) AS drawn;

-- copy_customers --
-- New customers, in key order.
COPY customers (id, import_id, source_id, source_line, source_hash, customer_id, [[{c}|, ]])
FROM STDIN (FORMAT binary);

-- copy_stage --
-- Changed customers.
COPY stage (source_line, source_hash, clears, customer_id, [[{c}|, ]]) FROM STDIN (FORMAT binary);

-- copy_parked --
-- Rows that wait for the end of the file.
COPY import_parked (import_id, source_line, source_hash, first_hash, customer_id, [[{c}|, ]], is_first)
FROM STDIN (FORMAT binary);

-- copy_rejects --
-- What could not be taken.
COPY import_rejects (import_id, line, byte_from, byte_to, severity, code, field, message, raw)
FROM STDIN (FORMAT binary);

-- brings --
-- Fragment: the row says something about the column.
(s.{c} IS NOT NULL OR s.clears & {bit} <> 0)

-- differs --
-- Fragment: an import would change the column, for nobody edited it.
(c.edited_fields & {bit} = 0 AND <brings> AND s.{c} IS DISTINCT FROM c.{c})

-- keeps --
-- Fragment: a person's edit of the column stays, against what the row says.
(c.edited_fields & {bit} <> 0 AND <brings> AND s.{c} IS DISTINCT FROM c.{c})

-- concerns --
-- Fragment: the row is another one than the customer was last made of; to another feed than its own, only if that shows.
(c.source_hash IS DISTINCT FROM s.source_hash OR c.many_rows <> s.many_rows)
   AND (c.source_id IS NOT DISTINCT FROM %(source_id)s OR [[<differs>| OR ]])

-- filled --
-- Fragment: bit set of the columns that have a value.
([[CASE WHEN c.{c} IS NOT NULL THEN {bit} ELSE 0 END| + ]])

-- merge_changed --
-- Merges the stage into customers that are there. All that decides is in the target row, so an edit that commits while
-- this waits for it is seen and kept. A row whose values stay is written only to note its hash, and only for its own feed.
WITH merged AS (
    UPDATE customers AS c
       SET [[{c} = CASE WHEN c.edited_fields & {bit} = 0 AND <brings> THEN s.{c} ELSE c.{c} END|,
           ]],
           edit_base = CASE WHEN c.edited_fields <> 0 THEN ARRAY[NULL,
               [[CASE WHEN c.edited_fields & {bit} <> 0 THEN CASE WHEN <brings> THEN s.{c}::text ELSE c.edit_base[{index}] END END|,
               ]]] END,
           source_hash = s.source_hash,
           many_rows = s.many_rows,
           source_id = %(source_id)s,
           import_id = %(import_id)s,
           source_line = s.source_line,
           updated_at = CASE WHEN [[<differs>| OR ]] THEN CURRENT_TIMESTAMP ELSE c.updated_at END
      FROM stage AS s
     WHERE c.customer_id = s.customer_id
       AND c.deleted_at IS NULL
       AND c.import_id IS NOT NULL
       AND <concerns>
    RETURNING new.id, c.customer_id, s.source_line, s.is_first,
        [[CASE WHEN old.{c} IS DISTINCT FROM new.{c} THEN {bit} ELSE 0 END| + ]] AS fields,
        [[CASE WHEN <keeps> THEN {bit} ELSE 0 END| + ]] AS kept,
        ARRAY[NULL, [[old.{c}::text|, ]]] AS was
), noted AS (
    INSERT INTO customer_history (customer_id, import_id, source_line, fields, old_values)
    SELECT customer_id, %(import_id)s, source_line, fields, was FROM merged WHERE fields <> 0
)
SELECT count(*) FILTER (WHERE is_first AND fields <> 0 AND kept = 0) AS updated,
       count(*) FILTER (WHERE is_first AND kept <> 0) AS protected,
       coalesce((array_agg(id ORDER BY source_line DESC) FILTER (WHERE fields <> 0))[:200], '{}') AS recent
  FROM merged;

-- insert_missing --
-- Inserts what the stage holds and the table does not. What a concurrent insert wins goes round again.
WITH judged AS MATERIALIZED (
    SELECT s.*, c.customer_id IS NULL AS is_missing,
           c.deleted_at IS NOT NULL AS is_deleted,
           c.customer_id IS NOT NULL AND c.deleted_at IS NULL AND c.import_id IS NULL AS is_handmade
      FROM stage AS s LEFT JOIN customers AS c ON c.customer_id = s.customer_id
), inserted AS (
    INSERT INTO customers (customer_id, [[{c}|, ]], source_hash, many_rows, source_id, import_id, source_line)
    SELECT customer_id, [[{c}|, ]], source_hash, many_rows, %(source_id)s, %(import_id)s, source_line
      FROM judged WHERE is_missing ORDER BY customer_id
    ON CONFLICT (customer_id) DO NOTHING
    RETURNING id, customer_id
)
SELECT count(*) FILTER (WHERE is_missing) AS missing,
       count(*) FILTER (WHERE is_first AND is_deleted) AS deleted,
       count(*) FILTER (WHERE is_handmade) AS handmade,
       count(*) FILTER (WHERE is_first) AS firsts,
       count(*) FILTER (WHERE i.id IS NOT NULL AND is_first) AS inserted,
       count(*) FILTER (WHERE i.id IS NOT NULL AND NOT is_first) AS inserted_later,
       coalesce(array_agg(i.id) FILTER (WHERE i.id IS NOT NULL), '{}') AS ids
  FROM judged LEFT JOIN inserted AS i USING (customer_id);

-- adopt_handmade --
-- A customer made by hand that a file brings too: from now on all it filled counts as edited by hand.
UPDATE customers AS c
   SET import_id = %(import_id)s,
       source_id = %(source_id)s,
       edited_fields = c.edited_fields | <filled>
  FROM stage AS s
 WHERE c.customer_id = s.customer_id AND c.import_id IS NULL AND c.deleted_at IS NULL;

-- add_totals --
-- Notes how many rows came into each range of 8,192 ids.
INSERT INTO customer_totals (id_range, delta) SELECT * FROM unnest(%(ranges)s::bigint[], %(deltas)s::bigint[]);

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
