-- Customers one by one and page by page, for the API.

-- list_customers --
-- The total and one page, newest first. The sums of the ranges of ids say in which range the page begins; of a range where
-- every id is a customer they say at which id, in any other at most its half is walked, from the nearer end.
WITH ranges AS MATERIALIZED (
    SELECT id_range, sum(delta)::bigint AS live FROM customer_totals GROUP BY id_range HAVING sum(delta) <> 0
), walked AS (
    SELECT id_range, live, sum(live) OVER (ORDER BY id_range DESC)::bigint AS through FROM ranges
), start AS MATERIALIZED (
    SELECT id_range << 13 AS low, (id_range + 1) << 13 AS high, live, %(offset)s - through + live AS skip
      FROM walked WHERE through > %(offset)s ORDER BY id_range DESC LIMIT 1
), first AS MATERIALIZED (
    SELECT CASE
        WHEN live = 8192 THEN high - 1 - skip
        WHEN skip <= live / 2 THEN (
            SELECT id FROM customers WHERE deleted_at IS NULL AND id < high ORDER BY id DESC OFFSET skip LIMIT 1)
        ELSE (
            SELECT id FROM customers WHERE deleted_at IS NULL AND id >= low ORDER BY id OFFSET live - 1 - skip LIMIT 1)
        END AS id
      FROM start
), page AS (
    SELECT <shown> FROM customers AS c
     WHERE c.deleted_at IS NULL AND c.id <= (SELECT id FROM first) ORDER BY c.id DESC LIMIT %(limit)s
)
SELECT t.total, false, p.* FROM (SELECT coalesce(sum(live), 0)::bigint AS total FROM ranges) AS t
  LEFT JOIN page AS p ON true ORDER BY p.id DESC;

-- list_customers_after --
-- The total, whether there are newer ones, and the customers that follow an id, newest first.
WITH page AS (
    SELECT <shown> FROM customers AS c
     WHERE c.deleted_at IS NULL AND c.id < %(after)s ORDER BY c.id DESC LIMIT %(limit)s
)
SELECT (SELECT coalesce(sum(delta), 0)::bigint FROM customer_totals),
       EXISTS (SELECT FROM customers WHERE deleted_at IS NULL AND id >= %(after)s), p.*
  FROM (SELECT) AS t LEFT JOIN page AS p ON true ORDER BY p.id DESC;

-- list_by_customer_id --
-- The one customer of an identity, or two while a first load has no key yet, as list_customers does.
WITH found AS MATERIALIZED (
    SELECT id FROM customers
     WHERE customer_id = %(customer_id)s AND (%(email)s::text IS NULL OR email = %(email)s) AND deleted_at IS NULL
), <page_of_found>;

-- list_by_email --
-- The customers of an e-mail address, as list_customers does.
WITH found AS MATERIALIZED (
    SELECT id FROM customers WHERE email = %(email)s AND deleted_at IS NULL
), <page_of_found>;

-- page_of_found --
-- Fragment: the total, whether there are newer ones than the page, and the page.
page AS (
    SELECT <shown> FROM customers AS c
     WHERE c.id IN (SELECT id FROM found WHERE %(after)s::bigint IS NULL OR id < %(after)s
                     ORDER BY id DESC OFFSET %(offset)s LIMIT %(limit)s)
     ORDER BY c.id DESC
)
SELECT (SELECT count(*) FROM found), EXISTS (SELECT FROM found WHERE id >= %(after)s), p.*
  FROM (SELECT) AS t LEFT JOIN page AS p ON true ORDER BY p.id DESC;

-- lock_values --
-- Whoever writes one of these values waits here until the others have, in one order.
SELECT pg_advisory_xact_lock(key) FROM unnest(%(keys)s::bigint[]) AS key;

-- find_taken --
-- Who has the e-mail address, and who the identity, deleted ones too: those come back when they are created again.
SELECT 'email' AS field, id, false AS is_deleted FROM customers
 WHERE email = %(email)s AND deleted_at IS NULL AND id <> %(but)s
UNION ALL
SELECT 'customerId', id, deleted_at IS NOT NULL FROM customers WHERE customer_id = %(customer_id)s;

-- insert_customer --
-- A new customer, counted.
WITH made AS (
    INSERT INTO customers (customer_id, [[{c}|, ]]) VALUES (%(customer_id)s, [[%({c})s|, ]]) RETURNING *
), counted AS (
    INSERT INTO customer_totals (id_range, delta) SELECT id >> 13, 1 FROM made
)
SELECT <shown> FROM made AS c;

-- revive_customer --
-- A deleted customer that is created again: new to the API, and for imports edited where it differs from what they brought.
WITH made AS (
    UPDATE customers
       SET id = nextval('customers_id_seq'), deleted_at = NULL, created_at = clock_timestamp(), updated_at = clock_timestamp(),
           [[{c} = %({c})s|, ]]
     WHERE id = %(id)s AND deleted_at IS NOT NULL
    RETURNING *
), counted AS (
    INSERT INTO customer_totals (id_range, delta) SELECT id >> 13, 1 FROM made
)
SELECT <shown> FROM made AS c;

-- hold_customer --
-- A customer as it is shown, its values, and nobody else changes it before this transaction ends.
SELECT <shown>, [[c.{c}|, ]] FROM customers AS c WHERE c.id = %(id)s AND c.deleted_at IS NULL FOR UPDATE;

-- update_customer --
-- All fields anew. The time moves by what is shown of it at least.
UPDATE customers AS c
   SET [[{c} = %({c})s|, ]], updated_at = greatest(clock_timestamp(), c.updated_at + interval '1 millisecond')
 WHERE c.id = %(id)s
RETURNING <shown>;

-- delete_customer --
-- Deleted stays deleted, whatever an import brings.
WITH gone AS (
    UPDATE customers SET deleted_at = clock_timestamp(), updated_at = clock_timestamp() WHERE id = %(id)s RETURNING id
)
INSERT INTO customer_totals (id_range, delta) SELECT id >> 13, -1 FROM gone;

-- fold_some_totals --
-- One row again for each range that has several. What others fold at the same moment is theirs: nobody waits here.
WITH several AS (
    SELECT id_range FROM customer_totals GROUP BY id_range HAVING count(*) > 1
), taken AS (
    DELETE FROM customer_totals
     WHERE ctid = ANY (ARRAY(SELECT ctid FROM customer_totals WHERE id_range IN (SELECT id_range FROM several)
                                FOR UPDATE SKIP LOCKED))
    RETURNING id_range, delta
)
INSERT INTO customer_totals (id_range, delta)
SELECT id_range, sum(delta) FROM taken GROUP BY id_range HAVING sum(delta) <> 0;
