-- The stage: rows to be merged into customers that may exist already.

-- stand_aside --
-- Tells the trigger of customers that this transaction is an import's. Not the session: behind a pooler others use it next.
SELECT set_config('customer_panel.import', 'on', true);

-- create_stage --
-- Rows to be merged. is_first: the outcome of the row is counted; of several rows of an identity only the first one's is.
CREATE TEMPORARY TABLE IF NOT EXISTS stage (
    source_line bigint  NOT NULL,
    source_hash bigint  NOT NULL,
    clears      integer NOT NULL,
    is_first    boolean NOT NULL DEFAULT true,
    many_rows   boolean NOT NULL DEFAULT false,
    customer_id text COLLATE "C" NOT NULL,
    [[{c} {type}|, ]]
) ON COMMIT DELETE ROWS;

-- copy_stage --
-- Adds rows to the stage.
COPY stage (source_line, source_hash, clears, customer_id, [[{c}|, ]]) FROM STDIN (FORMAT binary);

-- brings --
-- Fragment: the row has a value for the column, or clears it.
(s.{c} IS NOT NULL OR s.clears & {bit} <> 0)

-- differs --
-- Fragment: the row would change the column, which was not edited by hand.
(c.edited_fields & {bit} = 0 AND <brings> AND s.{c} IS DISTINCT FROM c.{c})

-- keeps --
-- Fragment: the column was edited by hand and keeps its value, although the row has another.
(c.edited_fields & {bit} <> 0 AND <brings> AND s.{c} IS DISTINCT FROM c.{c})

-- is_other --
-- Fragment: the row differs from the one that the customer was last imported from.
(c.source_hash IS DISTINCT FROM s.source_hash OR c.many_rows <> s.many_rows)

-- concerns --
-- Fragment: the row can change the customer. If it is of another feed a value must differ too.
<is_other>
   AND (c.source_id IS NOT DISTINCT FROM %(source_id)s OR [[<differs>| OR ]])

-- merge_changed --
-- Merges the stage into existing customers. All conditions are on the target row, so an edit that commits while this waits
-- for the row is seen and kept. If no value changes, the row is written only to store the hash, and only for its own feed.
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
), recorded AS (
    INSERT INTO customer_history (customer_id, import_id, source_line, fields, old_values)
    SELECT customer_id, %(import_id)s, source_line, fields, was FROM merged WHERE fields <> 0
)
SELECT count(*) FILTER (WHERE is_first AND fields <> 0 AND kept = 0) AS updated,
       count(*) FILTER (WHERE is_first AND kept <> 0) AS protected,
       coalesce((array_agg(id ORDER BY source_line DESC) FILTER (WHERE fields <> 0))[:200], '{}') AS recent
  FROM merged;

-- insert_missing --
-- Inserts the rows of the stage that have no customer yet. If a concurrent insert is faster, the caller merges once more.
WITH classified AS MATERIALIZED (
    SELECT s.*, c.customer_id IS NULL AS is_missing,
           c.deleted_at IS NOT NULL AND <is_other> AS is_deleted,
           c.customer_id IS NOT NULL AND c.deleted_at IS NULL AND c.import_id IS NULL AS is_hand_made
      FROM stage AS s LEFT JOIN customers AS c ON c.customer_id = s.customer_id
), inserted AS (
    INSERT INTO customers (customer_id, [[{c}|, ]], source_hash, many_rows, source_id, import_id, source_line)
    SELECT customer_id, [[{c}|, ]], source_hash, many_rows, %(source_id)s, %(import_id)s, source_line
      FROM classified WHERE is_missing ORDER BY customer_id
    ON CONFLICT (customer_id) DO NOTHING
    RETURNING id, customer_id
)
SELECT count(*) FILTER (WHERE is_missing) AS missing,
       count(*) FILTER (WHERE is_first AND is_deleted) AS deleted,
       count(*) FILTER (WHERE is_hand_made) AS hand_made,
       count(*) FILTER (WHERE is_first) AS firsts,
       count(*) FILTER (WHERE i.id IS NOT NULL AND is_first) AS inserted,
       count(*) FILTER (WHERE i.id IS NOT NULL AND NOT is_first) AS inserted_later,
       coalesce(array_agg(i.id) FILTER (WHERE i.id IS NOT NULL), '{}') AS ids
  FROM classified LEFT JOIN inserted AS i USING (customer_id);

-- adopt_hand_made --
-- Adopts customers made by hand that a file has too: all their values count as edited by hand from now on.
UPDATE customers AS c
   SET import_id = %(import_id)s,
       source_id = %(source_id)s,
       edited_fields = c.edited_fields | <filled>
  FROM stage AS s
 WHERE c.customer_id = s.customer_id AND c.import_id IS NULL AND c.deleted_at IS NULL;

-- stage_hand_made --
-- Customers made by hand while there was no key, whose identity the file has too: moves the file's row to the stage.
WITH taken AS (
    DELETE FROM customers AS c USING customers AS h
     WHERE h.import_id IS NULL AND c.import_id IS NOT NULL AND c.customer_id = h.customer_id
    RETURNING c.*
), gone AS (
    INSERT INTO customer_totals (id_range, delta) SELECT id >> 13, -count(*) FROM taken WHERE deleted_at IS NULL GROUP BY id >> 13
)
INSERT INTO stage (source_line, source_hash, clears, customer_id, [[{c}|, ]])
SELECT source_line, source_hash, %(clears)s, customer_id, [[{c}|, ]] FROM taken;

-- count_deleted --
-- How many rows of the stage are of customers that were deleted by hand.
SELECT count(*) FROM stage JOIN customers USING (customer_id) WHERE deleted_at IS NOT NULL;

-- add_totals --
-- Adds the numbers of new rows for ranges of 8,192 ids.
INSERT INTO customer_totals (id_range, delta) SELECT * FROM unnest(%(ranges)s::bigint[], %(deltas)s::bigint[]);
