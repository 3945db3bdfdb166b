-- The indexes on customer_id and e-mail: dropped for a first load, built at its end.

-- customers_is_empty --
-- Whether there is no customer, not even a deleted one.
SELECT NOT EXISTS (SELECT FROM customers);

-- lock_customers --
-- No other session reads customers while the indexes are dropped: before a first load there are none to read.
LOCK TABLE customers IN ACCESS EXCLUSIVE MODE;

-- keys_are_used --
-- Whether something of the user's needs an index, or would be lost with it, that DROP does not know of: a publication (without
-- a key, who publishes updates cannot update), the replica identity, CLUSTER, a comment, another tablespace or definition.
SELECT EXISTS (SELECT FROM pg_publication WHERE puballtables)
    OR EXISTS (SELECT FROM pg_publication_rel WHERE prrelid = 'customers'::regclass)
    OR EXISTS (SELECT FROM pg_publication_namespace JOIN pg_class ON relnamespace = pnnspid WHERE pg_class.oid = 'customers'::regclass)
    OR EXISTS (SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
                WHERE i.indexrelid IN (to_regclass('customers_pkey'), to_regclass('customers_email_idx'))
                  AND (i.indisreplident OR i.indisclustered OR NOT i.indimmediate OR i.indnkeyatts <> i.indnatts
                       OR i.indpred IS NOT NULL OR c.reltablespace <> 0 OR c.reloptions IS NOT NULL
                       OR obj_description(c.oid, 'pg_class') IS NOT NULL))
    OR EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'customers'::regclass AND contype = 'p'
                  AND obj_description(oid, 'pg_constraint') IS NOT NULL);

-- drop_keys --
-- Drops both indexes; a first load builds them when its rows are in.
ALTER TABLE customers DROP CONSTRAINT IF EXISTS customers_pkey;
DROP INDEX IF EXISTS customers_pkey, customers_email_idx;

-- missing_keys --
-- Those of the two indexes that are missing or not valid.
SELECT name, EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(name)) AS is_invalid
  FROM unnest(ARRAY['customers_pkey', 'customers_email_idx']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(name) AND indisvalid);

-- has_primary_key --
-- Whether the index on customer_id is the primary key yet.
SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'customers'::regclass AND contype = 'p');

-- others_wait --
-- Whether a session other than those of this import waits for a lock on customers.
SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
                WHERE relation = 'customers'::regclass AND NOT granted AND application_name NOT LIKE %(ours)s);

-- fold_hand_made --
-- Customers that were created twice by hand while there was no key: the first is kept and gets the values that it lacks from
-- the others. Their own values go to the history.
WITH repeated AS (
    SELECT customer_id, (array_agg(id ORDER BY deleted_at IS NOT NULL, id))[1] AS kept,
           [[(array_agg({c} ORDER BY deleted_at IS NOT NULL, id) FILTER (WHERE {c} IS NOT NULL))[1] AS {c}|,
           ]]
      FROM customers WHERE import_id IS NULL GROUP BY customer_id HAVING count(*) > 1
), gone AS (
    DELETE FROM customers AS c USING repeated AS d
     WHERE c.customer_id = d.customer_id AND c.import_id IS NULL AND c.id <> d.kept
    RETURNING c.*
), counted AS (
    INSERT INTO customer_totals (id_range, delta) SELECT id >> 13, -count(*) FROM gone WHERE deleted_at IS NULL GROUP BY id >> 13
), recorded AS (
    INSERT INTO customer_history (customer_id, fields, old_values)
    SELECT customer_id, <filled>, ARRAY[NULL, [[{c}::text|, ]]] FROM gone AS c
)
UPDATE customers AS c SET [[{c} = d.{c}|, ]] FROM repeated AS d WHERE c.id = d.kept;
