-- Customers one by one and page by page, for the API.

-- list_customers --
-- The total and one page, newest first. The totals per range of ids give the range in which the page begins. If every id of
-- that range is a customer, they give the id too; else at most half of the range is read, from the nearer end.
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
-- The total, whether there are newer customers, and those that follow an id, newest first.
WITH page AS (
    SELECT <shown> FROM customers AS c
     WHERE c.deleted_at IS NULL AND c.id < %(after)s ORDER BY c.id DESC LIMIT %(limit)s
)
SELECT (SELECT coalesce(sum(delta), 0)::bigint FROM customer_totals),
       EXISTS (SELECT FROM customers WHERE deleted_at IS NULL AND id >= %(after)s), p.*
  FROM (SELECT) AS t LEFT JOIN page AS p ON true ORDER BY p.id DESC;

-- list_by_customer_id --
-- The customer of an identity, with the columns of list_customers. Two are possible: while a first load has no key yet, and
-- where one was given an e-mail as its customerId, in other letters than those that e-mails are stored in.
WITH found AS MATERIALIZED (
    SELECT id FROM customers
     WHERE customer_id IN (%(customer_id)s, %(email_identity)s)
       AND (%(email)s::text IS NULL OR email = %(email)s) AND deleted_at IS NULL
), <page_of_found>;

-- list_by_email --
-- The customers of an e-mail address, with the columns of list_customers.
WITH found AS MATERIALIZED (
    SELECT id FROM customers WHERE email = %(email)s AND deleted_at IS NULL
), <page_of_found>;

-- page_of_found --
-- Fragment: the total, whether there are newer customers than those of the page, and the page.
page AS (
    SELECT <shown> FROM customers AS c
     WHERE c.id IN (SELECT id FROM found WHERE %(after)s::bigint IS NULL OR id < %(after)s
                     ORDER BY id DESC OFFSET %(offset)s LIMIT %(limit)s)
     ORDER BY c.id DESC
)
SELECT (SELECT count(*) FROM found), EXISTS (SELECT FROM found WHERE id >= %(after)s), p.*
  FROM (SELECT) AS t LEFT JOIN page AS p ON true ORDER BY p.id DESC;

-- lock_values --
-- A session that writes one of these values waits here until no other session holds it.
SELECT pg_advisory_xact_lock(key) FROM unnest(%(keys)s::bigint[]) AS key;

-- find_taken --
-- Which customer has the e-mail address, and which has the identity. For the identity a deleted one too: a create revives it.
SELECT 'email' AS field, id, false AS is_deleted FROM customers
 WHERE email = %(email)s AND deleted_at IS NULL AND id <> %(but)s
UNION ALL
SELECT 'customerId', id, deleted_at IS NOT NULL FROM customers WHERE customer_id = %(customer_id)s;

-- insert_customer --
-- Inserts a customer and counts it.
WITH made AS (
    INSERT INTO customers (customer_id, [[{c}|, ]]) VALUES (%(customer_id)s, [[%({c})s|, ]]) RETURNING *
), counted AS (
    INSERT INTO customer_totals (id_range, delta) SELECT id >> 13, 1 FROM made
)
SELECT <shown> FROM made AS c;

-- revive_customer --
-- Creates a deleted customer again. It is new to the API; for imports its fields count as edited where they differ from theirs.
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
-- A customer as the API shows it, and its values. Locks it until the transaction ends.
SELECT <shown>, [[c.{c}|, ]] FROM customers AS c WHERE c.id = %(id)s AND c.deleted_at IS NULL FOR UPDATE;

-- update_customer --
-- Writes all fields. updated_at grows by at least a millisecond, which is the precision that the API shows.
UPDATE customers AS c
   SET [[{c} = %({c})s|, ]], updated_at = greatest(clock_timestamp(), c.updated_at + interval '1 millisecond')
 WHERE c.id = %(id)s
RETURNING <shown>;

-- delete_customer --
-- Marks a customer as deleted: the row stays, so that no import creates the customer again.
WITH gone AS (
    UPDATE customers SET deleted_at = clock_timestamp(), updated_at = clock_timestamp() WHERE id = %(id)s RETURNING id
)
INSERT INTO customer_totals (id_range, delta) SELECT id >> 13, -1 FROM gone;

-- fold_some_totals --
-- Makes one row of the several that a range may have. Skips rows that another session folds now, so it never waits.
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
