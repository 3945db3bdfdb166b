-- Hash and flags of every identity, read in ranges of pages by several sessions under one snapshot.

-- database_seed --
-- The seed of the identity hashes.
SELECT seed FROM database_seed;

-- customer_pages --
-- The pages of the table, and its rows: as the planner estimates them, and as customer_totals counts them.
SELECT (pg_relation_size('customers') / current_setting('block_size')::bigint)::bigint AS pages,
       (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'customers'::regclass) AS rows,
       (SELECT coalesce(sum(delta), 0)::bigint FROM customer_totals) AS counted;

-- known_hashes --
-- Ids and hashes of the customers of a range of pages, as two arrays. Two more arrays hold the flags of those that had
-- several rows in their last file, or that were created, edited or deleted by hand.
SELECT array_agg(customer_id), array_agg(source_hash),
       array_agg(customer_id) FILTER (WHERE many_rows OR edited_fields <> 0 OR deleted_at IS NOT NULL OR import_id IS NULL),
       array_agg(many_rows::integer * 2 | (edited_fields <> 0 OR deleted_at IS NOT NULL OR import_id IS NULL)::integer * 4)
           FILTER (WHERE many_rows OR edited_fields <> 0 OR deleted_at IS NOT NULL OR import_id IS NULL)
  FROM customers WHERE ctid >= %(from)s::tid AND ctid < %(to)s::tid;

-- parked_firsts --
-- Identities of which an earlier run of this import has parked rows.
SELECT array_agg(customer_id), array_agg(8) FROM import_parked WHERE import_id = %(import_id)s AND is_first;

-- export_snapshot --
-- Exports the snapshot of this transaction for other sessions.
SELECT pg_export_snapshot();
