-- A dry run: counts what an import would do, by the conditions of merge.sql and finish.sql. Writes only temporary tables.

-- find_source --
-- The id of a feed. No row back: it has no import yet.
SELECT id FROM sources WHERE name = %(name)s;

-- create_dry_run --
-- The rows that an import would park.
CREATE TEMPORARY TABLE dry_run_parked (LIKE import_parked);

-- copy_dry_run --
-- The rows of a batch to park, in the format of import_parked.
COPY dry_run_parked (import_id, source_line, source_hash, customer_id, [[{c}|, ]], is_first)
FROM STDIN (FORMAT binary);

-- stage_dry_run --
-- Puts one row for each parked identity into the stage.
WITH taken AS (SELECT * FROM dry_run_parked), <folded_into_stage>;

-- count_merge --
-- What a merge of the stage would do. A customer made by hand is adopted first: all its values then count as edited.
WITH classified AS (
    SELECT c.customer_id IS NULL AS is_missing,
           c.deleted_at IS NOT NULL AND <is_other> AS is_deleted,
           c.deleted_at IS NULL AND <concerns> AND ([[<keeps>| OR ]]) AS is_kept,
           c.deleted_at IS NULL AND <concerns> AND ([[<differs>| OR ]]) AS is_changed
      FROM stage AS s
      LEFT JOIN LATERAL (
          SELECT c.customer_id, c.deleted_at, c.source_hash, c.many_rows, [[c.{c}|, ]],
                 CASE WHEN c.import_id IS NULL THEN %(source_id)s ELSE c.source_id END AS source_id,
                 CASE WHEN c.import_id IS NULL THEN c.edited_fields | <filled> ELSE c.edited_fields END AS edited_fields
            FROM customers AS c WHERE c.customer_id = s.customer_id
      ) AS c ON true
     WHERE s.is_first
)
SELECT count(*) AS firsts,
       count(*) FILTER (WHERE is_missing) AS inserted,
       count(*) FILTER (WHERE NOT is_missing AND is_changed AND NOT is_kept) AS updated,
       count(*) FILTER (WHERE NOT is_missing AND (is_deleted OR is_kept)) AS protected
  FROM classified;
